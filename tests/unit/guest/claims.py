"""A guest's tree, and what a host says to renew and to claim the machine."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.unit.guest.host import Agent

USER = 54321
ACCOUNT: dict[str, Any] = {
    "name": "ada",
    "uid": USER,
    "gid": USER,
    "groups": [{"name": "ada", "gid": USER}, {"name": "lab", "gid": 54400}],
    "home": "/home/ada",
    "shell": "/bin/sh",
}
IDENTITY: dict[str, Any] = {
    "epoch": str(uuid.UUID(int=1)),
    "seed": "ab" * 64,
    "time_ns": 1_700_000_000_000_000_000,
    "hostname": "node-7.site",
    "machine_id": "0123456789abcdef" * 2,
    "boot_id": str(uuid.UUID(int=2)),
    "host_key": None,
}


@contextmanager
def guest_tree() -> Iterator[Path]:
    top = Path(tempfile.mkdtemp(prefix="mayfly-guest-"))
    top.chmod(0o755)
    for name in ("etc/ssh", "proc", "var/lib/systemd", "var/lib/dbus", "run", "work"):
        (top / name).mkdir(parents=True)
    (top / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (top / "etc/group").write_text("root:x:0:\n")
    (top / "etc/shadow").write_text("root:*:19000:0:99999:7:::\n")
    (top / "etc/hosts").write_text("127.0.0.1 localhost\n127.0.1.1 template\n::1 localhost\n")
    (top / "etc/os-release").write_text('NAME="Debian"\nID=debian\nVERSION_ID="12"\n')
    (top / "etc/machine-id").write_text("f" * 32 + "\n")
    (top / "var/lib/dbus/machine-id").write_text("f" * 32 + "\n")
    (top / "proc/stat").write_text("cpu  0 0 0 0 0 0 0 0 0 0\n")
    yield top
    shutil.rmtree(top)


def claim(agent: Agent, **fields: Any) -> dict[str, Any]:
    wanted: dict[str, Any] = {"account": ACCOUNT, "root": False, "network": None, "shares": []}
    return agent.control.ask("claim", **{**wanted, **fields})


def renewed(agent: Agent) -> Agent:
    answer = agent.control.ask("renew", **IDENTITY)
    assert answer["type"] == "ok", answer
    return agent


def refused(answer: dict[str, Any]) -> str:
    assert answer["type"] == "error"
    return str(answer["reason"])
