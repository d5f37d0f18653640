"""The control port of a real agent: the order of things, and what a claimed machine is like."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mayfly.guest.framing import Kind, Stream, pack, pack_message
from tests.unit.guest.claims import (
    ACCOUNT,
    IDENTITY,
    USER,
    claim,
    guest_tree,
    refused,
    renewed,
)
from tests.unit.guest.host import Agent, assert_soon, running_agent

ROOT = os.geteuid() == 0


@pytest.fixture
def root() -> Iterator[Path]:
    """Give the top of a guest's tree, which any user may enter."""
    with guest_tree() as top:
        yield top


@pytest.fixture
def agent(root: Path) -> Iterator[Agent]:
    with running_agent(root) as agent:
        agent.control.sync()
        agent.hello = agent.control.message("hello")
        yield agent


@pytest.fixture(scope="module")
def renewed_agent() -> Iterator[Agent]:
    """Give an agent that was renewed, and never claimed."""
    with guest_tree() as root, running_agent(root) as agent:
        agent.control.sync()
        agent.control.message("hello")
        yield renewed(agent)


def test_the_greeting_says_what_this_is(agent: Agent) -> None:
    hello = agent.hello
    assert (hello["protocol"], hello["protocol_min"], hello["agent"]) == (1, 1, "0.1.0")
    assert hello["kernel"] == os.uname().release
    assert hello["os"] == "debian 12"
    assert hello["features"] == ["refresh", "machine-features", "strip", "context"]


def test_renewal_makes_a_machine_itself(agent: Agent, root: Path) -> None:
    answer = agent.control.ask("renew", **IDENTITY)
    assert answer["type"] == "ok"
    assert answer["method"] == "reseed"
    assert answer["machine_id"] == IDENTITY["machine_id"]
    assert len(bytes.fromhex(answer["random"])) == 16
    assert answer.keys() >= {"boot_id", "hostname", "time_ns"}
    assert (root / "etc/hostname").read_text() == "node-7.site\n"
    assert (root / "etc/machine-id").read_text() == IDENTITY["machine_id"] + "\n"
    assert (root / "var/lib/dbus/machine-id").read_text() == IDENTITY["machine_id"] + "\n"
    assert (root / "etc/hosts").read_text() == (
        "127.0.0.1 localhost\n127.0.1.1\tnode-7.site node-7\n::1 localhost\n"
    )


def test_two_samples_differ(agent: Agent) -> None:
    first, second = agent.control.ask("sample"), agent.control.ask("sample")
    assert first["random"] != second["random"]
    assert first["time_ns"] < second["time_ns"]
    assert first["boot_id"] == second["boot_id"]


def test_a_host_key_is_put_in_its_place(agent: Agent, root: Path) -> None:
    key = {"private": "PRIVATE\n", "public": "ssh-ed25519 AAAA host"}
    assert agent.control.ask("renew", **{**IDENTITY, "host_key": key})["type"] == "ok"
    private = root / "etc/ssh/ssh_host_ed25519_key"
    assert private.read_text() == "PRIVATE\n"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert private.with_suffix(".pub").read_text() == "ssh-ed25519 AAAA host\n"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", "ab"),
        ("seed", "zz" * 64),
        ("hostname", "a\nb"),
        ("hostname", "-a"),
        ("hostname", "x" * 65),
        ("machine_id", "F" * 32),
        ("boot_id", "1"),
        ("time_ns", -1),
        ("time_ns", "now"),
        ("epoch", None),
        ("host_key", {"private": "x", "public": "ssh-what AAAA"}),
        ("host_key", {"private": "x"}),
        ("host_key", 1),
    ],
)
def test_a_failed_renewal_is_for_ever(agent: Agent, field: str, value: object) -> None:
    assert refused(agent.control.ask("renew", **{**IDENTITY, field: value}))
    for answer in (agent.control.ask("renew", **IDENTITY), claim(agent)):
        assert refused(answer).startswith("this machine is not unique, and must not be used:")
    failed = agent.session.run("true")
    assert failed["code"] == 125
    assert "must not be used" in failed["reason"]


def test_a_renewal_that_cannot_write_has_failed(agent: Agent, root: Path) -> None:
    shutil.rmtree(root / "etc")
    (root / "etc").write_text("")
    assert "Not a directory" in refused(agent.control.ask("renew", **IDENTITY))
    assert "must not be used" in refused(claim(agent))


def test_the_order_is_kept(agent: Agent) -> None:
    assert refused(claim(agent)) == "this machine was not renewed yet"
    assert agent.session.run("true")["reason"] == "this machine was not claimed yet"
    renewed(agent)
    assert agent.session.run("true")["reason"] == "this machine was not claimed yet"
    assert claim(agent)["type"] == "ok"
    assert agent.session.run("true")["type"] == "exit"


def test_a_claim_makes_the_account(agent: Agent, root: Path) -> None:
    assert claim(renewed(agent), time_ns=1, network=None)["type"] == "ok"
    assert f"ada:x:{USER}:{USER}::/home/ada:/bin/sh\n" in (root / "etc/passwd").read_text()
    assert "ada:*:::::::\n" in (root / "etc/shadow").read_text()
    assert (root / "etc/group").read_text() == (f"root:x:0:\nada:x:{USER}:\nlab:x:54400:ada\n")
    home = (root / "home/ada").stat()
    assert stat.S_IMODE(home.st_mode) == 0o700
    assert home.st_uid == (USER if ROOT else os.geteuid())
    assert claim(agent)["type"] == "ok"


@pytest.mark.skipif(not ROOT, reason="only root can become another user")
def test_a_job_runs_as_the_account(agent: Agent, root: Path) -> None:
    claim(renewed(agent))
    script = "id -u; id -g; id -G; echo $HOME $USER; touch file; stat -c %u:%g .. . file"
    workdir = {"path": f"{root}/work/mine", "in": False, "out": True}
    agent.session.sync()
    agent.session.start("sh", "-c", script, cwd=f"{root}/work/mine", workdir=workdir)
    agent.session.until(agent.session.over)
    uid, gid, groups, names, *owners = agent.session.text().splitlines()
    assert (uid, gid, groups) == (str(USER), str(USER), f"{USER} 54400")
    assert names == "/home/ada ada"
    assert owners == ["0:0", f"{USER}:{USER}", f"{USER}:{USER}"]
    assert [entry.path for entry, _ in agent.session.files()] == ["", "file", ""]


@pytest.mark.skipif(not ROOT, reason="only root can become another user")
def test_what_the_user_cannot_see_is_not_deleted(agent: Agent, root: Path) -> None:
    claim(renewed(agent), root=True)
    (root / "work/w/sub").mkdir(parents=True)
    os.chown(root / "work/w", USER, USER)
    workdir = {"path": f"{root}/work/w", "in": False, "out": True, "sync_delete": True}
    (root / "work/w/sub").chmod(0)
    agent.session.sync()
    agent.session.start("true", workdir=workdir)
    agent.session.until(agent.session.over)
    found = [(entry.type.value, entry.path) for entry, _ in agent.session.files()]
    assert found == [("d", ""), ("d", "sub"), ("n", "sub"), ("e", "")]


@pytest.mark.skipif(not ROOT, reason="only root can become another user")
def test_root_when_the_claim_says_so(agent: Agent) -> None:
    claim(renewed(agent))
    assert agent.session.run("id", "-u", root=True)["code"] == 125
    claim(agent, root=True)
    assert agent.session.run("sh", "-c", "id -u; echo $HOME", root=True)["code"] == 0
    assert agent.session.text().split() == ["0", "/root"]
    agent.session.run("tty", root=False, tty={"rows": 1, "cols": 1})
    assert agent.session.text().startswith("/dev/pts/")


@pytest.mark.skipif(not ROOT, reason="only root can become another user")
def test_a_terminal_belongs_to_the_user(agent: Agent) -> None:
    claim(renewed(agent))
    agent.session.sync()
    script = "stat -c %u $(tty); echo through >/dev/tty"
    agent.session.start("sh", "-c", script, tty={"rows": 24, "cols": 80})
    agent.session.until(agent.session.over)
    assert agent.session.text().split() == [str(USER), "through"]


def test_shares_have_their_places(agent: Agent, root: Path) -> None:
    shares = [{"path": "/home/ada/data", "read_only": True}, {"path": "/srv/x"}]
    assert claim(renewed(agent), shares=shares)["type"] == "ok"
    assert (root / "home/ada/data").is_dir()
    assert (root / "srv/x").is_dir()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"account": None}, "'account' is missing"),
        ({"account": {**ACCOUNT, "name": "a:b"}}, "'a:b' cannot be a name"),
        ({"account": {**ACCOUNT, "name": "root"}}, "the image has 'root' as a name of root"),
        ({"account": {**ACCOUNT, "uid": -1}}, "'uid' must be a whole number"),
        ({"account": {**ACCOUNT, "uid": True}}, "'uid' must be a whole number"),
        ({"account": {**ACCOUNT, "home": "x"}}, "'home' must be an absolute path"),
        ({"account": {**ACCOUNT, "home": "/a:b"}}, "'home' cannot stand in a table"),
        ({"account": {**ACCOUNT, "groups": [1]}}, "'groups' must be a list of objects"),
        ({"network": {"address": "x", "prefix": 1}}, "'x' is no IPv4 address"),
        ({"network": {"address": "1.2.3.4", "prefix": 33}}, "'prefix' must be a whole number"),
        ({"shares": [{"path": "a"}]}, "'path' must be an absolute path"),
        ({"shares": {}}, "'shares' must be a list"),
        ({"root": 1}, "'root' must be true or false"),
    ],
)
def test_a_claim_that_makes_no_sense(
    renewed_agent: Agent, fields: dict[str, Any], reason: str
) -> None:
    assert reason in refused(claim(renewed_agent, **fields))
    assert renewed_agent.session.run("true")["reason"] == "this machine was not claimed yet"


def test_a_template_is_prepared(agent: Agent, root: Path) -> None:
    secrets = [root / "etc/ssh/ssh_host_rsa_key", root / "var/lib/systemd/random-seed"]
    for secret in secrets:
        secret.write_text("secret")
    assert agent.control.ask("prepare") == {"type": "ok", "id": 7}
    assert not any(secret.exists() for secret in secrets)
    assert agent.control.ask("warm") == {"type": "ok", "id": 7}
    assert agent.control.ask("quiesce") == {"type": "ok", "id": 7}
    assert_soon(lambda: not agent.children())


def test_settling_takes_no_longer_than_allowed(agent: Agent) -> None:
    answer = agent.control.ask("settle", timeout_s=0.1)
    assert answer["type"] == "ok"
    assert answer["settled"] is False
    assert answer["detail"] == "no login prompt yet"


def test_a_long_request_holds_up_nothing(agent: Agent) -> None:
    agent.control.say("settle", id=1, timeout_s=1.2)
    assert agent.control.ask("sample")["type"] == "ok"
    agent.control.until(lambda: bool(agent.control.messages))
    assert agent.control.messages[0]["id"] == 1


def test_an_answer_is_not_for_the_next_host(agent: Agent) -> None:
    agent.control.say("settle", id=1, timeout_s=0.3)
    agent.control.sync()
    agent.control.message("hello")
    assert_soon(lambda: not agent.children())
    assert agent.control.ask("sample")["type"] == "ok"
    assert not agent.control.messages


@pytest.mark.parametrize(
    ("kind", "fields"),
    [("nosuch", {}), ("settle", {}), ("settle", {"timeout_s": "1"}), ("settle", {"timeout_s": -1})],
)
def test_a_request_that_is_not_understood(
    renewed_agent: Agent, kind: str, fields: dict[str, object]
) -> None:
    assert refused(renewed_agent.control.ask(kind, **fields))
    assert renewed_agent.control.ask("sample")["type"] == "ok"


@pytest.mark.parametrize("data", [pack(Kind.DATA, Stream.STDIN, b"x"), b"\xff" * 50])
def test_nonsense_is_forgotten_at_the_next_sync(agent: Agent, data: bytes) -> None:
    agent.control.raw(data + pack_message({"type": "sample", "id": 7}))
    agent.control.idle(0.05)
    assert not agent.control.messages
    agent.control.sync()
    assert agent.control.message("hello")["protocol"] == 1
