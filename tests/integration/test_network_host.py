"""What networks need of the host, what they leave on it (nothing), and what is said without it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from mayfly.engine.forked import forked
from mayfly.engine.network.attach import NetworkPlan, check_network, start_network
from mayfly.errors import Denied, Unavailable
from tests.integration.clients import OPEN, RESTRICTED, offer, plain_client, tun_mode
from tests.integration.waiting import descendants, gone, wait_until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="builds namespaces as root and as another user"),
    pytest.mark.skipif(shutil.which("pasta") is None, reason="passt is not installed"),
]


def host_state() -> str:
    """Give what a network could leave behind in the host's own."""
    commands = (
        *(["ip", "-o", "link"], ["ip", "-o", "addr"], ["ip", "route"], ["nft", "list", "ruleset"]),
        ["ip", "netns"],
    )
    shown = [subprocess.run(argv, capture_output=True, check=True).stdout for argv in commands]
    links = b"\n".join(shown).decode()
    # Life times of addresses run on.
    return "\n".join(line for line in links.splitlines() if "valid_lft" not in line)


@pytest.mark.parametrize("plan", [OPEN, RESTRICTED], ids=["open", "restricted"])
def test_helpers_have_no_rights_and_no_terminal(plan: NetworkPlan) -> None:
    with start_network(plan):
        pids = descendants(os.getpid())
        assert pids
        for pid in pids:
            status = Path(f"/proc/{pid}/status").read_text()
            assert "Uid:\t65534\t65534\t65534\t65534" in status
            assert "Gid:\t65534\t65534\t65534\t65534" in status
            assert os.getsid(pid) != os.getsid(0)


@pytest.mark.parametrize("plan", [OPEN, RESTRICTED], ids=["open", "restricted"])
def test_nothing_stays_and_the_host_sees_nothing(plan: NetworkPlan) -> None:
    before = host_state()
    fds = os.listdir("/proc/self/fd")
    with start_network(plan):
        pids = descendants(os.getpid())
        pids += uplinks_of(pids)
        assert host_state() == before
    assert all(map(gone, pids))
    assert not descendants(os.getpid())
    assert os.listdir("/proc/self/fd") == fds
    assert host_state() == before


def uplinks_of(pids: list[int]) -> list[int]:
    """Give every pasta that serves a namespace of these processes, whoever its parent is."""
    wanted = {f"/proc/{pid}/ns/net".encode() for pid in pids}
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if entry.name.isdigit() and wanted & set(words):
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("plan", [OPEN, RESTRICTED], ids=["open", "restricted"])
@pytest.mark.parametrize("victim", ["client", "first helper"])
def test_nothing_stays_of_a_client_that_is_killed(plan: NetworkPlan, victim: str) -> None:
    with forked(lambda channel: offer(channel, plan), name="client") as child:
        (tap,) = child.receive()
        os.close(tap)
        pids = descendants(child.pid)
        pids += uplinks_of(pids)
        assert len(pids) >= (3 if plan is OPEN else 1)
        os.kill(child.pid if victim == "client" else pids[0], signal.SIGKILL)
        if victim == "first helper":
            if plan is OPEN:
                wait_until(lambda: all(map(gone, pids)), "the other helpers to end")
            os.kill(child.pid, signal.SIGKILL)
        wait_until(lambda: all(map(gone, pids)), "the helpers to end with their maker")
    assert all(map(gone, pids))


def test_a_plain_user_without_the_tun_device_is_told_what_to_do() -> None:
    with (
        tun_mode(0o600),
        forked(plain_client(OPEN), name="plain user") as child,
        pytest.raises(Denied, match="may not open /dev/net/tun") as caught,
    ):
        child.receive()
    assert "sudo chmod 0666 /dev/net/tun" in caught.value.hint
    assert "/etc/udev/rules.d/" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "package"), [("nft", "nftables"), ("pasta", "passt")], ids=["nft", "pasta"]
)
def test_a_missing_program_is_named_with_its_package(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.which
    monkeypatch.setattr(
        shutil, "which", lambda what, path="": None if what == name else real(what, path=path)
    )
    with pytest.raises(Unavailable, match=f"'{name}' is not installed") as caught:
        start_network(OPEN).__enter__()
    assert caught.value.hint == f"sudo apt-get install {package}"
    findings = {finding.name: finding for finding in check_network()}
    assert not findings[name].ok
    assert findings[name].mend == f"sudo apt-get install {package}"
    assert findings["network restricted"].ok
    assert "network open" not in findings


@pytest.mark.parametrize(
    ("name", "words"), [("nft", "rules of an open network"), ("pasta", "way out")]
)
def test_an_open_network_whose_rules_or_uplink_fail_is_refused(
    name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / name
    program.write_text("#!/bin/sh\necho 'broken on purpose' >&2\nexit 1\n")
    for path in (program, tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(Unavailable, match=f"{words}.*broken on purpose"):
        start_network(OPEN).__enter__()
    assert not descendants(os.getpid())


def test_this_host_has_all_that_networks_need() -> None:
    findings = check_network()
    assert [finding for finding in findings if not finding.ok] == []
    names = {finding.name for finding in findings}
    assert names == {"tun device", "nft", "pasta", "network restricted", "network open"}
