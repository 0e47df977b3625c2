"""`ablate export` and `ablate pack`: one trained model, or a whole study without weights, for use elsewhere."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ablation.commands.exit_codes import DONE
from ablation.commands.recorded import check_images, done_row, open_recorded
from ablation.errors import AblateError, ConfigError, StoreError
from ablation.formatting import size
from ablation.planning.workspace import Workspace
from ablation.system.paths import user_folder
from ablation.tracking.recorded import Recorded, of_content

if TYPE_CHECKING:
    from ablation.report.frames.recorded import Recorded as AnyRecorded
    from ablation.training.export import TrainedRun


def export(arm: str, folder: Path, seed: int | None, file: Path | None, profile: str | None) -> int:
    """Write one run's model into a folder, with everything that is needed to use it."""
    from ablation.training.export import write_model

    user_folder(folder, "DIR")
    recorded = open_recorded(file, profile)
    check_images(recorded.plan, "export", "what it left in {out} is among the files of each run, which ablate ui shows")
    result = _result(recorded, arm, seed)
    write_model(result, Workspace(Path("mlruns").resolve()).data, folder)
    run_name = f"{arm} seed {result.seed}" + (f" ({result.chosen_arm})" if result.chosen_arm else "")
    accuracy = f"test accuracy {100 * result.metrics['test/accuracy']:.2f} %"
    message = f"written to {folder}: {run_name}, run {result.run}, {accuracy}; ablation.load({str(folder)!r}) reads it"
    Console(stderr=True).print(message, markup=False, highlight=False, soft_wrap=True)
    return DONE


def _result(recorded: "AnyRecorded", arm: str, seed: int | None) -> "TrainedRun":
    """What an export needs of a run; without a seed, of the first finished one."""
    import pandas as pd

    from ablation.study.yamlfile import read
    from ablation.training.export import WEIGHTS, TrainedRun

    row = done_row(recorded, arm, seed)
    try:
        weights = recorded.artifact(row["run_id"], WEIGHTS)
    except StoreError as error:
        reason = "weights are not recorded if the study says keep: none, and a zip never has them"
        raise AblateError(f"{arm} seed {row['seed']} cannot be exported: {error}; {reason}") from None
    class_counts = pd.read_csv(recorded.artifact(row["run_id"], "class_distribution.csv"), dtype=str, keep_default_na=False)
    stage = read(recorded.artifact(row["run_id"], "config.yaml"))["stages"][-1]
    metrics = {str(name): float(value) for name, value in row.items() if "/" in str(name) and pd.notna(value)}
    digest = recorded.runs.set_index("run_id").loc[row["run_id"]].get("digest", "")
    identity = (recorded.study, arm, int(row["seed"]), row["run_id"], row["chosen"])
    return TrainedRun(
        *identity, stage, class_counts["class"].tolist(), [int(count) for count in class_counts["train"]], metrics, digest, weights
    )


def pack(target: Path, file: Path | None, profile: str | None, *, predictions: bool = True) -> int:
    """Write a study, without weights and perhaps without predictions, into one zip file."""
    from ablation.report.frames import packed

    if target.suffix != ".zip":
        raise ConfigError("FILE.zip", f"found {target}; expected a name that ends in .zip")
    user_folder(target.parent, "FILE.zip")
    if file is not None and file.suffix == ".zip":
        raise ConfigError("--file", f"found {file}, which is already packed; expected the study's file")
    recorded = open_recorded(file, profile)
    assert isinstance(recorded, Recorded), recorded
    name, store = recorded.study, recorded.store
    plan = next(run for run in store.runs_of(name) if run["tags"].get("ablation.kind") == "plan")
    packed.write(recorded, store.artifact(plan["run_id"], of_content(packed.WRITTEN, recorded.content)), target, predictions=predictions)
    zip_size, lacking = size(target.stat().st_size), "without weights" if predictions else "without weights and predictions"
    message = f"{name}: {len(recorded.runs)} runs in {target} ({zip_size}), {lacking}; ablate report {target} reads it anywhere"
    Console(stderr=True).print(message, markup=False, highlight=False, soft_wrap=True)
    return DONE
