"""The command line as a whole: how it ends, whatever happens in a command."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

import mayfly
from mayfly.cli import main as main_module
from mayfly.cli.main import COMMANDS, main
from mayfly.errors import RUN_FAILED, Conflict, Denied, Failed, Invalid, Missing

REPOSITORY = Path(__file__).parents[3]
ERRORS: dict[str, type[BaseException]] = {
    "invalid": Invalid,
    "denied": Denied,
    "missing": Missing,
    "conflict": Conflict,
    "failed": Failed,
    "value": ValueError,
    "interrupt": KeyboardInterrupt,
    "abort": click.Abort,
    "usage": click.UsageError,
}


@click.command("pretend")
@click.argument("what")
@click.argument("rest", nargs=-1)
@click.option("--from-where", "place")
def pretend(what: str, rest: tuple[str, ...], place: str | None) -> int | None:
    """End as the argument says."""
    click.echo(f"place {place} rest {' '.join(rest)}")
    if what == "hinted":
        raise Missing("no image 'x'", hint="mayfly image build x")
    if what in ERRORS:
        raise ERRORS[what]("something happened")
    if what == "streams":
        _tell_streams()
    if what.isdigit():
        return int(what)
    if what.startswith("exit"):
        sys.exit(int(what[4:]))
    return None


def _tell_streams() -> None:
    found = [os.readlink(f"/proc/self/fd/{number}") for number in range(3)]
    os.write(int(os.environ["TELL"]), " ".join(found).encode())
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        assert not stream.isatty()


@pytest.fixture(autouse=True)
def pretended() -> Iterator[None]:
    """Put the command above in the place of two real ones."""
    old = dict(COMMANDS)
    COMMANDS["machine"] = COMMANDS["run"] = (__name__, "pretend", "Pretend.")
    yield
    COMMANDS.clear()
    COMMANDS.update(old)


class Ended:
    """How a command line ended."""

    def __init__(self, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
        sys.argv = ["mayfly", *words]
        with pytest.raises(SystemExit) as caught:
            main()
        self.code = caught.value.code
        self.out, self.err = capsys.readouterr()


Call = Callable[..., Ended]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Give what runs a command line here."""
    monkeypatch.setattr(sys, "argv", sys.argv)
    return lambda *words: Ended(capsys, words)


# --- ends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "code"),
    [("invalid", 2), ("denied", 3), ("missing", 4), ("conflict", 5), ("failed", 1)],
)
def test_an_error_is_a_sentence_and_a_status(call: Call, what: str, code: int) -> None:
    result = call("machine", what)
    assert (result.code, result.err) == (code, "mayfly: something happened\n")


def test_an_error_has_its_hint(call: Call) -> None:
    result = call("machine", "hinted")
    assert result.err == "mayfly: no image 'x'\n  hint: mayfly image build x\n"


@pytest.mark.parametrize("what", ["failed", "value"])
def test_a_traceback_is_shown_only_when_it_is_asked_for(call: Call, what: str) -> None:
    for words in (("machine", what), ("machine", what, "--", "--debug")):
        assert "Traceback" not in call(*words).err
    result = call("--debug", "machine", what)
    assert "Traceback" in result.err
    assert "something happened" in result.err


def test_a_fault_of_our_own_is_called_that(call: Call) -> None:
    result = call("machine", "value")
    assert result.code == 1
    assert "a fault in Mayfly itself: ValueError: something happened" in result.err
    assert "--debug" in result.err


@pytest.mark.parametrize("what", ["interrupt", "abort"])
def test_an_interrupted_command(call: Call, what: str) -> None:
    result = call("machine", what)
    assert result.code == 130
    assert "interrupted" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(("what", "code"), [("0", 0), ("7", 7), ("exit9", 9), ("nothing", 0)])
def test_a_command_has_its_own_status(call: Call, what: str, code: int) -> None:
    assert call("machine", what).code == code


@pytest.mark.parametrize(
    "words", [("machine",), ("machine", "x", "--nonsense"), ("nonsense",), ("machine", "usage")]
)
def test_a_wrong_command_line_is_told(call: Call, words: tuple[str, ...]) -> None:
    result = call(*words)
    assert result.code == 2
    assert "Error: " in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    "words",
    [
        ("run",),
        ("run", "x", "--nonsense"),
        ("--debug", "run"),
        ("run", "failed"),
        ("run", "invalid"),
        ("run", "value"),
    ],
)
def test_no_failure_of_ours_looks_like_the_end_of_a_job(call: Call, words: tuple[str, ...]) -> None:
    assert call(*words).code == RUN_FAILED


def test_the_end_of_a_job_is_the_end_of_its_run(call: Call) -> None:
    assert call("run", "exit3").code == 3
    assert call("run", "interrupt").code == 130


def test_a_job_called_run_is_not_meant(call: Call) -> None:
    assert call("machine", "missing", "run").code == 4


# --- streams -------------------------------------------------------------------------------------

CALL = (
    "import sys; from mayfly.cli import main; from tests.unit.cli import test_main as here;"
    "main.COMMANDS['machine'] = main.COMMANDS['run'] = (here.__name__, 'pretend', 'x');"
    "main.main()"
)


def of_its_own(
    *words: str, before: tuple[str, ...] = (), tell: int = 2, stdout: int = subprocess.PIPE
) -> subprocess.CompletedProcess[bytes]:
    """Run the command line in a process of its own."""
    env = {**os.environ, "TELL": str(tell), "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [*before, sys.executable, "-c", CALL, *words],
        env=env,
        stdout=stdout,
        stderr=subprocess.PIPE,
        pass_fds=[tell],
        check=False,
    )


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "<&- 2>&-"])
def test_closed_streams_are_no_fault(closed: str) -> None:
    read, write = os.pipe()
    before = ("sh", "-c", f'exec "$@" {closed}', "sh")
    done = of_its_own("machine", "streams", before=before, tell=write)
    os.close(write)
    with open(read, "rb") as told:
        found = told.read().decode().split()
    assert (done.returncode, done.stderr) == (0, b"")
    names = {"<&-": 0, ">&-": 1, "2>&-": 2}
    for word in closed.split():
        assert found[names[word]] == os.devnull


@pytest.mark.parametrize(("command", "code"), [("machine", 0), ("run", RUN_FAILED)])
def test_a_reader_that_has_gone_is_no_fault(command: str, code: int) -> None:
    read, write = os.pipe()
    os.close(read)
    done = of_its_own(command, "nothing", stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (code, b"")


# --- commands ------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("--help",), ("-h",), ()])
def test_help_lists_every_command(call: Call, words: tuple[str, ...]) -> None:
    result = call(*words)
    text = result.out + result.err
    assert all(f"\n  {name} " in text for name in COMMANDS)


def test_the_version_is_told(call: Call) -> None:
    result = call("--version")
    assert (result.code, result.out) == (0, f"mayfly, version {mayfly.__version__}\n")


def test_help_imports_no_command() -> None:
    code = (
        "import sys; from mayfly.cli.main import main; sys.argv = ['mayfly', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted(n for n in sys.modules if n.startswith(('mayfly.engine', 'mayfly.images'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n[]\n")


def real_commands() -> list[tuple[str, click.Command]]:
    """Give every command there is, with the words that call it."""
    found: list[tuple[str, click.Command]] = []

    def add(words: str, command: click.Command) -> None:
        found.append((words, command))
        if isinstance(command, click.Group):
            for name, inner in command.commands.items():
                add(f"{words} {name}", inner)

    for name, (module, attribute, _) in sorted(REAL.items()):
        command = getattr(importlib.import_module(module), attribute)
        add(name, command)
    return found


REAL = dict(COMMANDS)


@pytest.mark.parametrize("name", list(REAL))
def test_every_command_can_be_imported_and_says_what_it_is_for(name: str) -> None:
    commands = [command for words, command in real_commands() if words.split()[0] == name]
    for command in commands:
        assert command.help
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.help, f"{command.name} {option.name}"


def test_every_option_has_its_variable() -> None:
    COMMANDS.update(REAL)
    for name in REAL:
        main_module.mayfly.get_command(click.Context(main_module.mayfly), name)
    for words, command in real_commands():
        for option in command.params:
            typed = [word for word in option.opts if word.startswith("--")]
            if isinstance(option, click.Option) and typed:
                text = f"mayfly {words} {typed[0][2:]}"
                assert option.envvar == text.upper().replace(" ", "_").replace("-", "_")


def test_a_variable_stands_for_an_option(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAYFLY_MACHINE_FROM_WHERE", "home")
    assert call("machine", "nothing").out == "place home rest \n"
    assert call("machine", "nothing", "--from-where", "x").out == "place x rest \n"
