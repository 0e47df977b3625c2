"""The averaged weights against the trained ones: test accuracy by epoch, of a study that watched both.

    python studies/lag_by_epoch.py docs/study/reports-32.zip docs/study/lag.svg --arm baseline --arm decoupling

The zip is one that `ablate pack` wrote. The condition `as-published` watched each arm's averaged weights, `best-no-lag` the trained ones.
"""

from pathlib import Path

import click
import matplotlib as mpl
import pandas as pd
import seaborn as sns

from ablation.errors import AblateError
from ablation.report.frames import packed

CONDITIONS = {"as-published": "EMA of the weights", "best-no-lag": "weights as trained"}
FORMATS = (".svg", ".png", ".pdf")
METRIC = "watched/test/accuracy"


def watched(study: Path, arms: list[str]) -> pd.DataFrame:
    """One row per arm, seed, epoch (from 1) and kind of weights: the accuracy in percent."""
    names = [f"{condition}/{arm}" for condition in CONDITIONS for arm in arms]
    recorded = packed.read(study)
    runs = recorded.runs[recorded.runs["arm"].isin(names)]
    curves = recorded.curves(list(runs["run_id"]))
    points = runs[["arm", "seed", "run_id"]].merge(curves[curves["metric"] == METRIC], on="run_id")
    if lacking := sorted(set(names) - set(points["arm"])):
        raise click.ClickException(f"{study} has no accuracies by epoch of {', '.join(lacking)}")
    conditions_and_arms = points["arm"].str.split("/", n=1, expand=True)
    return pd.DataFrame(
        {
            "arm": conditions_and_arms[1],
            "tested": conditions_and_arms[0].map(CONDITIONS),
            "seed": points["seed"],
            "epoch": points["step"] + 1,
            "test accuracy, percent": 100 * points["value"],
        }
    )


@click.command()
@click.argument("study", type=click.Path(exists=True, path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--arm", "arms", multiple=True, required=True, help="An arm to show in a panel; may be given again.")
def main(study: Path, target: Path, arms: tuple[str, ...]) -> None:
    """Draw TARGET (.svg, .png or .pdf) from the packed STUDY: a panel per arm, the mean over seeds and their range."""
    try:
        points = watched(study, list(arms))
    except AblateError as error:
        raise click.ClickException(str(error)) from None
    if target.suffix not in FORMATS:
        raise click.ClickException(f"found {target}; expected a name that ends in {', '.join(FORMATS)}")
    mpl.rcParams |= {"svg.hashsalt": "ablate", "svg.fonttype": "path"}
    sns.set_theme(context="paper", style="whitegrid", palette="colorblind")
    grid = sns.relplot(
        points,
        x="epoch",
        y="test accuracy, percent",
        hue="tested",
        style="tested",
        col="arm",
        col_order=arms,
        kind="line",
        errorbar=("pi", 100),
        height=2.6,
        aspect=1.2,
    )
    grid.set_titles("{col_name}").set(ylim=(0, 100))
    target.parent.mkdir(parents=True, exist_ok=True)
    grid.savefig(target, metadata={"Date": None} if target.suffix == ".svg" else None)


if __name__ == "__main__":
    main()
