"""``mayfly``: the group of all commands, and what happens when one fails."""

from __future__ import annotations

import importlib
import itertools
import os
import sys
from typing import Any

import click

from mayfly import __version__
from mayfly.cli.output import plain
from mayfly.errors import RUN_FAILED, MayflyError, exit_status, refusal

COMMANDS = {
    "run": ("mayfly.cli.run", "run", "Run a command in a fresh machine of its own."),
    "machine": ("mayfly.cli.machine", "machine", "Look at, enter and delete machines."),
    "image": ("mayfly.cli.image", "image", "Build, import and list images."),
    "endorse": ("mayfly.cli.endorse", "endorse", "Vouch for images, and publish lists of them."),
    "trust": ("mayfly.cli.trust", "trust", "Say whose images this site believes."),
    "policy": ("mayfly.cli.policy", "policy", "Show and explain who may run what."),
    "host": ("mayfly.cli.host", "host", "Run and ask the host service."),
    "ec2": ("mayfly.cli.ec2", "ec2", "The EC2 API of the site, and its keys."),
    "server": ("mayfly.cli.server", "server", "Run the site server: leases of machines."),
    "web": ("mayfly.cli.web", "web", "Sign in to the site's web page."),
    "batch": ("mayfly.cli.batch", "batch", "Let jobs of a batch system run in machines."),
    "job": ("mayfly.cli.job", "job", "Look at jobs of a batch system."),
    "pool": ("mayfly.cli.pool", "pool", "See what workers on demand would cost."),
    "template": ("mayfly.cli.template", "template", "Make and remove templates by hand."),
    "doctor": ("mayfly.cli.doctor", "doctor", "Say what this host can do and what is missing."),
}
INTERRUPTED = 130


class ReaderGone(Exception):
    """Whoever read our output has gone."""


class LazyGroup(click.Group):
    """A group that imports a command only when it is used: starting must cost little."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and give one command."""
        if cmd_name not in COMMANDS:
            return None
        module, name, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        _name_variables(command, f"MAYFLY_{cmd_name}")
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what click would answer to a closed pipe is not for us."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderGone from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry[2]) for name, entry in COMMANDS.items()])


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "MAYFLY"},
    epilog="""\b
Examples:
  mayfly image build debian-12
  mayfly run debian-12 -- sh -c 'hostname; id'
  mayfly run debian-12 --root --network open -- apt-get update
  mayfly machine list
""",
)
@click.version_option(__version__, prog_name="mayfly")
@click.option("--debug", is_flag=True, help="Show a traceback when something fails.")
def mayfly(debug: bool) -> None:
    """Every job gets a virtual machine of its own, for as long as the job lives."""


def _name_variables(command: click.Command, prefix: str) -> None:
    """Name each option's environment variable for the option as it is typed."""
    for option in command.params:
        words = [word for word in option.opts if word.startswith("--")]
        if words and isinstance(option, click.Option):
            option.envvar = f"{prefix}_{words[0][2:]}".replace("-", "_").upper()
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            _name_variables(inner, f"{prefix}_{name}")


def show_error(error: MayflyError) -> None:
    """Print what went wrong and what to do next."""
    click.echo(f"mayfly: {plain(error.message)}", err=True)
    if error.hint:
        click.echo(f"  hint: {plain(error.hint)}", err=True)


def main(early: object = None) -> None:
    """Run the command line; never a traceback unless ``--debug`` was given.

    ``early``: what was asked of the host service already, for the command to find in its context.
    """
    _open_standard_streams()
    words = list(itertools.takewhile(lambda word: word != "--", sys.argv[1:]))
    # What a job's own status could be must not be a status of ours.
    running = [word for word in words if not word.startswith("-")][:1] == ["run"]
    try:
        code = mayfly.main(prog_name="mayfly", standalone_mode=False, obj=early)
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("mayfly: interrupted", err=True)
        code = INTERRUPTED
    except click.ClickException as error:
        error.show()
        if running and isinstance(error, click.NoSuchOption):
            example = "mayfly run IMAGE -- ls -l"
            click.echo(f"  hint: write -- before the job's own command: {example}", err=True)
        code = RUN_FAILED if running else error.exit_code
    except (ReaderGone, BrokenPipeError):
        # That is no fault. Python must not complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = RUN_FAILED if running else 0
    except (MayflyError, OSError) as error:
        known = refusal(error) if isinstance(error, OSError) else error
        show_error(known)
        code = RUN_FAILED if running else exit_status(known)
        if "--debug" in words:
            _print_traceback()
    except Exception as error:
        click.echo(f"mayfly: a fault in Mayfly itself: {type(error).__name__}: {error}", err=True)
        click.echo("  hint: run it again with 'mayfly --debug ...' and report it", err=True)
        code = RUN_FAILED if running else 1
        if "--debug" in words:
            _print_traceback()
    sys.exit(code if isinstance(code, int) else 0)


def _print_traceback() -> None:
    import traceback  # noqa: PLC0415 - it costs 5 ms, and nearly nobody needs it

    traceback.print_exc()


def _open_standard_streams() -> None:
    """Open what the caller has closed, or the next file opened would be taken for it."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is the one that is wanted.
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


if __name__ == "__main__":
    main()
