"""The choice of the mirror."""

from __future__ import annotations

import pytest

from mayfly.errors import Invalid
from mayfly.images.build.mirror import DEFAULT, given_mirror, pick_mirror, read_apt_config


def test_the_hosts_own_mirror_is_taken() -> None:
    targets = """\
https://deb.nodesource.com/node_20.x/
http://ftp.test/debian/
http://ftp.test/debian/
http://sec.test/debian-security/
"""
    mirror = pick_mirror(targets)
    assert (mirror.main, mirror.security) == (
        "http://ftp.test/debian",
        "http://sec.test/debian-security",
    )


@pytest.mark.parametrize(
    "targets",
    ["", "http://archive.ubuntu.com/ubuntu/\n", "file:/srv/debian/\n", "cdrom://x/debian\n"],
)
def test_without_one_it_is_debians(targets: str) -> None:
    assert pick_mirror(targets) == DEFAULT


def test_security_updates_come_from_debian_when_the_host_has_none() -> None:
    assert pick_mirror("http://ftp.test/debian").security == DEFAULT.security


def test_a_given_mirror_has_security_updates_beside() -> None:
    mirror = given_mirror("http://m.test/debian/")
    assert (mirror.main, mirror.security) == (
        "http://m.test/debian",
        "http://m.test/debian-security",
    )
    assert given_mirror("http://m.test/debian", "https://s.test/x").security == "https://s.test/x"


@pytest.mark.parametrize(
    "address",
    ["", "m.test/debian", "file:///srv", "http://", "http://m/a b", "http://m/[trusted=yes]"],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(Invalid, match="mirror"):
        given_mirror(address)


def test_settings_of_apt_are_read() -> None:
    output = "V0='http://proxy:3128'\nV2='false'\n"
    assert read_apt_config(output) == {
        "Acquire::http::Proxy": "http://proxy:3128",
        "Acquire::Check-Date": "false",
    }


def test_settings_that_would_break_out_of_their_quotes_are_left_out() -> None:
    assert read_apt_config("""V0='a"; Dir "x'\n""") == {}
    assert read_apt_config("") == {}
