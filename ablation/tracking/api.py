"""What MLflow is asked when a store is read: the same questions that `tables` answers of a local database, for any store.

MLflow is imported with the first of them, since that takes over a second.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

from ablation.tracking.messages import unusable
from ablation.tracking.recorded import Point
from ablation.tracking.tables import ABOUT_RUN, RUNS_AT_ONCE, Experiment

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


class _Addressed(Protocol):
    uri: str


S = TypeVar("S", bound=_Addressed)
P = ParamSpec("P")
R = TypeVar("R")
METRICS_AT_ONCE, PARAMS_AT_ONCE = 1000, 100


def mlflow_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """These errors, and those of MLflow, which raises none as long as it was not imported; making tables, it lets SQLAlchemy's pass."""
    if "mlflow" not in sys.modules:
        return others
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (*others, MlflowException, SQLAlchemyError)


def raises_store_errors(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """The method of what has an address, raising a StoreError for each error of MLflow's."""

    @wraps(method)
    def wrapper(store: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(store, *args, **kwargs)
        except mlflow_errors() as error:
            raise unusable(store.uri, error) from error

    return wrapper


@dataclass(frozen=True)
class Api:
    """The store at an address."""

    uri: str

    @cached_property
    def client(self) -> "MlflowClient":
        """MLflow's client."""
        from mlflow.tracking import MlflowClient

        return MlflowClient(self.uri)

    def check(self) -> None:
        """Raise one of `mlflow_errors` if the store does not answer; MLflow makes the tables of a database that has none."""
        self.client.search_experiments(max_results=1)

    def experiment(self, name: str) -> Experiment | None:
        """The experiment of that name, active or deleted."""
        found = self.client.get_experiment_by_name(name)
        return None if found is None else _experiment(found)

    def experiments(self) -> list[Experiment]:
        """Every experiment, active or deleted, the newest first."""
        from mlflow.entities import ViewType

        experiments, token = list[Experiment](), None
        while True:
            page = self.client.search_experiments(ViewType.ALL, max_results=RUNS_AT_ONCE, page_token=token)
            experiments += [_experiment(found) for found in page]
            token = page.token
            if not token:
                return experiments

    def runs(self, experiment: str, *, deleted: bool) -> list[dict[str, Any]]:
        """Every run of an experiment as `Store.runs` has it, with the address of its artifacts; the newest first."""
        from mlflow.entities import ViewType

        view, runs, token = ViewType.ALL if deleted else ViewType.ACTIVE_ONLY, list[dict[str, Any]](), None
        while True:
            newest_first = ["attributes.start_time DESC"]
            page = self.client.search_runs([experiment], "", view, max_results=RUNS_AT_ONCE, order_by=newest_first, page_token=token)
            runs += [as_dict(run) for run in page]
            token = page.token
            if not token:
                return runs

    def artifacts_of(self, run_id: str) -> str | None:
        """The address of a run's artifacts."""
        address: str | None = self.client.get_run(run_id).info.artifact_uri
        return address

    def history(self, run_id: str, names: Iterable[str], beginnings: tuple[str, ...]) -> list[tuple[str, float, int, int]]:
        """The name, value, time and step of each point of the run's metrics whose names begin so, in the order of their times.

        `names` are those of all metrics of the run, if the caller has them.
        """
        wanted = [name for name in names or self.client.get_run(run_id).data.metrics if name.startswith(beginnings)]
        points = [point for name in wanted for point in self.client.get_metric_history(run_id, name)]
        return sorted(((point.key, point.value, point.timestamp, point.step) for point in points), key=lambda point: point[2])


def _experiment(found: Any) -> Experiment:
    return Experiment(found.experiment_id, found.name, found.lifecycle_stage, found.artifact_location, dict(found.tags))


def as_dict(run: Any) -> dict[str, Any]:
    """A run of MLflow's as plain data."""
    info = run.info
    about = (info.run_id, info.status, info.start_time, info.end_time, info.run_name, info.artifact_uri)
    digests = [dataset_input.dataset.digest for dataset_input in run.inputs.dataset_inputs] if run.inputs else []
    data = {"tags": dict(run.data.tags), "params": dict(run.data.params), "metrics": dict(run.data.metrics)}
    return dict(zip(ABOUT_RUN, about, strict=True)) | data | {"digest": digests[-1] if digests else ""}


def without_artifacts(run: Mapping[str, Any]) -> dict[str, Any]:
    """The same without the address of its artifacts."""
    return {name: value for name, value in run.items() if name != "artifacts"}


def data_input(name: str, digest: str, place: str, context: str) -> Any:
    """A data set of a run, as MLflow takes it."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    return DatasetInput(Dataset(name, digest, "local", place), [InputTag("mlflow.data.context", context)])


def upload(client: "MlflowClient", run_id: str, name: str, path: Path) -> None:
    """Add a file to a run's artifacts under this name, which may have folders."""
    folder, _, last = name.rpartition("/")
    if last == path.name:
        client.log_artifact(run_id, str(path), folder or None)
        return
    with tempfile.TemporaryDirectory() as temporary_folder:
        client.log_artifact(run_id, shutil.copyfile(path, Path(temporary_folder) / last), folder or None)


def batches(
    points: Iterable[Point], params: Mapping[str, str], tags: Mapping[str, str]
) -> Iterator[tuple[list[Any], list[Any], list[Any]]]:
    """Points, params and tags as MLflow takes them, so many at once; the tags last."""
    from mlflow.entities import Metric, Param, RunTag

    metrics = [Metric(point.name, point.value, point.time, point.step) for point in points]
    run_params = [Param(name, value) for name, value in params.items()]
    run_tags = [RunTag(name, value) for name, value in tags.items()]
    room = METRICS_AT_ONCE - 2 * PARAMS_AT_ONCE
    while metrics or run_params or run_tags:
        is_last = len(metrics) <= room and len(run_params) <= PARAMS_AT_ONCE
        batch = metrics[:room], run_params[:PARAMS_AT_ONCE], run_tags[:PARAMS_AT_ONCE] if is_last else []
        yield batch
        metrics, run_params, run_tags = metrics[room:], run_params[PARAMS_AT_ONCE:], run_tags[len(batch[2]) :]
