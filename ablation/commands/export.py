"""`ablate export` and `ablate pack`: one trained model, or a whole study without weights, for use elsewhere."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ablation.commands.exit_codes import DONE
from ablation.commands.last_run import folder_of
from ablation.commands.recorded import check_images, done_row, open_recorded
from ablation.errors import AblateError, ConfigError, StoreError
from ablation.formatting import size
from ablation.planning.workspace import Workspace
from ablation.system.paths import user_folder
from ablation.techniques.technique import allow_code
from ablation.tracking.recorded import Recorded, of_content

if TYPE_CHECKING:
    import pandas as pd

    from ablation.report.frames.recorded import Recorded as AnyRecorded
    from ablation.training.export import TrainedRun


def export(arm: str, folder: Path, seed: int | None, file: Path | None, profile: str | None, *, with_code: bool = False) -> int:
    """Write one run's model into a folder, with everything that is needed to use it."""
    from ablation.training.export import write_model

    user_folder(folder, "DIR")
    recorded = open_recorded(file, profile)
    check_images(recorded.plan, "export", "what it left in {out} is among the files of each run, which ablate ui shows")
    if with_code:
        allow_code(folder_of(recorded.study, file))
    result = _result(recorded, arm, seed)
    write_model(result, Workspace(Path("mlruns").resolve()).data, folder)
    run_name = f"{arm} seed {result.seed}" + (f" ({result.chosen_arm})" if result.chosen_arm else "")
    accuracy = f"test accuracy {100 * result.metrics['test/accuracy']:.2f} %"
    message = f"written to {folder}: {recorded.study}, {run_name}, run {result.run}, {accuracy}; ablation.load({str(folder)!r}) reads it"
    Console(stderr=True).print(message, markup=False, highlight=False, soft_wrap=True)
    return DONE


def _result(recorded: "AnyRecorded", arm: str, seed: int | None) -> "TrainedRun":
    """What an export needs of a run; without a seed, of the first finished one."""
    import pandas as pd

    from ablation.study.yamlfile import read
    from ablation.training.export import TrainedRun
    from ablation.training.work import WEIGHTS

    row = done_row(recorded, arm, seed)
    try:
        weights = recorded.artifact(row["run_id"], WEIGHTS)
    except StoreError as error:
        reason = "weights are not recorded if the study says keep: none, and a zip never has them"
        raise AblateError(f"{arm} seed {row['seed']} cannot be exported: {error}; {reason}") from None
    class_counts = pd.read_csv(recorded.artifact(row["run_id"], "class_distribution.csv"), dtype=str, keep_default_na=False)
    stage = read(recorded.artifact(row["run_id"], "config.yaml"))["stages"][-1]
    metrics = {str(name): float(value) for name, value in row.items() if "/" in str(name) and pd.notna(value)}
    run = recorded.runs.set_index("run_id").loc[row["run_id"]]
    digest, precision = run.get("digest", ""), run.get("precision") or stage["precision"]
    identity = (recorded.study, arm, int(row["seed"]), row["run_id"], row["chosen"])
    counts = [int(count) for count in class_counts["train"]]
    return TrainedRun(*identity, stage, class_counts["class"].tolist(), counts, metrics, digest, precision, weights)


def pack(
    target: Path,
    file: Path | None,
    profile: str | None,
    others: Sequence[Path] = (),
    *,
    predictions: bool = True,
    keep_stale: bool = False,
) -> int:
    """Write a study, with what was packed of it elsewhere, without weights and perhaps without predictions, into one zip file."""
    from ablation.report.frames import packed
    from ablation.report.frames.joined import joined

    if target.suffix != ".zip":
        raise ConfigError("FILE.zip", f"found {target}; expected a name that ends in .zip")
    user_folder(target.parent, "FILE.zip")
    if keep_stale and not others:
        raise ConfigError("--keep-stale", "found no --with, whose runs it is about; expected --with ZIP beside it")
    if file is not None and file.suffix == ".zip" and not others:
        raise ConfigError("--file", f"found {file}, which is already packed; expected the study's file, or --with another zip")
    zips = [packed.read(path) for path in others]
    first = open_recorded(file, profile)
    study = joined(first, zips, keep_stale=keep_stale) if zips else None
    points, written = _points_and_file(first)
    if study is not None:
        points = study.points([(first, points), *((record, record.all_points()) for record in zips)])
    recorded = study or first
    packed.write(recorded, points, written, target, predictions=predictions)
    is_whole = predictions and recorded.plan.get("predictions") is not False
    zip_size, lacking = size(target.stat().st_size), "without weights" if is_whole else "without weights and predictions"
    message = f"{recorded.study}: {len(recorded.runs)} runs in {target} ({zip_size}), {lacking}; ablate report {target} reads it anywhere"
    Console(stderr=True).print(message, markup=False, highlight=False, soft_wrap=True)
    return DONE


def _points_and_file(recorded: "AnyRecorded") -> "tuple[pd.DataFrame, bytes]":
    """The points of a study's curves, and the file that it came from."""
    from ablation.report.frames import packed

    if isinstance(recorded, packed.Packed):
        return recorded.all_points(), recorded.written
    assert isinstance(recorded, Recorded), recorded
    store = recorded.store
    plan = next(run for run in store.runs_of(recorded.study) if run["tags"].get("ablation.kind") == "plan")
    return packed.stored_points(recorded), store.artifact(plan["run_id"], of_content(packed.WRITTEN, recorded.content)).read_bytes()
