"""What makes a machine itself is gone before its disk becomes an image, or somebody is told."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mayfly.guest.account import Account, Group, Tables, claimed
from mayfly.guest.strip import remember, strip, unclaimed
from mayfly.guest.system import no_tool
from tests.unit.guest.claims import claim, guest_tree, refused, renewed
from tests.unit.guest.host import running_agent

ADA = Account(
    name="ada",
    uid=54321,
    gid=54321,
    groups=(Group(name="ada", gid=54321), Group(name="lab", gid=54400)),
    home="/home/ada",
    login_shell="/bin/sh",
)
GATHERED = (
    "etc/ssh/ssh_host_ed25519_key",
    "etc/ssh/ssh_host_ed25519_key.pub",
    "var/lib/systemd/random-seed",
    "var/lib/cloud/instances/i-1/user-data.txt",
    "var/lib/cloud/data/instance-id",
    "var/log/journal/abc/system.journal",
    "var/log/auth.log.1",
    "var/log/apt/history.log.2.gz",
    "var/lib/dhcp/dhclient.leases",
    "var/tmp/.hidden",
    "tmp/socket",
    "root/.ssh/authorized_keys",
    "root/.bash_history",
)
KEPT = ("etc/ssh/sshd_config", "var/lib/cloud/seed/nocloud/user-data", "root/.profile", "srv/data")


@pytest.fixture
def root() -> Iterator[Path]:
    with guest_tree() as top:
        for name in (*GATHERED, *KEPT, "var/log/auth.log"):
            (top / name).parent.mkdir(parents=True, exist_ok=True)
            (top / name).write_text("something")
        (top / "etc/hostname").write_text("mayfly-x\n")
        yield top


def stripped(root: Path, former: Any = None) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(strip(former, no_tool, root=str(root)))
    return told


def test_what_a_machine_gathers_is_gone_and_all_else_stays(root: Path) -> None:
    assert stripped(root) == {"left": [], "trimmed": False}
    assert [name for name in GATHERED if (root / name).exists()] == []
    assert [name for name in KEPT if not (root / name).exists()] == []
    assert (root / "var/log/auth.log").read_bytes() == b""
    assert (root / "etc/machine-id").read_bytes() == b""
    assert not (root / "var/lib/dbus/machine-id").exists()
    assert (root / "etc/hostname").read_text() == "localhost\n"
    assert (root / "etc/hosts").read_text() == "127.0.0.1 localhost\n::1 localhost\n"


def test_a_link_is_removed_and_not_followed(root: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (victim / "data").mkdir(parents=True)
    (victim / "data" / "file").write_text("of the host")
    (root / "var/tmp/link").symlink_to(victim)
    (root / "var/log/link").symlink_to(victim / "data" / "file")
    (root / "root/.cache").symlink_to(victim)
    assert stripped(root)["left"] == []
    assert (victim / "data" / "file").read_text() == "of the host"


def test_what_cannot_be_removed_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stays = str(root / "etc/ssh/ssh_host_ed25519_key")
    unlink = os.unlink

    def stubborn(path: str, **more: Any) -> None:
        if path == stays:
            raise PermissionError(1, "Operation not permitted")
        unlink(path, **more)

    monkeypatch.setattr(os, "unlink", stubborn)
    assert stripped(root)["left"] == ["/etc/ssh/ssh_host_ed25519_key"]


def tables(root: Path) -> dict[str, str]:
    names = ("passwd", "group", "shadow")
    return {name: (root / "etc" / name).read_text() for name in names}


def test_the_account_goes_and_what_others_added_stays(root: Path) -> None:
    (root / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\ndebian:x:54321:1000:Image user:/home/debian:/bin/bash\n"
    )
    (root / "etc/group").write_text("root:x:0:\nsudo:x:27:debian\naudio:x:29:\n")
    (root / "etc/shadow").write_text("root:*:1::::::\ndebian:!:1::::::\n")
    before = tables(root)
    former = remember(ADA, root=str(root))
    after = claimed(former.tables, ADA)
    for name in before:
        (root / "etc" / name).write_text(getattr(after, name))
    (root / "home/ada").mkdir(parents=True)
    (root / "home/ada/secret").write_text("mine")
    # Meanwhile a package came with a user, and somebody put ada and it into a group.
    with (root / "etc/passwd").open("a") as file:
        file.write("daemon2:x:101:101::/:/usr/sbin/nologin\n")
    group = (root / "etc/group").read_text().replace("audio:x:29:", "audio:x:29:ada,daemon2")
    (root / "etc/group").write_text(group + "daemon2:x:101:\n")
    assert stripped(root, former)["left"] == []
    now = tables(root)
    assert "ada" not in now["passwd"] + now["group"] + now["shadow"]
    assert sorted(now["passwd"].splitlines()) == sorted(
        [*before["passwd"].splitlines(), "daemon2:x:101:101::/:/usr/sbin/nologin"]
    )
    assert "audio:x:29:daemon2" in now["group"]
    assert "sudo:x:27:debian" in now["group"]
    assert now["shadow"].splitlines() == before["shadow"].splitlines()
    assert not (root / "home/ada").exists()


@pytest.mark.parametrize("uid", [54321, 1000])
@pytest.mark.parametrize(
    "passwd", ["", "ada:x:1:1::/:/bin/sh\n", "x:x:54321:1::/:/bin/sh\n# comment\n+::::::\n"]
)
@pytest.mark.parametrize(
    "group", ["", "lab:x:7:root,bob\n", "other:x:54400:bob,ada\nsudo:x:27:x,bob\n"]
)
def test_what_was_claimed_is_taken_back_to_the_letter(uid: int, passwd: str, group: str) -> None:
    before = Tables(passwd=passwd, group=group, shadow="", gshadow="")
    account = replace(ADA, uid=uid)
    after = claimed(before, account)
    for name in ("passwd", "group"):
        first = getattr(before, name)
        text = unclaimed(getattr(after, name), first, getattr(after, name), "ada")
        assert sorted(text.splitlines()) == sorted(first.splitlines())


def test_a_home_that_the_image_had_stays(root: Path) -> None:
    (root / "home/ada").mkdir(parents=True)
    former = remember(ADA, root=str(root))
    assert stripped(root, former)["left"] == []
    assert (root / "home/ada").is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="an agent makes accounts as root only")
def test_the_agent_strips_what_it_made(root: Path) -> None:
    before = tables(root)
    with running_agent(root) as agent:
        agent.control.sync()
        agent.control.message("hello")
        renewed(agent)
        assert claim(agent)["type"] == "ok"
        assert tables(root) != before
        answer = agent.control.ask("strip")
        assert (answer["type"], answer["left"]) == ("ok", [])
        assert tables(root) == before
        assert not (root / "home/ada").exists()
        assert refused(agent.control.ask("stripe")).startswith("no such request")
