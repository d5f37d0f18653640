"""What of the calling user goes along with a job."""

from __future__ import annotations

import grp
import os
import pwd
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from mayfly.engine import caller
from mayfly.engine.caller import (
    account_of_caller,
    caller_limits,
    job_environment,
    local_time_zone,
    umask_of_caller,
)
from mayfly.errors import Invalid
from mayfly.model import Group

BERLIN = "CET-1CEST,M3.5.0,M10.5.0/3"


def tzif(rule: str, version: bytes = b"2") -> bytes:
    return b"TZif" + version + bytes(39) + b"\n" + rule.encode() + b"\n"


@pytest.fixture(autouse=True)
def zone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The host's time zone file, which a test may write."""
    file = tmp_path / "localtime"
    monkeypatch.setattr(caller, "local_time_zone", lambda: local_time_zone(file))
    return file


# --- account -------------------------------------------------------------------------------------


def test_the_account_is_that_of_the_caller() -> None:
    account = account_of_caller()
    entry = pwd.getpwuid(os.geteuid())
    assert (account.name, account.uid, account.gid) == (entry.pw_name, entry.pw_uid, os.getegid())
    assert (account.home, account.shell) == (entry.pw_dir, entry.pw_shell or "/bin/sh")
    gids = [group.gid for group in account.groups]
    assert gids[0] == os.getegid()
    assert set(gids) == {os.getegid(), *os.getgroups()}
    assert len(gids) == len(set(gids))


def test_a_user_or_group_without_a_name_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 3_999_999)
    monkeypatch.setattr(os, "getegid", lambda: 3_999_998)
    monkeypatch.setattr(os, "getgroups", lambda: [3_999_997, 3_999_998, 0])
    account = account_of_caller()
    assert (account.name, account.home) == ("user3999999", "/home/user3999999")
    assert account.shell == "/bin/sh"
    assert account.groups == (
        Group(name="group3999998", gid=3_999_998),
        Group(name="group3999997", gid=3_999_997),
        Group(name=grp.getgrgid(0).gr_name, gid=0),
    )


def test_an_account_without_a_shell_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = pwd.struct_passwd(("ada", "x", 1000, 1000, "", "/home/ada", ""))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: entry)
    assert account_of_caller().shell == "/bin/sh"


def test_limits_are_those_of_the_caller() -> None:
    limits = caller_limits()
    assert limits["nofile"] == resource.getrlimit(resource.RLIMIT_NOFILE)
    assert limits["core"] == resource.getrlimit(resource.RLIMIT_CORE)
    # The machine's memory is its own.
    assert not {"as", "rss", "memlock"} & set(limits)
    assert all(isinstance(value, int) for pair in limits.values() for value in pair)


def test_an_unlimited_limit_is_minus_one() -> None:
    code = (
        "import resource; from mayfly.engine.caller import caller_limits;"
        "resource.setrlimit(resource.RLIMIT_CPU, (resource.RLIM_INFINITY,) * 2);"
        "print(caller_limits()['cpu'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "(-1, -1)\n"


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o027])
def test_the_umask_is_read_and_stays(mask: int) -> None:
    old = os.umask(mask)
    try:
        assert umask_of_caller() == mask
        assert umask_of_caller() == mask
    finally:
        assert os.umask(old) == mask


# --- environment ---------------------------------------------------------------------------------

HERE = {
    "LANG": "de_DE.UTF-8",
    "LANGUAGE": "de:en",
    "LC_ALL": "C",
    "LC_TIME": "en_GB",
    "TERM": "xterm",
    "PATH": "/bin",
    "HOME": "/home/ada",
    "SECRET": "x",
    "TZ": "UTC0",
    "ODD": "line\nbreak\udcff=",
    "EMPTY": "",
}


def test_only_language_and_time_zone_travel_unasked() -> None:
    names = ("LANG", "LANGUAGE", "LC_ALL", "LC_TIME", "TZ")
    assert job_environment(HERE, (), tty=False) == {name: HERE[name] for name in names}


def test_the_kind_of_terminal_travels_with_a_terminal() -> None:
    assert job_environment(HERE, (), tty=True)["TERM"] == "xterm"
    assert "TERM" not in job_environment({}, (), tty=True)


def test_what_is_asked_for_travels_as_it_is() -> None:
    asked = ("SECRET", "NEW=a=b\n", "LANG=C", "ODD", "EMPTY", "BLANK=")
    found = job_environment(HERE, asked, tty=False)
    assert (found["SECRET"], found["NEW"], found["LANG"]) == ("x", "a=b\n", "C")
    assert (found["ODD"], found["EMPTY"], found["BLANK"]) == (HERE["ODD"], "", "")


def test_the_last_word_on_a_variable_counts() -> None:
    assert job_environment(HERE, ("A=1", "A=2"), tty=False)["A"] == "2"


@pytest.mark.parametrize("item", ["", "=x", "A=b\0c", "A\0", "MISSING"])
def test_what_is_no_variable_is_refused(item: str) -> None:
    with pytest.raises(Invalid, match="--env"):
        job_environment(HERE, (item,), tty=False)


def test_a_variable_that_is_not_set_says_how_to_set_it() -> None:
    with pytest.raises(Invalid, match="MISSING: it is not set") as caught:
        job_environment(HERE, ("MISSING",), tty=False)
    assert "MISSING=VALUE" in caught.value.hint


# --- time zone -----------------------------------------------------------------------------------


def test_the_hosts_zone_is_taken_where_the_caller_has_none(zone: Path) -> None:
    zone.write_bytes(tzif(BERLIN))
    assert job_environment({}, (), tty=False) == {"TZ": BERLIN}
    assert job_environment({"TZ": "UTC0"}, (), tty=False) == {"TZ": "UTC0"}


def test_an_empty_zone_means_universal_time_here_as_there(zone: Path) -> None:
    zone.write_bytes(tzif(BERLIN))
    assert job_environment({"TZ": ""}, (), tty=False) == {"TZ": ""}


@pytest.mark.parametrize("content", [b"", b"no zone\n", b"TZif", tzif(""), tzif("x" * 200)])
def test_a_host_without_a_zone_gives_none(zone: Path, content: bytes) -> None:
    assert job_environment({}, (), tty=False) == {}
    zone.write_bytes(content)
    assert job_environment({}, (), tty=False) == {}


def test_a_file_of_the_first_version_has_no_rule(zone: Path) -> None:
    zone.write_bytes(tzif("\x01\x02", version=b"\0"))
    assert local_time_zone(zone) == ""


def test_a_rule_of_a_real_file() -> None:
    file = Path("/usr/share/zoneinfo/Europe/Berlin")
    if not file.exists():
        pytest.skip("this host has no zone files")
    assert local_time_zone(file) == BERLIN
