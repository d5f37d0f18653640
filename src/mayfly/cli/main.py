"""``mayfly``: the group of all commands, and what happens when one fails."""

from __future__ import annotations

import importlib
import os
import sys
import traceback

import click

from mayfly import __version__
from mayfly.errors import MayflyError, exit_status

COMMANDS = {
    "run": ("mayfly.cli.run", "run", "Run a command in a fresh machine of its own."),
    "machine": ("mayfly.cli.machine", "machine", "Look at, enter and delete machines."),
    "image": ("mayfly.cli.image", "image", "Build, import and list images."),
    "template": ("mayfly.cli.template", "template", "Make and remove templates by hand."),
    "doctor": ("mayfly.cli.doctor", "doctor", "Say what this host can do and what is missing."),
}
INTERRUPTED = 130


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
        return command

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


def show_error(error: MayflyError) -> None:
    """Print what went wrong and what to do next."""
    click.echo(f"mayfly: {error.message}", err=True)
    if error.hint:
        click.echo(f"  hint: {error.hint}", err=True)


def main() -> None:
    """Run the command line; never a traceback unless ``--debug`` was given."""
    debug = "--debug" in sys.argv[1:] and "--" not in sys.argv[1 : sys.argv.index("--debug")]
    try:
        code = mayfly.main(prog_name="mayfly", standalone_mode=False)
    except click.exceptions.Abort:
        code = INTERRUPTED
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except MayflyError as error:
        show_error(error)
        if debug:
            traceback.print_exc()
        code = exit_status(error)
    except KeyboardInterrupt:
        click.echo("mayfly: interrupted", err=True)
        code = INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone: that is no fault. Python must not complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 0
    except Exception as error:
        if debug:
            traceback.print_exc()
        click.echo(f"mayfly: a fault in Mayfly itself: {type(error).__name__}: {error}", err=True)
        click.echo("  hint: run it again with 'mayfly --debug ...' and report it", err=True)
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
