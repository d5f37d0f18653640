"""The tables of users and groups: by example, and whatever is in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.guest.account import Account, Group, Tables, claimed
from mayfly.guest.fields import Refused

PASSWD = """root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
debian:x:1000:1000:Debian,,,:/home/debian:/bin/bash
"""
GROUP = "root:x:0:\ndialout:x:20:\nsudo:x:27:debian\nstaff:x:50:\ndebian:x:1000:\nusers:x:1100:\n"
SHADOW = "root:*:1:0:99999:7:::\ndebian:$6$secret:19000:0:99999:7:::\n"
GSHADOW = "root:*::\nsudo:*::debian\ndebian:!::\n"
TABLES = Tables(passwd=PASSWD, group=GROUP, shadow=SHADOW, gshadow=GSHADOW)


def account(
    name: str = "ada", uid: int = 1234, gid: int = 1234, *groups: tuple[str, int]
) -> Account:
    return Account(
        name=name,
        uid=uid,
        gid=gid,
        groups=tuple(Group(name=one, gid=number) for one, number in groups),
        home="/home/ada",
        login_shell="/bin/sh",
    )


def test_a_new_account_is_added() -> None:
    after = claimed(TABLES, account("ada", 1234, 1234, ("ada", 1234), ("lab", 1300)))
    assert after.passwd == PASSWD + "ada:x:1234:1234::/home/ada:/bin/sh\n"
    assert after.shadow == SHADOW + "ada:*:::::::\n"
    assert after.group == GROUP + "ada:x:1234:\nlab:x:1300:ada\n"
    assert after.gshadow == GSHADOW


def test_an_account_of_the_number_is_renamed() -> None:
    after = claimed(TABLES, account("ada", 1000, 1000, ("ada", 1000)))
    assert after.passwd.splitlines()[2:] == ["ada:x:1000:1000:Debian,,,:/home/ada:/bin/sh"]
    assert after.shadow.splitlines()[1:] == ["ada:*:19000:0:99999:7:::"]
    assert after.group == GROUP.replace("debian", "ada")
    assert after.gshadow == GSHADOW.replace("debian", "ada")


def test_an_account_of_the_name_gets_the_numbers() -> None:
    after = claimed(TABLES, account("debian", 1234, 1300, ("debian", 1300)))
    assert after.passwd.splitlines()[2:] == ["debian:x:1234:1300:Debian,,,:/home/ada:/bin/sh"]
    assert "debian:x:1300:\n" in after.group
    assert "sudo:x:27:debian\n" in after.group


def test_name_and_number_of_two_accounts_become_one() -> None:
    both = Tables(
        passwd=PASSWD + "ada:x:1001:1001::/elsewhere:/bin/zsh\n",
        group=GROUP,
        shadow=SHADOW + "ada:secret:1:::::::\n",
        gshadow="",
    )
    after = claimed(both, account("ada", 1000, 1000, ("debian", 1000)))
    assert after.passwd.splitlines()[2:] == ["ada:x:1000:1000:Debian,,,:/home/ada:/bin/sh"]
    assert after.shadow.splitlines()[1:] == ["ada:*:19000:0:99999:7:::"]


def test_without_shadow_the_password_is_shut_in_the_open() -> None:
    after = claimed(Tables(passwd="", group="", shadow="", gshadow=""), account())
    assert after.passwd == "ada:*:1234:1234::/home/ada:/bin/sh\n"
    assert after.shadow == ""


def test_root_needs_no_place() -> None:
    assert claimed(TABLES, account("root", 0, 0, ("root", 0), ("odd", 1))) == TABLES


def test_nobody_takes_the_name_of_root() -> None:
    with pytest.raises(Refused, match="'root' as a name of root"):
        claimed(TABLES, account("root", 1000, 1000))


SMALL = "dialout:x:20:\nstaff:x:50:\ndebian:x:1000:\nusers:x:1100:\n"


@pytest.mark.parametrize(
    ("wanted", "after"),
    [
        # There already.
        (("users", 1100), "dialout:x:20: staff:x:50: debian:x:1000: users:x:1100:ada"),
        (("dialout", 20), "dialout:x:20:ada staff:x:50: debian:x:1000: users:x:1100:"),
        # The number has another name: renamed, unless it is the system's.
        (("lab", 1100), "dialout:x:20: staff:x:50: debian:x:1000: lab:x:1100:ada"),
        (
            ("games", 20),
            "dialout:x:20:ada staff:x:50: debian:x:1000: users:x:1100: games:x:20:ada",
        ),
        # The name has another number: changed, unless it is the system's.
        (("users", 1200), "dialout:x:20: staff:x:50: debian:x:1000: users:x:1200:ada"),
        (
            ("staff", 1200),
            "dialout:x:20: staff:x:50: debian:x:1000: users:x:1100: staff_host:x:1200:ada",
        ),
        # Both.
        (("staff", 1100), "dialout:x:20: staff:x:50: debian:x:1000: staff_host:x:1100:ada"),
        (
            ("staff", 20),
            "dialout:x:20:ada staff:x:50: debian:x:1000: users:x:1100: staff_host:x:20:ada",
        ),
        (("users", 1000), "dialout:x:20: staff:x:50: users:x:1000:ada"),
    ],
)
def test_a_group_exists_by_its_number(wanted: tuple[str, int], after: str) -> None:
    user = account("ada", 1234, 1234, wanted)
    changed = claimed(Tables(passwd="", group=SMALL, shadow="", gshadow=""), user)
    assert changed.group.split() == after.split()
    assert claimed(changed, user) == changed


def test_other_sources_stay_behind() -> None:
    tables = Tables(passwd=PASSWD + "+::::::\n", group="+:::\n", shadow="", gshadow="")
    after = claimed(tables, account("ada", 1234, 1234, ("ada", 1234)))
    assert after.passwd.splitlines()[-2:] == [
        "ada:*:1234:1234::/home/ada:/bin/sh",
        "+::::::",
    ]
    assert after.group == "ada:x:1234:\n+:::\n"


# --- whatever is in them ---

names = st.sampled_from(["ada", "bob", "root", "lab", "", "#no", "+"])
numbers = st.sampled_from(["0", "1", "20", "1000", "1001", "1234", "", "x", "-1", "9" * 5000, "²"])
fields = st.one_of(names, numbers, st.text(alphabet="a:,#+\r\udcff ", max_size=6))
lines = st.one_of(
    st.tuples(names, fields, numbers, numbers, fields, fields, fields).map(":".join),
    st.tuples(names, fields, numbers, st.lists(names, max_size=3).map(",".join)).map(":".join),
    st.lists(fields, max_size=8).map(":".join),
)
texts = st.tuples(st.lists(lines, max_size=6).map("\n".join), st.sampled_from(["", "\n"])).map(
    "".join
)
tables = st.builds(Tables, passwd=texts, group=texts, shadow=texts, gshadow=texts)
accounts = st.builds(
    account,
    st.sampled_from(["ada", "bob", "lab"]),
    st.sampled_from([0, 1, 1000, 1001, 1234]),
    st.sampled_from([0, 20, 1000, 1234]),
    st.tuples(st.sampled_from(["ada", "lab", "bob"]), st.sampled_from([0, 20, 1000, 1234])),
)


def users(passwd: str) -> list[list[str]]:
    rows = [line.split(":") for line in passwd.split("\n") if line[:1] not in ("#", "+", "-")]
    return [row for row in rows if len(row) >= 7]


@given(tables, accounts)
def test_the_user_is_there_once(before: Tables, user: Account) -> None:
    try:
        after = claimed(before, user)
    except Refused:
        assert any(row[0] == user.name and row[2] == "0" for row in users(before.passwd))
        return
    if user.uid == 0:
        assert after == before
        return
    mine = [
        row
        for row in users(after.passwd)
        if row[0] == user.name or row[2].lstrip("0") == str(user.uid)
    ]
    assert len(mine) == 1
    assert mine[0][0] == user.name
    assert mine[0][2:4] == [str(user.uid), str(user.gid)]
    assert mine[0][5:] == [user.home, user.login_shell]
    for group in user.groups:
        rows = [line.split(":") for line in after.group.split("\n")]
        assert any(row[2:3] == [str(group.gid)] and len(row) >= 4 for row in rows)


@given(tables, accounts)
def test_other_lines_stay_and_twice_is_once(before: Tables, user: Account) -> None:
    try:
        after = claimed(before, user)
    except Refused:
        return
    kept = {
        line
        for line in before.passwd.split("\n")
        if line.split(":")[0] != user.name and f":{user.uid}:" not in line
    }
    assert kept - {""} <= set(after.passwd.split("\n"))
    assert claimed(after, user) == after
