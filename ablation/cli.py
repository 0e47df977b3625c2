"""The command `ablate`: click commands, wiring only. Nothing heavy is imported before a command begins its work."""

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

FORMATS = ("markdown", "html", "latex", "csv", "json")  # ablation.report.FORMATS, which a test holds equal

file_argument = click.argument("file", type=click.Path(path_type=Path))
profile_option = click.option("--profile", metavar="NAME", help="A profile of the file: another base and seeds, a study of its own.")
code_option = click.option("--allow-code", is_flag=True, help="Let the file name classes of your own as module:Class, and import them.")


def matrix_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that `run`, `plan` and `show` share."""
    for option in reversed(
        [
            file_argument,
            profile_option,
            click.option("--arm", "arms", multiple=True, metavar="GLOB", help="Only these arms; may be given more than once."),
            click.option("--seed", "seeds", multiple=True, type=int, metavar="N", help="These seeds instead of the file's."),
            click.option(
                "--set", "sets", multiple=True, metavar="PATH=VALUE", help="A setting over everything, such as optimizer.lr=1e-3."
            ),
            click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|cuda:0,1", help="Where to train."),
            click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="Runs at once per device (CPU: as many as cores)."),
            click.option("--executor", type=click.Choice(["local"]), default="local", show_default=True, help="Where workers run."),
            click.option(
                "--rerun",
                type=click.Choice(["cached", "retry", "force", "keep"]),
                help="Earlier results: stale ones again (cached) or used (keep), failed ones again (retry), all again (force).",
            ),
            click.option(
                "--budget",
                metavar="TIME",
                help="Begin no run that would not end in this time (2h, 90m), but for one longer than all of it; the same command goes on.",
            ),
            click.option("--yes", is_flag=True, help="Start even what would take over a day on a CPU."),
            code_option,
        ]
    ):
        command = option(command)
    return command


def study_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options by which a command that trains nothing is told its study."""
    path = click.Path(path_type=Path)
    file = click.option("--file", type=path, help="The study's file, or its zip; without it, the study last run here.")
    return file(profile_option(command))


def _options(values: dict[str, Any]) -> Any:
    from ablation.commands.options import Options, parse_budget, parse_interval, parse_set
    from ablation.study.task import EVERY_EPOCH

    return Options(
        file=values["file"],
        profile=values["profile"],
        arms=values["arms"],
        seeds=values["seeds"],
        sets=tuple(parse_set(text) for text in values["sets"]),
        device=values["device"],
        jobs=values["jobs"] or 0,
        executor=values["executor"],
        rerun=values["rerun"] or "",
        budget=parse_budget(values["budget"]) if values["budget"] else 0.0,
        yes=values["yes"],
        allow_code=values["allow_code"],
        checkpoint_interval=parse_interval(values["save_every"]) if values.get("save_every") else EVERY_EPOCH,
    )


class Ablate(click.Group):
    """The group of all commands: what one returns is the exit status, and users' mistakes end in one message and status 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was chosen and end with its status."""
        from ablation.errors import AblateError
        from ablation.system.invocation import command_line

        try:
            status = super().invoke(ctx)
        except AblateError as error:
            click.echo(f"error: {error}", err=True)
            status = 2
        except OSError as error:
            if error.errno == errno.EPIPE:  # who reads has gone, as `head` does: click ends quietly
                raise
            click.echo(f"error: {error}", err=True)
            status = 2
        except KeyboardInterrupt:
            click.echo(f"stopped; to go on: {command_line()}", err=True)
            status = 130
        ctx.exit(status or 0)


@click.group(cls=Ablate, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="longtail-ablation", message="%(version)s")
def cli() -> None:
    """One YAML file in, one defended ablation table out.

    `ablate run experiments.yaml` trains what is missing, `ablate report` tells what came out, `ablate ui` opens MLflow on it.
    """


@cli.command()
@matrix_options
@click.option(
    "--save-every",
    metavar="N|TIME",
    help="Write a training's checkpoint every N epochs or every so many minutes (10m); every epoch if not said. A stop saves anyway.",
)
def run(**values: Any) -> int:
    """Run every arm and seed of FILE that is not done yet, and record it in MLflow.

    Ctrl-C, SIGTERM or SIGUSR1 stop after the epoch, twice at once; the command that goes on is printed.
    """
    from ablation.system import signals

    with signals.interruptible():
        with signals.interruptible():  # of its own, so that nothing starts where a library has swallowed the interruption
            from ablation.commands import run as command
        return command.run(_options(values))


@cli.command()
@matrix_options
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.option("--compile", "compiled", is_flag=True, help="Measure whether `compile: true` would save time; minutes for each model.")
def plan(as_json: bool, compiled: bool, **values: Any) -> int:
    """Show what would run, why, how long it takes, and what is shared or done already."""
    from ablation.commands import plan as command

    return command.plan(_options(values), as_json=as_json, compiled=compiled)


@cli.command()
@click.argument("arm")
@click.option("--file", type=click.Path(path_type=Path), default=Path("experiments.yaml"), show_default=True, help="The study's file.")
@profile_option
@click.option("--set", "sets", multiple=True, metavar="PATH=VALUE", help="A setting over everything.")
@code_option
def show(arm: str, file: Path, profile: str | None, sets: tuple[str, ...], allow_code: bool) -> int:
    """Show one ARM in full: its parent, change, labels, settings and stages."""
    from ablation.commands import show as command
    from ablation.commands.options import Options, parse_set

    parsed = tuple(parse_set(text) for text in sets)
    return command.show(Options(file, profile, sets=parsed, allow_code=allow_code), arm)


@cli.command()
@click.option("--follow", is_flag=True, help="Until it ends.")
def status(follow: bool) -> int:
    """Show how the matrix that is being run, or was run last, stands."""
    from ablation.commands import status as command

    return command.status(follow=follow)


@cli.command()
@click.argument("arm")
@click.argument("seed", type=int)
@study_options
def log(arm: str, seed: int, file: Path | None, profile: str | None) -> int:
    """Show the epochs of one run, and why it failed if it did."""
    from ablation.commands import status as command

    return command.log(arm, seed, file, profile)


@cli.command()
@click.argument("arm")
@click.argument("seed", type=int)
@study_options
@click.option("--steps", type=click.IntRange(min=1), metavar="N", help="Train only N steps, twice, and compare these with each other.")
@code_option
def verify(arm: str, seed: int, file: Path | None, profile: str | None, steps: int | None, allow_code: bool) -> int:
    """Train a recorded run's first epoch again, in memory, and say whether it comes out as recorded; 1 where it does not."""
    from ablation.commands import verify as command

    return command.verify(arm, seed, file, profile, steps=steps or 0, with_code=allow_code)


@cli.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@profile_option
@click.option("--format", "form", type=click.Choice(FORMATS), help="The document's form; markdown if not said.")
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="DIR", help="Write it there, with figures and CSVs beside; else to stdout."
)
@click.option("--arm", "arms", multiple=True, metavar="GLOB", help="Only these arms.")
@click.option("--metric", default="test/accuracy", show_default=True, help="The metric that differences are taken of.")
@click.option("--sort", metavar="COLUMN", help="Order the arms by a metric (the best first) or by arm, instead of the file's order.")
@click.option("--only-changed", is_flag=True, help="Show the settings that differ between the arms, a column each.")
@click.option("--reference", type=click.Path(path_type=Path), metavar="FILE", help="A CSV of published figures to set beside ours.")
@click.option("--check", type=click.Path(path_type=Path), metavar="FILE", help="Compare that report with the store; 1 where they differ.")
@click.option("--watch", is_flag=True, help="Show the table again whenever the store changes, until the run ends.")
def report(file: Path | None, profile: str | None, check: Path | None, watch: bool, **values: Any) -> int:
    """Write the comparison table, per-class tables and figures of a study.

    FILE is the study's file, or a zip that `ablate pack` wrote; without it, the study last run here is taken.
    """
    from ablation.commands import report as command

    return command.report_on(file, profile, command.ReportOptions(**values), check=check, watching=watch)


@cli.command()
@click.argument("arm")
@click.argument("other")
@study_options
@click.option("--metric", default="test/accuracy", show_default=True, help="The metric that the verdict is of.")
def compare(arm: str, other: str, file: Path | None, profile: str | None, metric: str) -> int:
    """Compare ARM with OTHER: the settings that differ, paired differences, classes that gained and lost."""
    from ablation.commands import show as command

    return command.compare(arm, other, file, profile, metric)


@cli.command()
@click.argument("arm")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--seed", type=int, metavar="N", help="The run to take; the first that is done if not said.")
@study_options
def export(arm: str, folder: Path, seed: int | None, file: Path | None, profile: str | None) -> int:
    """Write one trained model of ARM into DIR: weights, class names and preprocessing; ablation.load(DIR) reads it."""
    from ablation.commands import export as command

    return command.export(arm, folder, seed, file, profile)


@cli.command()
@click.argument("target", metavar="FILE.zip", type=click.Path(path_type=Path))
@study_options
def pack(target: Path, file: Path | None, profile: str | None) -> int:
    """Write a whole study, without weights, into one zip that `ablate report FILE.zip` reads."""
    from ablation.commands import export as command

    return command.pack(target, file, profile)


@cli.command()
@click.option("--all", "everything", is_flag=True, help="Unfinished work and decoded data too.")
def clean(everything: bool) -> int:
    """Delete checkpoints and results that are recorded in the store already."""
    from ablation.commands import clean as command

    return command.clean(everything=everything)


@cli.command()
@click.argument("name", required=False)
@click.option("--format", "form", type=click.Choice(["text", "markdown"]), default="text", show_default=True, help="A page of all of them.")
def techniques(name: str | None, form: str) -> int:
    """Explain a technique, or a family of them: formula, paper, settings, and its line in a file. Without NAME, list them all."""
    from ablation.commands import techniques as command

    return command.techniques(name, as_page=form == "markdown")


@cli.command("check-technique")
@click.argument("family")
@click.argument("technique")
@code_option
def check_technique(family: str, technique: str, allow_code: bool) -> int:
    """Hold a TECHNIQUE of your own to what every member of its FAMILY keeps to.

    FAMILY is the setting that takes it (loss, sampler, mix ...), TECHNIQUE its name, module:Class, or a mapping such as
    "{name: my_losses:Poly1, epsilon: 2.0}".
    """
    from ablation.commands import techniques as command

    return command.check_technique(family, technique, with_code=allow_code)


@cli.command()
def schema() -> int:
    """Print a JSON schema of the file, for editors."""
    from ablation.commands import techniques as command

    return command.schema()


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address that it listens on.")
@click.option("--port", default=5000, show_default=True, help="The port.")
def ui(host: str, port: int) -> int:
    """Open MLflow's own UI on the store."""
    from ablation.commands import ui as command

    return command.ui(host, port)


def main() -> None:
    """Run the command."""
    try:
        status = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        status = 2
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 0)  # taking the interpreter down with torch and MLflow in it takes two seconds
