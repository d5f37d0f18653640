"""The options of ``mayfly run``: what they mean before anything is started."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from mayfly.cli import run as run_module
from mayfly.cli.output import Progress
from mayfly.cli.run import (
    Options,
    _spec,
    _workdir,
    run,
)
from mayfly.config import Settings
from mayfly.engine.directories import not_copied, parse_share
from mayfly.engine.jobs import guest_directory
from mayfly.engine.session.job import Workdir
from mayfly.errors import Invalid
from mayfly.model import Account, Group, NetworkMode, Shape, ShareDir
from mayfly.units import GIB, MIB

ACCOUNT = Account(
    name="ada",
    uid=1000,
    gid=1000,
    groups=(Group(name="ada", gid=1000),),
    home="/home/ada",
    shell="/bin/sh",
)


def options(**given_options: Any) -> Options:
    """Give the options as they are when nothing else is typed."""
    values: dict[str, Any] = {field.name: None for field in fields(Options)}
    values.update(dict.fromkeys(("root", "sync_delete", "no_workdir", "quiet"), False))
    values.update(dict.fromkeys(("command", "allow", "env", "share"), ()))
    return Options(**{**values, "image": "debian-12", **given_options})


# --- size ----------------------------------------------------------------------------------------


# --- what is asked for ---------------------------------------------------------------------------


def test_what_is_not_said_comes_from_the_settings() -> None:
    spec = _spec(options(), Settings(cpus=3, memory_mib=700, network="open"))
    assert spec.image == "debian-12"
    assert spec.shape == Shape(cpus=3, memory_mib=768)
    assert spec.network is NetworkMode.OPEN
    assert spec.allow == ()


def test_what_is_said_counts_more_than_the_settings() -> None:
    asked = options(cpus=2, memory="1G", network="restricted", allow=("example.org:443",))
    spec = _spec(asked, Settings(cpus=3, memory_mib=700, network="open"))
    assert spec.shape == Shape(cpus=2, memory_mib=1024)
    assert (spec.network, spec.allow) == (NetworkMode.RESTRICTED, ("example.org:443",))


@pytest.mark.parametrize("network", ["none", "open", None])
def test_a_list_of_hosts_needs_the_network_that_has_one(network: str | None) -> None:
    with pytest.raises(Invalid, match="--allow") as caught:
        _spec(options(network=network, allow=("example.org:443",)), Settings())
    assert "--network restricted" in caught.value.hint


@pytest.mark.parametrize("memory", ["much", "-1G", "99999999T"])
def test_memory_that_is_no_size_is_refused(memory: str) -> None:
    with pytest.raises(Invalid):
        _spec(options(memory=memory), Settings())


# --- shares --------------------------------------------------------------------------------------


def test_a_share_is_a_directory(tmp_path: Path) -> None:
    assert parse_share(str(tmp_path)) == ShareDir(path=tmp_path, read_only=False)
    assert parse_share(f"{tmp_path}:ro") == ShareDir(path=tmp_path, read_only=True)


def test_a_share_is_named_by_where_it_really_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for text in ("link", "real", "~/link", "./real/../real", str(tmp_path / "link")):
        assert parse_share(text).path == tmp_path / "real"


@pytest.mark.parametrize("text", ["nowhere", "file", "", "loop", "~no-such-user/x", "x" * 5000])
def test_what_is_no_directory_is_not_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(Invalid, match="--share"):
        parse_share(text)


@pytest.mark.parametrize("text", ["/", "//", "/tmp/..", "/:ro"])
def test_the_whole_file_system_is_not_shared(text: str) -> None:
    with pytest.raises(Invalid, match="whole file system"):
        parse_share(text)


# --- the directory that goes along ---------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/home/ada/project", "/home/ada/a/b", "/srv/data", "/scratch", "/tmp/x", "/var/tmp/x", "/opt"],
)
def test_a_directory_of_work_goes_along(path: str) -> None:
    assert not_copied(Path(path), ACCOUNT) == ""


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/", "whole file system"),
        ("/home/ada", "whole home"),
        ("/etc", "system"),
        ("/usr/share/doc", "system"),
        ("/proc/1", "system"),
        ("/dev/shm", "system"),
        ("/run/user/1000", "system"),
        ("/tmp", "many users"),
        ("/var/tmp", "many users"),
        ("/var", "many users"),
        ("/home", "many users"),
    ],
)
def test_what_is_not_work_stays_here(path: str, why: str) -> None:
    assert why in not_copied(Path(path), ACCOUNT)


def test_a_home_that_is_reached_by_a_link_is_home_too(tmp_path: Path) -> None:
    real = tmp_path / "export/ada"
    real.mkdir(parents=True)
    (tmp_path / "home").symlink_to("export")
    account = Account(
        name="ada",
        uid=1000,
        gid=1000,
        groups=(),
        home=str(tmp_path / "home/ada"),
        shell="/bin/sh",
    )
    assert "home" in not_copied(real, account)
    assert not_copied(real / "project", account) == ""


def workdir(shares: tuple[ShareDir, ...] = (), **given_options: Any) -> Workdir | None:
    return _workdir(options(**given_options), Settings(), ACCOUNT, shares, Progress(quiet=True))


def test_the_current_directory_goes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = workdir()
    assert found is not None
    assert (found.path, found.guest_path) == (tmp_path, str(tmp_path))
    assert (found.limit_bytes, found.limit_files) == (GIB, Settings().workdir_files)
    assert (found.sync_delete, found.copy_back) == (False, True)


def test_another_directory_and_limit_can_be_named(tmp_path: Path) -> None:
    found = workdir(workdir=str(tmp_path), workdir_limit="5M", sync_delete=True)
    assert found is not None
    assert (found.path, found.limit_bytes, found.sync_delete) == (tmp_path, 5 * MIB, True)


def test_a_system_directory_goes_along_only_when_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir("/usr")
    assert workdir() is None
    named = workdir(workdir="/usr")
    assert named is not None
    assert named.path == Path("/usr")


def test_what_is_shared_is_not_copied(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    share = ShareDir(path=tmp_path, read_only=False)
    assert workdir(shares=(share,), workdir=str(tmp_path)) is None
    assert workdir(shares=(share,), workdir=str(tmp_path / "inner")) is None
    inner = ShareDir(path=tmp_path / "inner", read_only=False)
    assert workdir(shares=(inner,), workdir=str(tmp_path)) is not None


@pytest.mark.parametrize(
    "given_options",
    [
        {"workdir": "/nowhere"},
        {"workdir": ""},
        {"workdir": "/"},
        {"workdir": "/tmp", "no_workdir": True},
        {"workdir": "/tmp", "workdir_limit": "much"},
    ],
)
def test_a_directory_that_cannot_go_along_is_refused(given_options: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        workdir(**given_options)


def test_no_directory_goes_along_when_none_should() -> None:
    assert workdir(no_workdir=True) is None


def test_a_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(Invalid, match="no such directory"):
        workdir()
    assert workdir(no_workdir=True) is None
    assert guest_directory(ACCOUNT, None, ()) == ACCOUNT.home


def test_the_job_starts_where_its_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    share = ShareDir(path=tmp_path.parent, read_only=True)
    assert guest_directory(ACCOUNT, Path("/else"), (share,)) == "/else"
    assert guest_directory(ACCOUNT, None, (share,)) == str(tmp_path)
    assert guest_directory(ACCOUNT, None, ()) == ACCOUNT.home


# --- the command line ----------------------------------------------------------------------------


def typed(monkeypatch: pytest.MonkeyPatch, *words: str) -> Options:
    """Give the options that a command line comes to."""
    found: list[Options] = []

    def note(given_options: Options, *_: object) -> None:
        found.append(given_options)
        raise click.Abort

    monkeypatch.setattr(run_module, "_run", note)
    result = CliRunner().invoke(run, list(words))
    assert found, result.output
    return found[0]


def test_a_bare_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    found = typed(monkeypatch, "debian-12")
    assert (found.image, found.command, found.tty) == ("debian-12", (), None)
    assert (found.cpus, found.memory, found.network, found.time_limit) == (None,) * 4
    flags = (found.root, found.no_workdir, found.keep_on_failure, found.quiet)
    assert not any(flags)


def test_everything_after_the_dashes_is_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("ls", "--root", "-t", "--", "--for", "1")
    found = typed(monkeypatch, "debian-12", "--cpus", "2", "--", *words)
    assert (found.command, found.cpus, found.root, found.tty) == (words, 2, False, None)


def test_options_come_before_or_after_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("-q", "--for", "10m", "--env", "A=1", "--env", "B", "--share", "/srv", "--root")
    before = typed(monkeypatch, *words, "debian-12", "--", "true")
    after = typed(monkeypatch, "debian-12", *words, "--", "true")
    assert before == after
    assert (after.time_limit, after.env, after.share) == ("10m", ("A=1", "B"), ("/srv",))


@pytest.mark.parametrize(("word", "tty"), [("-t", True), ("-T", False)])
def test_a_terminal_can_be_forced(monkeypatch: pytest.MonkeyPatch, word: str, tty: bool) -> None:
    assert typed(monkeypatch, "debian-12", word, "--", "true").tty is tty


@pytest.mark.parametrize(
    "words",
    [(), ("x", "--cpus", "0"), ("x", "--cpus", "many"), ("x", "--network", "all"), ("x", "--for")],
)
def test_a_wrong_command_line_starts_nothing(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(run_module, "_run", lambda *_: pytest.fail("it was started"))
    result = CliRunner().invoke(run, list(words))
    assert result.exit_code == 2
    assert "Error:" in result.output
