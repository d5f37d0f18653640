"""The groups of users of a batch system."""

from __future__ import annotations

import grp
import os
import pwd

from mayfly.batch.gridengine.desk import person_of
from mayfly.batch.groups import groups_of
from mayfly.batch.registration import names_of

NOBODYS_GID = 61_234_567


def test_all_groups_of_a_user_by_name() -> None:
    me = pwd.getpwuid(os.getuid())
    own = grp.getgrgid(me.pw_gid).gr_name
    assert own in groups_of(me.pw_name, me.pw_gid)
    assert names_of(os.getuid()) == (me.pw_name, groups_of(me.pw_name, me.pw_gid))


def test_a_group_without_a_name_takes_no_others_away() -> None:
    me = pwd.getpwuid(os.getuid())
    with_it = groups_of(me.pw_name, NOBODYS_GID)
    assert set(with_it) <= set(groups_of(me.pw_name, me.pw_gid))
    assert names_of(NOBODYS_GID) == (f"user{NOBODYS_GID}", ())


def test_the_verifier_knows_the_groups_of_this_host() -> None:
    me = pwd.getpwuid(os.getuid())
    known = person_of({"USER": me.pw_name, "GROUP": "physics"})
    assert known.groups == ("physics", *groups_of(me.pw_name, me.pw_gid))
    assert person_of({"USER": "no-such-user"}).groups == ()
