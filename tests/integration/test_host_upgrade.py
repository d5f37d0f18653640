"""The service is upgraded, and rolled back, while jobs run: nobody notices."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import mayfly
from tests.integration.host import ALICE, IMAGE, MARKS, Host, User, host_of

pytestmark = MARKS

USER = User(uid=ALICE)
NEXT = "9.9.9"
COUNT = "echo ready; read go; echo went on; exit 6"


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A later version: it writes, and asks for, things that this one has never heard of."""
    top = tmp_path_factory.mktemp("later")
    for folder in (top, *top.parents):
        if folder.stat().st_uid == 0 and folder.name.startswith("pytest-"):
            folder.chmod(0o755)
    source = Path(mayfly.__file__).parent
    shutil.copytree(source, top / "mayfly", ignore=shutil.ignore_patterns("__pycache__"))
    _change(top / "mayfly/__init__.py", f'"{mayfly.__version__}"', f'"{NEXT}"')
    _change(
        top / "mayfly/engine/records.py",
        '    job: str = ""\n',
        '    colour: str = "green"\n    job: str = ""\n',
    )
    _change(top / "mayfly/host/claiming.py", '"life_s": None,', '"life_s": None, "mood": "fine",')
    _change(top / "mayfly/host/caller.py", '{"type": "ok"', '{"type": "ok", "mood": "fine"')
    return top


def _change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1, f"{file} has {text.count(old)} times {old!r}"
    file.write_text(text.replace(old, new))


@pytest.fixture
def host(warm_home: Path) -> Iterator[Host]:
    """A service of this version, with one standby."""
    with host_of(warm_home, f'[[standby]]\nimage = "{IMAGE}"\nmost = 1\n') as host:
        host.refilled()
        yield host


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_jobs_go_on_over_an_upgrade_and_back(host: Host, later: Path, how: signal.Signals) -> None:
    before = host.begin("--", "sh", "-c", COUNT, user=USER)
    host.end(how)
    host.code = later
    host.start()
    assert host.ask("status")["version"] == NEXT
    host.refilled()
    meanwhile = host.begin("--", "sh", "-c", COUNT, user=USER)
    host.end(how)
    host.code = None
    host.start()
    assert host.ask("status")["version"] == mayfly.__version__
    assert len(host.machines("running")) == 2
    for job in (before, meanwhile):
        assert job.end(b"go\n")[:2] == (6, b"went on\n")
    host.emptied()


def test_clients_and_services_of_two_versions_understand_each_other(
    host: Host, later: Path
) -> None:
    host.code = later
    assert host.job("--", "sh", "-c", "exit 4", user=USER)[0] == 4
    host.restart(signal.SIGTERM)
    host.code = None
    assert host.ask("status")["version"] == NEXT
    assert host.job("--", "sh", "-c", "exit 5", user=USER)[0] == 5
