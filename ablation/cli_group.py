"""How click runs our commands: paths that users write, first words before heavy imports, exit statuses, and options that several have."""

import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ablation.system.invocation import command_line, first_words
from ablation.system.paths import user_path


class UserPath(click.Path):
    """A path on the command line, its ~ expanded; one that nothing can be found under is a user's mistake."""

    def convert(self, value: Any, param: click.Parameter | None, _: click.Context | None) -> Path:
        """The path."""
        assert param is not None, value
        return user_path(value, param.opts[0] if param.param_type_name == "option" else param.metavar or str(param.name).upper())


class Told(click.Command):
    """A command that says at once what it reads: the libraries that it needs take seconds to import."""

    def invoke(self, ctx: click.Context) -> Any:
        """Say it on stderr, and run the command."""
        if words := first_words(str(ctx.info_name), ctx.params, is_terminal=sys.stderr.isatty()):
            click.echo(words, err=True)
        return super().invoke(ctx)


ORDER: tuple[str, ...] = (
    *("init", "data", "plan", "run", "status", "report", "show", "compare", "ui", "log", "export", "pack", "verify", "check-task"),
    *("cancel", "clean", "techniques", "check-technique", "schema"),
)


class Ablate(click.Group):
    """The group of all commands: a command returns its exit status; a user's mistake ends in one message and status 2."""

    command_class = Told

    def list_commands(self, _: click.Context) -> list[str]:
        """The commands in the order in which they are used, as the help lists them."""
        return sorted(self.commands, key=ORDER.index)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the selected command and exit with its status."""
        from ablation.errors import AblateError, os_words

        try:
            status = super().invoke(ctx)
        except AblateError as error:
            click.echo(f"error: {error}", err=True)
            status = error.status
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of a pipe is gone, as with `head`: click exits quietly
                raise
            click.echo(f"error: {os_words(error)}", err=True)
            status = 2
        except KeyboardInterrupt as stopped:  # which may say itself what goes on
            click.echo(f"stopped; to go on: {stopped.args[0] if stopped.args else command_line()}", err=True)
            status = 130
        ctx.exit(status or 0)


# --- options that several commands have ---------------------------------------------------------------------------------------

file_argument = click.argument("file", type=UserPath())
profile_option = click.option(
    "--profile", metavar="NAME", help="A profile in the file: another base and other seeds, recorded as a study of its own."
)
code_option = click.option("--allow-code", is_flag=True, help="Allow code of your own, module:Class or a task; it is imported and run.")


def matrix_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that `run` and `plan` share."""
    for option in reversed(
        [
            file_argument,
            profile_option,
            click.option("--arm", "arms", multiple=True, metavar="GLOB", help="Only the arms that match; may be given more than once."),
            click.option("--seed", "seeds", multiple=True, type=int, metavar="N", help="These seeds instead of the file's."),
            click.option(
                "--set", "sets", multiple=True, metavar="PATH=VALUE", help="Override a setting in every arm, such as optimizer.lr=1e-3."
            ),
            click.option("--device", default="auto", show_default=True, metavar="auto|cpu|mps|cuda|cuda:0,1", help="Where to train."),
            click.option(
                "--jobs",
                type=click.IntRange(min=1),
                metavar="N",
                help="How many runs train on a device at once; by default one per core on a CPU, and as many as fit on a GPU.",
            ),
            click.option(
                "--executor",
                default="local",
                show_default=True,
                metavar="local|slurm|ray|NAME",
                help="Where it is carried out: here, as jobs of Slurm, on a Ray cluster, or at a site of executors.yaml.",
            ),
            click.option(
                "--ray-address", default="", metavar="HOST:PORT", help="The Ray cluster; by default RAY_ADDRESS, else this machine."
            ),
            click.option(
                "--rerun",
                type=click.Choice(["cached", "retry", "force", "keep"]),
                help="Earlier results: run stale ones again (cached) or use them (keep), failed ones again (retry), all again (force).",
            ),
            click.option(
                "--budget",
                metavar="TIME",
                help="Start only runs that would end within this time (2h, 90m), or that alone take longer; the same command continues.",
            ),
            click.option("--yes", is_flag=True, help="Start even if it would take over a day on a CPU."),
            code_option,
        ]
    ):
        command = option(command)
    return command


def study_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that name the study, for commands that read the record alone."""
    file = click.option("--file", type=UserPath(), help="The study's file, or its zip; by default, the study last run here.")
    return file(profile_option(command))


def study_file_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same for commands that need the file itself, of which a zip holds none."""
    return click.option("--file", type=UserPath(), help="The study's file; by default, the study last run here.")(profile_option(command))
