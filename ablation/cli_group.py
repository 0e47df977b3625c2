"""How click runs our commands: paths that users write, first words before heavy imports, and exit statuses."""

import errno
import sys
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


class Ablate(click.Group):
    """The group of all commands: a command returns its exit status; a user's mistake ends in one message and status 2."""

    command_class = Told

    def invoke(self, ctx: click.Context) -> Any:
        """Run the selected command and exit with its status."""
        from ablation.errors import AblateError, os_words

        try:
            status = super().invoke(ctx)
        except AblateError as error:
            click.echo(f"error: {error}", err=True)
            status = 2
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of a pipe is gone, as with `head`: click exits quietly
                raise
            click.echo(f"error: {os_words(error)}", err=True)
            status = 2
        except KeyboardInterrupt:
            click.echo(f"stopped; to go on: {command_line()}", err=True)
            status = 130
        ctx.exit(status or 0)
