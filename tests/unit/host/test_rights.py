"""What root has registered for each batch job."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.errors import Denied, Failed, Invalid, Missing, Quota
from mayfly.host.rights import (
    Right,
    check_key,
    parse_right,
    put_into_cgroup,
)
from mayfly.model import Shape
from tests.unit.host.registered import FULL, KEY, OVERHEAD_MIB, SHAPE, held, opened, right

# --- reading one ---------------------------------------------------------------------------------


def test_a_right_can_say_everything() -> None:
    assert parse_right({**FULL, "later": 1}, created_at=7) == Right(
        key=KEY,
        uid=1000,
        cpus=2,
        memory_mib=2048,
        wall_s=3600,
        image="debian-12",
        cgroup="/slurm/uid_1000/job_123/step_extern",
        machines=3,
        scratch_mib=4096,
        machine_features={"hs06": "12.5"},
        job_features={"hs06_job": "25"},
        created_at=7,
    )


def test_a_right_need_not_say_everything() -> None:
    found = right()
    assert (found.image, found.cgroup, found.machines, found.wall_s) == ("", "", 1, 3600)
    assert right(wall_s=0).wall_s == 0


@pytest.mark.parametrize(
    "key",
    ["a/1/0", "cluster.site.org/123_4/batch", "c/5.1/extern", "c/1/0+1", "_/_/_", "a/1[2]/0:1"],
)
def test_keys_of_jobs(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize(
    "key",
    [
        "",
        "a/b",
        "a/b/c/d",
        "/a/b",
        "a//b",
        "a/../b",
        "../../etc",
        "a/b/..",
        "a/.b/c",
        "a/-b/c",
        "a/b%c/d",
        "a/b c/d",
        "a/b\0/c",
        "a/b/c\n",
        "a/b/ü",
        f"a/{'b' * 65}/c",
    ],
)
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(Invalid, match="no key"):
        check_key(key)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"key": 5}, "'key'"),
        ({"key": "../x/y"}, "no key"),
        ({"uid": "1000"}, "'uid'"),
        ({"uid": -1}, "'uid'"),
        ({"uid": 0xFFFF_FFFF}, "'uid'"),
        ({"uid": True}, "'uid'"),
        ({"uid": None}, "'uid'"),
        ({"cpus": 0}, "'cpus'"),
        ({"cpus": 1.5}, "'cpus'"),
        ({"memory_mib": 0}, "'memory_mib'"),
        ({"memory_mib": 1 << 30}, "'memory_mib'"),
        ({"wall_s": -1}, "'wall_s'"),
        ({"wall_s": float("nan")}, "'wall_s'"),
        ({"wall_s": float("inf")}, "'wall_s'"),
        ({"wall_s": "1h"}, "'wall_s'"),
        ({"wall_s": True}, "'wall_s'"),
        ({"image": 5}, "'image'"),
        ({"image": "a\nb"}, "'image'"),
        ({"cgroup": "slurm/x"}, "'cgroup'"),
        ({"cgroup": "/slurm/../.."}, "'cgroup'"),
        ({"cgroup": "/a//b"}, "'cgroup'"),
        ({"cgroup": "/a/./b"}, "'cgroup'"),
        ({"cgroup": "/"}, "'cgroup'"),
        ({"machines": 0}, "'machines'"),
        ({"scratch_mib": -1}, "'scratch_mib'"),
        ({"job_features": []}, "'job_features'"),
        ({"job_features": {"HS06": "1"}}, "'HS06'"),
        ({"job_features": {"../x": "1"}}, "'../x'"),
        ({"job_features": {"hs06": 1}}, "'hs06'"),
        ({"job_features": {"hs06": "1\n2"}}, "one line"),
        ({"machine_features": {"hs06": "x" * 201}}, "'hs06'"),
        ({"machine_features": {f"a{n}": "1" for n in range(65)}}, "at most 64"),
    ],
)
def test_a_wrong_right_is_refused_by_name(change: dict[str, Any], told: str) -> None:
    with pytest.raises(Invalid) as caught:
        right(**change)
    assert told in caught.value.message


@given(
    st.dictionaries(
        st.sampled_from(sorted(FULL)),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text()),
    )
)
def test_nonsense_is_refused_and_breaks_nothing(values: dict[str, Any]) -> None:
    try:
        found = parse_right({**FULL, **values}, created_at=1)
    except Invalid:
        return
    assert check_key(found.key)
    assert found.cpus >= 1
    assert found.memory_mib >= 1
    assert not {"..", "."} & set(found.cgroup.split("/"))


# --- what it permits -----------------------------------------------------------------------------


def test_a_job_has_its_machine(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.register(right())
    assert store.check(1000, KEY, image="any", shape=SHAPE, held=[]) == right()


def test_a_job_that_is_not_registered_has_none(tmp_path: Path) -> None:
    for key in ("cluster/124/0", "../../x", ""):
        with pytest.raises(Missing, match="is registered on this host"):
            opened(tmp_path).check(1000, key, image="any", shape=SHAPE, held=[])


@pytest.mark.parametrize("uid", [0, 1001])
def test_nobody_has_the_machine_of_anothers_job(tmp_path: Path, uid: int) -> None:
    store = opened(tmp_path)
    store.register(right())
    with pytest.raises(Denied, match="is not yours"):
        store.check(uid, KEY, image="any", shape=SHAPE, held=[])


def test_a_job_has_only_its_image(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.register(right(image="alma-9"))
    assert store.check(1000, KEY, image="alma-9", shape=SHAPE, held=[]).key == KEY
    with pytest.raises(Denied, match="machines of 'alma-9', not of 'debian-12'"):
        store.check(1000, KEY, image="debian-12", shape=SHAPE, held=[])


@pytest.mark.parametrize(
    ("cpus", "memory_mib", "told"),
    [
        (2, 2048 - OVERHEAD_MIB, ""),
        (3, 512, "granted 2 CPUs, 2 of them are free; the machine wants 3"),
        (1, 2048 - OVERHEAD_MIB + 1, "granted 2048 MiB of memory, 2048 MiB are free"),
    ],
)
def test_a_machine_is_no_larger_than_its_job(
    tmp_path: Path, cpus: int, memory_mib: int, told: str
) -> None:
    store = opened(tmp_path)
    store.register(right())
    shape = Shape(cpus=cpus, memory_mib=memory_mib)
    if not told:
        assert store.check(1000, KEY, image="any", shape=shape, held=[]) == right()
        return
    with pytest.raises(Quota) as caught:
        store.check(1000, KEY, image="any", shape=shape, held=[])
    assert told in caught.value.message


def test_a_job_has_one_machine_unless_it_was_granted_more(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.register(right())
    store.register(right(key="a/1/0", machines=3))
    with pytest.raises(Quota, match="has 1 of 1 machines already"):
        store.check(1000, KEY, image="any", shape=SHAPE, held=[held(640)])
    found = store.check(1000, "a/1/0", image="any", shape=SHAPE, held=[held(640)])
    assert found.key == "a/1/0"
    with pytest.raises(Quota, match="2 CPUs, 0 of them are free"):
        store.check(1000, "a/1/0", image="any", shape=SHAPE, held=[held(640), held(640)])
    with pytest.raises(Quota, match="2048 MiB of memory, 600 MiB are free"):
        store.check(1000, "a/1/0", image="any", shape=SHAPE, held=[held(1448)])


# --- the job's cgroup ----------------------------------------------------------------------------


def cgroup(top: Path, path: str) -> Path:
    place = top / path / "cgroup.procs"
    place.parent.mkdir(parents=True)
    place.write_text("")
    return place


def test_a_process_goes_into_each_hierarchy_that_has_the_cgroup(tmp_path: Path) -> None:
    memory = cgroup(tmp_path, "memory/slurm/job_5")
    freezer = cgroup(tmp_path, "freezer/slurm/job_5")
    cgroup(tmp_path, "devices/slurm")
    put_into_cgroup(77, "/slurm/job_5", top=tmp_path)
    assert (memory.read_text(), freezer.read_text()) == ("77", "77")


def test_in_one_hierarchy_no_other_cgroup_of_that_name_is_taken(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("")
    right_one, wrong_one = cgroup(tmp_path, "job_5"), cgroup(tmp_path, "other/job_5")
    put_into_cgroup(77, "/job_5", top=tmp_path)
    assert (right_one.read_text(), wrong_one.read_text()) == ("77", "")


def test_a_cgroup_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="/slurm/job_5 is not there"):
        put_into_cgroup(77, "/slurm/job_5", top=tmp_path)


def test_a_cgroup_that_takes_nobody_is_told(tmp_path: Path) -> None:
    place = tmp_path / "memory/job_5/cgroup.procs"
    place.mkdir(parents=True)
    with pytest.raises(Failed, match=f"cannot put process {os.getpid()} into {place}"):
        put_into_cgroup(os.getpid(), "/job_5", top=tmp_path)
