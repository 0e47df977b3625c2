"""`ablate show` and `ablate compare`: one arm in full, or two side by side."""

from pathlib import Path

from rich.console import Console

from ablation.commands.exit_codes import DONE
from ablation.commands.options import Options
from ablation.errors import DataError, unknown_name


def show(options: Options, name: str) -> int:
    """Print one arm in full."""
    from ablation.commands.session import Session  # late, since it imports torch, which `compare` does without
    from ablation.planning import explain

    session = Session(options, Console(stderr=True))
    arms = {arm.name: arm for arm in session.study.arms}
    if name not in arms:
        raise unknown_name("ARM", "arm", name, arms)
    try:
        labels = session.preparation.planner.labels(arms[name], arms, session.study.seeds[0])
    except DataError as error:
        labels = {"unknown": f"labels that depend on the data cannot be computed: {error}"}
    print(explain.arm_text(arms[name], labels, session.task))
    return DONE


def compare(arm: str, other_arm: str, file: Path | None, profile: str | None, metric: str) -> int:
    """Print two arms side by side: settings, results, classes, test images and runs."""
    from tabulate import tabulate

    from ablation.commands.recorded import open_recorded
    from ablation.report.documents import comparing

    recorded = open_recorded(file, profile)
    parts = comparing.compare(recorded, arm, other_arm, metric)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(f"{recorded.study}: from {arm} to {other_arm}; each difference is {other_arm} minus {arm}", style="bold")
    for part in parts:
        console.print(f"\n{part.title}", style="bold")
        if part.rows:
            print(tabulate(part.rows, part.columns, tablefmt="simple", disable_numparse=True))
        for note in part.notes:
            print(note)
    return DONE
