"""Which of a store's experiments is whose: a study's own, whatever it is called in MLflow by now, and none that others made."""

from collections.abc import Sequence

from ablation.errors import StoreError, nearest
from ablation.tracking.api import Api
from ablation.tracking.messages import without_secrets
from ablation.tracking.tables import Experiment, Tables

STUDY, CHANGED = "ablation.study", "ablation.changed"  # tags of an experiment: the study, whatever its name in MLflow; when it changed


def experiment_of(source: Tables | Api, study: str, location: str | None) -> Experiment | None:
    """The study's experiment, active or deleted: the one of its name, else the one that was renamed in MLflow.

    `location` is where one was made that has no tag. Raises StoreError where the name is taken by another study, or by others' runs.
    """
    experiment = source.experiment(study)
    if experiment is None:
        return next((other for other in source.experiments() if _study_of(other, study, location) == study), None)
    if experiment.tags.get(STUDY, study) != study:
        reason = f"the name {study!r} is taken in MLflow by the study {experiment.tags[STUDY]!r}, which was renamed there"
        raise StoreError(f"{reason}; expected another name for either")
    if STUDY not in experiment.tags and _is_foreign(source, experiment):
        reason = f"the name {study!r} is taken in MLflow by an experiment that ablate did not make"
        raise StoreError(f"{reason}; expected another name for the study or for the experiment")
    return experiment


def _study_of(experiment: Experiment, study: str, location: str | None) -> str:
    return experiment.tags.get(STUDY) or (study if experiment.artifact_location == location else "")


def _is_foreign(source: Tables | Api, experiment: Experiment) -> bool:
    """Whether there are runs in it, and none that was recorded here."""
    runs = source.runs(experiment.experiment_id, deleted=True)
    return bool(runs) and not any("ablation.kind" in run["tags"] for run in runs)


def studies_of(experiments: Sequence[Experiment]) -> list[tuple[str, int, bool]]:
    """Every study that has a recorded plan: its name, the time of its last change, whether it is active; the last changed first."""
    known = [experiment for experiment in experiments if CHANGED in experiment.tags]
    studies = [(one.tags.get(STUDY, one.name), int(one.tags[CHANGED]), one.lifecycle_stage == "active") for one in known]
    return sorted(studies, key=lambda study: -study[1])


def unknown(study: str, names: Sequence[str], address: str) -> StoreError:
    """The error for a study that the store at this address does not have; it has those of these names."""
    expected = f"expected one of {', '.join(names)}" if names else "it holds none yet: ablate run FILE records one"
    return StoreError(f"the store at {without_secrets(address)} has no study {study!r}; {expected}.{nearest(study, names)}")
