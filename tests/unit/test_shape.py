"""The shape of the code: sizes, names, import direction, habits."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.unit import shape
from tests.unit.shape import Room, Source

REPOSITORY = Path(__file__).parents[2]
FOLDERS = ("src", "tests", "bench", "soak", "docs")

TRUNK = frozenset({"errors", "model", "units", "command", "config", "tomllines"})
CLICK = frozenset({"click"})
SITE = frozenset({"ports", "site"})
SQL = frozenset({"sqlalchemy", "alembic"})
WEB = frozenset({"fastapi", "starlette", "uvicorn", "pydantic", "jwt", "jinja2", "sqlalchemy"})
ROOMS = {
    "": Room(imports=frozenset()),
    "errors": Room(imports=frozenset()),
    "model": Room(imports=frozenset({"errors"})),
    "units": Room(imports=frozenset({"errors"})),
    "command": Room(imports=frozenset({"errors"})),
    "tomllines": Room(imports=frozenset()),
    "config": Room(imports=frozenset({"errors", "model", "units", "command"})),
    # The guest's code travels alone: it finds there nothing but Python itself.
    "guest": Room(imports=frozenset()),
    "engine": Room(
        imports=TRUNK | {"guest.framing", "guest.tree"},
        # Its folder is copied to the agent disk.
        alone=frozenset({"guest"}),
    ),
    "images": Room(imports=TRUNK),
    "policy": Room(imports=TRUNK),
    "planner": Room(imports=TRUNK),
    "simulation": Room(imports=TRUNK | {"planner"}),
    "host": Room(imports=TRUNK | {"engine", "images", "policy"}),
    "batch": Room(imports=TRUNK | {"engine", "images", "policy", "host"}),
    "ec2": Room(imports=TRUNK, foreign=frozenset({"cryptography"})),
    # The site half.
    "ports": Room(imports=frozenset({"errors", "model"})),
    "site": Room(imports=TRUNK | {"ports"}),
    "store": Room(imports=TRUNK | SITE, foreign=SQL),
    "reconcile": Room(imports=TRUNK | SITE | {"store"}),
    "providers": Room(imports=TRUNK | {"ports", "engine", "host"}),
    "server": Room(imports=TRUNK | SITE | {"store", "reconcile", "ec2"}, foreign=WEB),
    "client": Room(imports=frozenset({"errors"})),
    "site_wiring": Room(
        imports=TRUNK | SITE | {"providers", "store", "reconcile", "server", "host"}
    ),
    "ec2_wiring": Room(
        imports=TRUNK | {"site", "store", "server", "ec2", "site_wiring"},
        foreign=frozenset({"uvicorn"}),
    ),
    "wiring": Room(imports=TRUNK | {"guest", "engine", "images", "policy", "host"}),
    "cli": Room(
        imports=TRUNK
        | {
            "wiring",
            "engine",
            "images",
            "policy",
            "host",
            "batch",
            "planner",
            "simulation",
            "client",
            "site_wiring",
            "ec2_wiring",
        },
        foreign=CLICK,
    ),
    "__main__": Room(imports=frozenset({"cli"})),
}
"""Which part may import which: a drawing of it is in ARCHITECTURE.md."""

CATCHES_ALL = ("mayfly.cli.main", "mayfly.ec2.service", "mayfly.host.guard")


@functools.cache
def parsed(folder: str) -> tuple[Source, ...]:
    """Parse a folder once: it takes seconds."""
    return tuple(shape.read(REPOSITORY / folder))


def everything() -> Iterator[Source]:
    for folder in FOLDERS:
        yield from parsed(folder)


def listed(faults: Iterable[object]) -> str:
    return "\n".join(str(fault) for fault in faults)


def test_files_functions_and_protocols_are_small() -> None:
    faults = [fault for source in everything() for fault in shape.size_faults(source)]
    assert not faults, listed(faults)


def test_nothing_is_handed_to_a_shell() -> None:
    faults = [fault for source in everything() for fault in shape.shell_faults(source)]
    assert not faults, listed(faults)


def test_only_the_outermost_handler_catches_every_error() -> None:
    faults = [
        fault for source in everything() for fault in shape.handler_faults(source, CATCHES_ALL)
    ]
    assert not faults, listed(faults)


def test_every_test_asserts_something() -> None:
    faults = [fault for source in parsed("tests") for fault in shape.test_faults(source)]
    assert not faults, listed(faults)


def test_imports_point_inwards() -> None:
    sources = parsed("src")
    faults = list(shape.direction_faults(sources, "mayfly", ROOMS))
    assert not faults, listed(faults)


def test_no_module_imports_itself_in_a_circle() -> None:
    circles = shape.cycles(parsed("src"))
    assert not circles, listed(" -> ".join(circle) for circle in circles)


def test_every_room_that_has_a_rule_exists() -> None:
    names = {path.stem for path in (REPOSITORY / "src/mayfly").iterdir()}
    assert set(ROOMS) - names - {"", "__main__"} == set()


# --- the rules find planted faults ---------------------------------------------------------------


def plant(folder: Path, files: dict[str, str]) -> list[Source]:
    for name, text in files.items():
        path = folder / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return shape.read(folder / "src")


def body(lines: int) -> str:
    return "def run():\n" + "    a = 1\n" * lines


def parameters(count: int) -> str:
    return ", ".join(f"p{number}" for number in range(count))


def methods(count: int) -> str:
    return "".join(f"    def m{number}(self): ...\n" for number in range(count))


SIZES = [
    ("a.py", "a = 1\n" * 401, "401 lines"),
    ("helpers.py", "", "'helpers' says nothing"),
    ("common/run.py", "", "'common' says nothing"),
    ("a.py", body(41), "a body of 41 lines"),
    ("a.py", f"class A:\n  def f(self, {parameters(7)}): ...\n", "7 parameters"),
    ("a.py", f"def f({parameters(6)}, *rest): ...\n", "7 parameters"),
    ("a.py", f"async def f(*, {parameters(7)}): ...\n", "7 parameters"),
    ("a.py", f"class A(typing.Protocol):\n{methods(8)}", "8 methods"),
    ("a.py", f"class A(Protocol[T]):\n{methods(8)}", "8 methods"),
]


@pytest.mark.parametrize(("name", "text", "expected"), SIZES)
def test_a_size_fault_is_found(tmp_path: Path, name: str, text: str, expected: str) -> None:
    (source,) = plant(tmp_path, {name: text})
    assert expected in listed(shape.size_faults(source))


SMALL = [
    "a = 1\n" * 400,
    body(40),
    "def f():\n" + '    """One.\n' + "    more\n" * 60 + '    """\n    return 1\n',
    "def f():\n" + '    """Only this."""\n',
    f"class A:\n  def f(self, {parameters(6)}): ...\n",
    f"@main.command('run')\n@click.option('--x')\ndef f({parameters(9)}): ...\n",
    f"class A(Protocol):\n{methods(7)}",
    f"class A(Other):\n{methods(8)}",
]


@pytest.mark.parametrize("text", SMALL)
def test_what_is_small_enough_passes(tmp_path: Path, text: str) -> None:
    (source,) = plant(tmp_path, {"a.py": text})
    assert not list(shape.size_faults(source))


@pytest.mark.parametrize(
    "text",
    [
        "subprocess.run('ls', shell=True)",
        "run('ls', shell=wanted)",
        "os.system('ls')",
        "subprocess.getoutput('ls')",
    ],
)
def test_a_shell_string_is_found(tmp_path: Path, text: str) -> None:
    (source,) = plant(tmp_path, {"a.py": text})
    assert "a shell string" in listed(shape.shell_faults(source))


@pytest.mark.parametrize(
    "text", ["run(['ls'], shell=False)", "Account(shell='/bin/sh')", "machine.system('ls')"]
)
def test_another_use_of_the_word_passes(tmp_path: Path, text: str) -> None:
    (source,) = plant(tmp_path, {"a.py": text})
    assert not list(shape.shell_faults(source))


@pytest.mark.parametrize("caught", ["", " Exception", " (OSError, Exception)", " Exception as e"])
def test_a_handler_for_everything_is_found(tmp_path: Path, caught: str) -> None:
    (source,) = plant(tmp_path, {"a.py": f"try:\n    f()\nexcept{caught}:\n    pass\n"})
    assert "a.py:3: catches every error" in listed(shape.handler_faults(source))
    assert not list(shape.handler_faults(source, ["a"]))


def test_a_handler_for_named_errors_passes(tmp_path: Path) -> None:
    text = "try:\n    f()\nexcept (OSError, ValueError):\n    pass\n"
    (source,) = plant(tmp_path, {"a.py": text})
    assert not list(shape.handler_faults(source))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("def test_a():\n    run()\n", True),
        ("class TestA:\n    def test_a(self):\n        run()\n", True),
        ("def test_a():\n    assert run()\n", False),
        ("def test_a():\n    with pytest.raises(OSError):\n        run()\n", False),
        ("def test_a():\n    check_run()\n", False),
        ("def test_a():\n    console.assert_quiet()\n", False),
        ("def prepare():\n    run()\n", False),
    ],
)
def test_a_test_without_assertion_is_found(tmp_path: Path, text: str, fault: bool) -> None:
    (source,) = plant(tmp_path, {"test_a.py": text})
    assert ("asserts nothing" in listed(shape.test_faults(source))) is fault


DIRECTIONS = [
    ("errors", "from mayfly.model import State"),
    ("units", "from mayfly.config import Settings"),
    ("guest/agent", "from mayfly.errors import Failed"),
    ("guest/agent", "import mayfly.errors"),
    ("guest/agent", "from mayfly import errors"),
    ("guest/agent", "import click"),
    ("engine/a", "from mayfly.images.store import Store"),
    ("engine/a", "from mayfly.guest.agent import main"),
    ("engine/a", "from mayfly.cli import main"),
    ("engine/a", "import click"),
    ("engine/a", "from .b import c"),
    ("engine/a", "def f():\n    import mayfly.wiring"),
    ("images/a", "from mayfly.engine.probe import Qemu"),
    ("images/a", "from mayfly.guest.framing import Kind"),
    ("images/a", "from mayfly.models import Image"),
    ("wiring", "from mayfly.cli.main import main"),
    ("cli/run", "from mayfly.guest.framing import Kind"),
    ("cli/run", "import numpy"),
    ("attic/run", "import os"),
]


@pytest.mark.parametrize(("module", "text"), DIRECTIONS)
def test_a_wrong_import_is_found(tmp_path: Path, module: str, text: str) -> None:
    sources = plant(tmp_path, {f"mayfly/{module}.py": text})
    faults = list(shape.direction_faults(sources, "mayfly", ROOMS))
    assert [fault.path for fault in faults] == [f"src/mayfly/{module}.py"], listed(faults)


def test_right_imports_pass(tmp_path: Path) -> None:
    files = {
        "mayfly/__init__.py": "import importlib.metadata",
        "mayfly/units.py": "import re\nfrom mayfly.errors import Invalid",
        "mayfly/guest/agent.py": "import ctypes\nfrom mayfly.guest import framing",
        "mayfly/engine/a.py": "from mayfly.guest.framing import Kind\nfrom mayfly.engine import b",
        "mayfly/engine/c.py": "import mayfly.guest",
        "mayfly/engine/b.py": "from mayfly import __version__\nfrom mayfly.config import Settings",
        "mayfly/cli/run.py": "import click\nfrom mayfly import units, wiring",
    }
    sources = plant(tmp_path, files)
    faults = list(shape.direction_faults(sources, "mayfly", ROOMS))
    assert not faults, listed(faults)
    assert not shape.cycles(sources)


def test_a_circle_is_found_once(tmp_path: Path) -> None:
    files = {
        "p/__init__.py": "",
        "p/a.py": "from p.b import x",
        "p/b.py": "def f():\n    from p import c",
        "p/c.py": "import p.a",
        "p/d.py": "from p.a import y",
    }
    circles = shape.cycles(plant(tmp_path, files))
    assert circles == [["p.a", "p.b", "p.c", "p.a"]]
