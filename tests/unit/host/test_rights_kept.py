"""Rights are on disk: they outlive the service, not the host's run, and junk does no harm."""

from __future__ import annotations

import json
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mayfly.errors import Conflict, Denied, Failed, Invalid, Quota
from mayfly.host import rights
from mayfly.host.rights import (
    GRACE_S,
    Rights,
    parse_right,
)
from tests.unit.host.registered import FULL, KEY, SHAPE, Clock, opened, right


def test_rights_survive_the_service(tmp_path: Path) -> None:
    store = opened(tmp_path / "rights")
    other = replace(right(), key="cluster/5/0", created_at=10)
    assert store.register(parse_right(FULL, created_at=50))
    assert store.register(other)
    again = opened(tmp_path / "rights")
    assert again.all() == store.all() == [other, parse_right(FULL, created_at=50)]
    assert again.find(KEY) == parse_right(FULL, created_at=50)
    assert again.unregister(KEY)
    assert opened(tmp_path / "rights").find(KEY) is None


def test_rights_are_for_root_alone(tmp_path: Path) -> None:
    folder = tmp_path / "rights"
    opened(folder).register(right())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()] == [0o600]


def test_rights_do_not_survive_a_reboot(tmp_path: Path) -> None:
    opened(tmp_path).register(right())
    assert opened(tmp_path, boot_id="boot-2").all() == []
    assert list(tmp_path.iterdir()) == []


def test_the_boot_is_told_by_the_kernel(tmp_path: Path) -> None:
    store = Rights(tmp_path, overhead_mib=0)
    store.register(right())
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text())["boot_id"] == rights.BOOT_ID.read_text().strip()
    assert store.expired() == []


def test_the_same_right_may_come_twice(tmp_path: Path) -> None:
    store = opened(tmp_path)
    assert store.register(right())
    assert not store.register(replace(right(), created_at=60))
    assert [each.created_at for each in store.all()] == [50]


def test_another_right_for_the_same_job_is_a_conflict(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.register(right())
    for change in ({"uid": 1001}, {"cpus": 3}, {"job_features": {"a": "1"}}):
        with pytest.raises(Conflict, match=KEY):
            store.register(right(**change))
    assert store.all() == [right()]
    store.unregister(KEY)
    assert store.register(right(cpus=3))


def test_unregistering_twice_is_no_error(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.register(right())
    assert [store.unregister(KEY), store.unregister(KEY)] == [True, False]
    with pytest.raises(Invalid):
        store.unregister("../../etc/passwd")


def test_junk_is_told_and_left_alone(tmp_path: Path) -> None:
    opened(tmp_path).register(right())
    good = (tmp_path / "cluster%123_4%0.json").read_text()
    junk = {
        "a%b%c.json": "{",
        "a%b%d.json": "[]",
        "a%b%e.json": "\0\xff",
        "a%b%f.json": good,
        "a%b%g.json": json.dumps({**json.loads(good), "uid": "root"}),
        "a%b%h.json": "[" * 100_000,
        "README": "rights",
    }
    for name, text in junk.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "folder.json").mkdir()
    store = Rights(tmp_path, overhead_mib=0, boot_id="boot-1")
    warnings = store.load()
    assert [each.key for each in store.all()] == [KEY]
    assert len(warnings) == len(junk) + 1
    for name in (*junk, "folder.json"):
        assert any(str(tmp_path / name) in warning for warning in warnings)
        assert (tmp_path / name).exists()


def test_an_unfinished_write_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".new-a%b%c.json").write_text('{"form')
    assert opened(tmp_path).all() == []
    assert list(tmp_path.iterdir()) == []


def test_a_right_that_cannot_be_written_is_not_there(tmp_path: Path) -> None:
    folder = tmp_path / "rights"
    store = opened(folder)
    folder.rmdir()
    with pytest.raises(Quota, match="cannot write the right"):
        store.register(right())
    assert store.find(KEY) is None


def test_a_directory_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "rights").write_text("")
    store = Rights(tmp_path / "rights", overhead_mib=0, boot_id="b")
    with pytest.raises(Failed, match="rights"):
        store.load()


def test_rights_are_not_without_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rights, "MOST", 2)
    store = opened(tmp_path)
    store.register(replace(right(), key="a/1/0"))
    store.register(replace(right(), key="a/2/0"))
    with pytest.raises(Quota, match="at most 2"):
        store.register(replace(right(), key="a/3/0"))


def test_a_right_ends_some_time_after_its_job(tmp_path: Path) -> None:
    clock = Clock()
    store = opened(tmp_path, clock)
    store.register(right())
    store.register(right(key="a/1/0", wall_s=0))
    clock.now += 3600 + GRACE_S - 1
    assert store.expired() == []
    # Its age is not counted anew when the service is.
    store = opened(tmp_path, clock)
    clock.now += 1
    assert store.expired() == [KEY]
    with pytest.raises(Denied, match="is over"):
        store.check(1000, KEY, image="a", shape=SHAPE, held=[])
    assert store.check(1000, "a/1/0", image="a", shape=SHAPE, held=[]).key == "a/1/0"


def test_a_clock_that_is_set_ends_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Rights(tmp_path, overhead_mib=0, boot_id="b")
    store.register(replace(right(), created_at=time.time()))
    later = time.time() + 1e9
    monkeypatch.setattr(time, "time", lambda: later)
    assert store.expired() == []
