"""The command line `ablate`: only the click commands and their options. Heavy modules are imported once a command starts."""

import errno
import os
import sys
from pathlib import Path
from typing import Any

import click

from ablation.cli_group import (
    Ablate,
    UserPath,
    code_option,
    file_argument,
    matrix_options,
    profile_option,
    study_file_options,
    study_options,
)
from ablation.system.version import version

FORMATS = ("markdown", "html", "latex", "csv", "json", "text")  # a test checks that it equals ablation.report.FORMATS


def _options(values: dict[str, Any]) -> Any:
    from ablation.commands.options import Options, parse_budget, parse_interval, parse_part, parse_set
    from ablation.study.task import EVERY_EPOCH

    as_they_are = ("file", "profile", "arms", "seeds", "device", "executor", "ray_address", "yes", "allow_code")
    return Options(
        **{name: values[name] for name in as_they_are},
        sets=tuple(parse_set(text) for text in values["sets"]),
        jobs=values["jobs"] or 0,
        rerun=values["rerun"] or "",
        budget=parse_budget(values["budget"]) if values["budget"] is not None else 0.0,
        checkpoint_interval=parse_interval(values["save_every"]) if values.get("save_every") is not None else EVERY_EPOCH,
        part=parse_part(values["part"]) if values.get("part") is not None else None,
        is_detached=values.get("is_detached", False),
        records_part=values.get("records_part", False),
    )


@click.group(cls=Ablate, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version(), message="%(version)s")
def cli() -> None:
    """One YAML file in, one defended ablation table out.

    `ablate run experiments.yaml` trains what is missing, `ablate report` shows the results, `ablate ui` serves MLflow's page.
    """


@cli.command(short_help="Write a study to start from.")
@click.argument("name", default="own-images", metavar="[own-images|reports|cifar10-lt|own-function|own-command]")
@click.option(
    "--output", type=UserPath(), default=Path("experiments.yaml"), show_default=True, metavar="FILE", help="The file that is written."
)
def init(name: str, output: Path) -> int:
    """Write a commented study to start from, by default one of your own images; no file is overwritten.

    own-images is a ladder over images in folders or a CSV, reports the matrix of two course reports on class imbalance (its profile quick
    needs no data), cifar10-lt the field's long-tail table. own-function and own-command run training code of your own, a function or a
    script, which is written beside the file to start from.
    """
    from ablation.commands import init as command

    return command.init(name, output)


@cli.command(short_help="Run every arm and seed that is not done yet.")
@matrix_options
@click.option("--part", metavar="I/N", help="Only the I-th of N parts; the results lie in mlruns/, and ablate run without it records them.")
@click.option("--detach", "is_detached", is_flag=True, help="With jobs of a queue: submit them and end; the same command later records.")
@click.option("--record", "records_part", is_flag=True, help="With --part: also record what is there when the part ends.")
@click.option(
    "--save-every",
    metavar="N|TIME",
    help="Write a checkpoint every N epochs, or every so many minutes (10m); by default every epoch. A stop always writes one.",
)
def run(**values: Any) -> int:
    """Run every arm and seed of FILE that is not done yet, and record the results in MLflow.

    Ctrl-C, SIGTERM or SIGUSR1 stops after the epoch, a second one at once; the command that continues is printed.
    """
    from ablation.system import signals

    with signals.interruptible():
        with signals.interruptible():  # a second one, so that nothing starts if a library swallowed the interruption
            from ablation.commands import run as command
        return command.run(_options(values))


@cli.command(short_help="Show what would run, why, and how long.")
@matrix_options
@click.option("--stages", "with_stages", is_flag=True, help="Also list every arm's change, every run and every stage.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.option(
    "--compile", "measure_compile", is_flag=True, help="Also measure whether `compile: true` would save time; takes minutes per model."
)
def plan(as_json: bool, with_stages: bool, measure_compile: bool, **values: Any) -> int:
    """Show what would run, why, how long it would take, and what is shared or already done."""
    from ablation.commands import plan as command

    return command.plan(_options(values), as_json=as_json, with_stages=with_stages, measure_compile=measure_compile)


@cli.command(short_help="Show what was found in the data.")
@file_argument
@profile_option
@click.option("--arm", "arms", multiple=True, metavar="GLOB", help="Only the data of the arms that match.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="The split of this seed; by default the study's first.")
@click.option("--set", "sets", multiple=True, metavar="PATH=VALUE", help="Override a setting in every arm, such as data.validation=0.1.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON, with the names of all images that were found odd.")
@code_option
def data(
    file: Path, profile: str | None, arms: tuple[str, ...], seed: int | None, sets: tuple[str, ...], as_json: bool, allow_code: bool
) -> int:
    """Show what was found in the data of FILE without training: classes, splits, duplicates, labels that contradict, odd images."""
    from ablation.commands import data as command
    from ablation.commands.options import Options, parse_set

    seeds = () if seed is None else (seed,)
    parsed = tuple(parse_set(text) for text in sets)
    return command.data(Options(file, profile, arms, seeds, parsed, device="cpu", allow_code=allow_code), as_json=as_json)


@cli.command(short_help="Show one arm with all its settings.")
@click.argument("arm")
@study_file_options
@click.option("--set", "sets", multiple=True, metavar="PATH=VALUE", help="Override a setting in every arm.")
@code_option
def show(arm: str, file: Path | None, profile: str | None, sets: tuple[str, ...], allow_code: bool) -> int:
    """Show one ARM in full: its parent, its changes, its labels, its settings and its stages."""
    from ablation.commands import show as command
    from ablation.commands.last_run import study_file
    from ablation.commands.options import Options, parse_set

    parsed = tuple(parse_set(text) for text in sets)
    return command.show(Options(*study_file(file, profile), sets=parsed, allow_code=allow_code), arm)


@cli.command(short_help="Show how the runs stand.")
@click.option("--follow", is_flag=True, help="Keep showing it until the run ends.")
def status(follow: bool) -> int:
    """Show the progress of the studies that are running, or of the one that was run last."""
    from ablation.commands import status as command

    return command.status(follow=follow)


@cli.command(short_help="End the jobs submitted to a queue.")
@click.argument("file", type=UserPath(), required=False)
@profile_option
def cancel(file: Path | None, profile: str | None) -> int:
    """End the jobs that ablate run submitted to a queue, of the study of FILE or of all studies here; checkpoints and results stay."""
    from ablation.commands import cancel as command

    return command.cancel(file, profile)


@cli.command(short_help="Show the epochs of one run, or its failure.")
@click.argument("arm")
@click.argument("seed", type=int)
@study_options
def log(arm: str, seed: int, file: Path | None, profile: str | None) -> int:
    """Show the epochs of one run, and why it failed if it did."""
    from ablation.commands import status as command

    return command.log(arm, seed, file, profile)


@cli.command(short_help="Train a run's first epoch again, and compare.")
@click.argument("arm")
@click.argument("seed", type=int)
@study_file_options
@click.option(
    "--steps", type=click.IntRange(min=1), metavar="N", help="Instead train only N steps, twice, and compare the two with each other."
)
@code_option
def verify(arm: str, seed: int, file: Path | None, profile: str | None, steps: int | None, allow_code: bool) -> int:
    """Train a recorded run's first epoch again, in memory, and say whether it comes out as recorded; exits with 1 if not."""
    from ablation.commands import verify as command

    return command.verify(arm, seed, file, profile, steps=steps or 0, with_code=allow_code)


@cli.command(short_help="Print or write the report of a study.")
@click.argument("file", type=UserPath(), required=False)
@profile_option
@click.option("--format", "document_format", type=click.Choice(FORMATS), help="The format of the report; by default markdown.")
@click.option(
    "--output",
    type=UserPath(),
    metavar="DIR",
    help="Write the report into this folder, with figures and CSV files; by default, print it.",
)
@click.option("--arm", "arms", multiple=True, metavar="GLOB", help="Only the arms that match.")
@click.option("--metric", default="", show_default="the study's", help="The metric whose differences are tested.")
@click.option("--sort", metavar="COLUMN", help="Sort the arms by a metric (best first) or by arm, instead of in the file's order.")
@click.option("--only-changed", is_flag=True, help="Show a column for each setting that differs between the arms.")
@click.option("--reference", type=UserPath(), metavar="FILE", help="A CSV file of published figures to show beside the measured ones.")
@click.option("--columns", metavar="A,B", help="LaTeX's columns: arm, change, n, a metric, parent, baseline, verdict, published.")
@click.option("--check", type=UserPath(), metavar="FILE", help="Compare this report with the store; exits with 1 if they differ.")
@click.option("--watch", is_flag=True, help="Show the table again whenever the store changes, until the run ends.")
def report(file: Path | None, profile: str | None, check: Path | None, watch: bool, **values: Any) -> int:
    """Print or write the report of a study: comparison table, per-class tables, figures.

    FILE is the study's file, or a zip that `ablate pack` wrote; by default, the study last run here.
    """
    from ablation.commands import report as command

    return command.report_on(file, profile, command.ReportOptions(**values), check=check, watching=watch)


@cli.command(short_help="Compare two arms.")
@click.argument("arm")
@click.argument("other")
@study_options
@click.option("--metric", default="", show_default="the study's", help="The metric that the verdict is about.")
def compare(arm: str, other: str, file: Path | None, profile: str | None, metric: str) -> int:
    """Compare ARM with OTHER: settings that differ, paired differences (OTHER minus ARM), classes that gained and lost."""
    from ablation.commands import show as command

    return command.compare(arm, other, file, profile, metric)


@cli.command(short_help="Write one trained model into a folder.")
@click.argument("arm")
@click.argument("folder", metavar="DIR", type=UserPath())
@click.option("--seed", type=int, metavar="N", help="The seed of the run; by default, the first finished one.")
@study_options
@code_option
def export(arm: str, folder: Path, seed: int | None, file: Path | None, profile: str | None, allow_code: bool) -> int:
    """Write one trained model of ARM into DIR: weights, class names and preprocessing; ablation.load(DIR) loads it."""
    from ablation.commands import export as command

    return command.export(arm, folder, seed, file, profile, with_code=allow_code)


@cli.command(short_help="Write a whole study into one zip.")
@click.argument("target", metavar="FILE.zip", type=UserPath())
@click.option("--no-predictions", is_flag=True, help="Leave out what was predicted for single images, nearly all of the size.")
@click.option(
    "--with", "others", multiple=True, type=UserPath(), metavar="ZIP", help="Add the runs of the same study that were packed elsewhere."
)
@click.option(
    "--keep-stale", is_flag=True, help="With --with: also if only code, versions or the kind of device differ; the report says so."
)
@study_options
def pack(target: Path, file: Path | None, profile: str | None, others: tuple[Path, ...], no_predictions: bool, keep_stale: bool) -> int:
    """Write a whole study, without weights, into one zip that `ablate report FILE.zip` reads."""
    from ablation.commands import export as command

    return command.pack(target, file, profile, others, predictions=not no_predictions, keep_stale=keep_stale)


@cli.command(short_help="Delete files whose contents are recorded.")
@click.option("--all", "everything", is_flag=True, help="Also delete unfinished work and, of all studies, decoded data.")
@click.option("--yes", is_flag=True, help="Delete without asking.")
@click.option("--file", type=UserPath(), help="Only the study of this file; by default, all studies here.")
@profile_option
def clean(file: Path | None, profile: str | None, everything: bool, yes: bool) -> int:
    """Delete checkpoints and results that are already recorded in the store; says which, and asks."""
    from ablation.commands import clean as command

    return command.clean(file, profile, everything=everything, yes=yes)


@cli.command(short_help="Explain a technique, or list them all.")
@click.argument("name", required=False)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "markdown"]),
    default="text",
    show_default=True,
    help="Print text, or a Markdown page of all techniques.",
)
def techniques(name: str | None, output_format: str) -> int:
    """Explain a technique or a family: formula, paper, settings, and its line in a file. Without NAME, list them all."""
    from ablation.commands import techniques as command

    return command.techniques(name, as_page=output_format == "markdown")


@cli.command("check-technique", short_help="Check a technique of your own.")
@click.argument("family")
@click.argument("technique")
@code_option
def check_technique(family: str, technique: str, allow_code: bool) -> int:
    """Check that a TECHNIQUE of your own does what every member of its FAMILY must do.

    FAMILY is the setting that takes it (loss, sampler, mix ...), TECHNIQUE its name, module:Class, or a mapping such as
    "{name: my_losses:Poly1, epsilon: 2.0}".
    """
    from ablation.commands import techniques as command

    return command.check_technique(family, technique, with_code=allow_code)


@cli.command("check-task", short_help="Check that your own training code repeats.")
@file_argument
@profile_option
@click.option("--arm", metavar="ARM", help="The arm that is tried; by default the first.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="The seed; by default the study's first.")
@click.option("--set", "sets", multiple=True, metavar="PATH=VALUE", help="Override a setting, such as epochs=1 for a shorter run.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|cuda:1", help="Where to run it.")
@click.option("--yes", is_flag=True, help="Also stop a run in the middle where runs take over 10 minutes.")
@code_option
def check_task(file: Path, arm: str | None, seed: int | None, sets: tuple[str, ...], **values: Any) -> int:
    """Run training code of your own (`task` in FILE) twice with one seed, and once stopped in the middle and begun again.

    Says whether it comes out the same, which the report then says too; exits with 1 if not. Only this answer is recorded.
    """
    from ablation.system import signals

    with signals.interruptible():
        from ablation.commands import check_task as command
        from ablation.commands.options import Options, parse_set

        parsed, seeds = tuple(parse_set(text) for text in sets), () if seed is None else (seed,)
        options = Options(file, arms=(arm,) if arm else (), seeds=seeds, sets=parsed, **values)
    return command.check_task(options)


@cli.command(short_help="Print a JSON schema of the file.")
def schema() -> int:
    """Print a JSON schema of the file, for editors."""
    from ablation.commands import techniques as command

    return command.schema()


@cli.command(short_help="Serve MLflow's page on the store.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=5000, show_default=True, help="The port to listen on.")
def ui(host: str, port: int) -> int:
    """Serve MLflow's own page on the store, and print its addresses; Ctrl-C ends it."""
    from ablation.commands import ui as command

    return command.ui(host, port)


def main() -> None:
    """Run the command line."""
    if sys.platform == "win32":  # whose signals, links between files and page sizes are others
        click.echo("error: found Windows; expected Linux or macOS, or Linux within Windows (WSL), where ablate runs as on Linux", err=True)
        sys.exit(2)
    from ablation.system import environment, streams

    streams.settle()
    environment.settle()
    try:
        status = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        status = 2
    except click.Abort:
        status = 130
    except OSError as error:  # of help that cannot be written
        click.echo(f"error: {error}", err=True)
        status = 2
    os._exit(_flushed(status if isinstance(status, int) else 0))  # an ordinary exit takes two seconds with torch and MLflow loaded


def _flushed(status: int) -> int:
    """Write what is left of the output; the exit status, which is not 0 where a document could not be written."""
    try:
        sys.stdout.flush()
    except OSError as error:
        if not status and error.errno != errno.EPIPE:
            click.echo(f"error: the output could not be written: {error.strerror}", err=True)
        status = status or (1 if error.errno == errno.EPIPE else 2)
    sys.stderr.flush()
    return status
