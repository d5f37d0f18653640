"""The setting ``disk_cache``: how QEMU really has the disk of a machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.conftest import Cli
from tests.integration.faults import run_job, started

pytestmark = pytest.mark.integration
WRITE = "head -c 3000000 /dev/urandom > data; sync; cksum < data; cp data more; cksum < more"


def flags_of(pid: int, name: str) -> set[int]:
    """Give the flags with which a process has files of that name open."""
    found = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        if Path(os.readlink(entry.path)).name == name:
            lines = Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text().splitlines()
            found.add(int(lines[1].split()[1], 8))
    return found


def waits_for_flushes(pid: int) -> bool:
    """Tell whether QEMU was told to pass on what a guest flushes."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    nodes = [json.loads(word) for word in words if word.startswith('{"driver"')]
    (top,) = [node for node in nodes if node["node-name"] == "disk0"]
    return not top["cache"]["no-flush"]


@pytest.mark.parametrize(
    ("mode", "direct", "flushes"),
    [("unsafe", False, False), ("writeback", False, True), ("none", True, True)],
)
def test_the_disk_is_had_as_the_setting_says(
    own_cli: Cli, mode: str, direct: bool, flushes: bool
) -> None:
    (own_cli.home / "config.toml").write_text(f'disk_cache = "{mode}"\n')
    with started(own_cli, "--no-workdir", "--", "sh", "-c", "echo ready; sleep 600") as machine:
        opened = flags_of(machine.qemu(), "disk.qcow2")
        assert opened
        # Of the layers only the top one is written, and has the mode.
        own = {flags for flags in opened if flags & os.O_ACCMODE == os.O_RDWR}
        assert {bool(flags & os.O_DIRECT) for flags in own} == {direct}
        assert not any(flags & os.O_DIRECT for flags in opened - own)
        assert waits_for_flushes(machine.qemu()) == flushes


@pytest.mark.parametrize("mode", ["unsafe", "writeback", "none"])
def test_what_was_written_is_read_again(own_cli: Cli, mode: str) -> None:
    (own_cli.home / "config.toml").write_text(f'disk_cache = "{mode}"\n')
    ended = run_job(own_cli, "--", "sh", "-c", f"cd /var/tmp; {WRITE}")
    one, other = ended.output.decode().splitlines()
    assert (ended.code, one) == (0, other)
