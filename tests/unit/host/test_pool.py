"""Standbys: as many as are wanted, of what is wanted, as far as there is room."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from mayfly.host import pool
from mayfly.host.settings import Limits, Standby
from mayfly.host.state import Hot
from mayfly.images.catalogue import DISK
from mayfly.images.catalogue.record import RECORD, Facts, make_record, write_record
from mayfly.model import State
from tests.unit.host.services import ROOT, SMALL, Desk, add_image, claim_fields, desk

__all__ = ["desk"]


def test_one_that_was_taken_is_replaced(desk: Desk) -> None:
    desk.keep_ready()
    first = desk.only().id
    client = desk.connect()
    assert client.claim()["machine"] == first
    desk.until(lambda: len(desk.ready()) == 1, "another one")
    assert desk.ready()[0].id != first


def test_one_that_died_is_replaced(desk: Desk) -> None:
    desk.keep_ready()
    first = desk.only()
    os.kill(first.record.pid, signal.SIGKILL)
    desk.until(lambda: desk.ready() not in ([], [first]), "another one")
    assert desk.made == 2


def test_those_who_missed_one_make_them_more(desk: Desk, tmp_path: Path) -> None:
    desk.keep_ready()
    desk.script(gate=tmp_path / "gate")
    clients = [desk.connect() for _ in range(3)]
    for client in clients:
        client.send("claim", **claim_fields())
    desk.until(
        lambda: sum(one.record.owner is not None for one in desk.service.table) == 3,
        "a machine for each",
    )
    (tmp_path / "gate").touch()
    assert sorted(client.answer()["path"] for client in clients) == ["clone", "clone", "standby"]
    for client in clients:
        client.close()
    # The first hit, the others missed: those count double, up to the most that the site wants.
    desk.until(lambda: len(desk.ready()) == 4, "as many as were asked for")


def test_there_are_never_more_than_the_site_wants(desk: Desk) -> None:
    standby = Standby(image="debian-12", least=2, most=2)
    desk.service.hot["debian-12", SMALL] = Hot(standby=standby)
    for _ in range(10):
        desk.service.miss("debian-12", SMALL)
    desk.service.changed()
    desk.until(lambda: len(desk.ready()) == 2, "the standbys")
    assert desk.service.hot["debian-12", SMALL].wanted == 2


def test_several_images_are_hot_side_by_side(desk: Desk) -> None:
    add_image(desk.service.engine.paths.images, "debian-13")
    desk.keep_ready()
    desk.keep_ready(image="debian-13")
    assert len(desk.ready()) == 1
    for name in ("debian-12", "debian-13"):
        assert desk.connect().claim(image=name)["path"] == "standby"


def test_a_cooled_image_has_none(desk: Desk) -> None:
    desk.keep_ready(2)
    desk.connect(ROOT).ask("cool", image="debian-12")
    desk.emptied()
    assert desk.service.hot == {}


def test_one_that_is_being_made_when_its_image_is_cooled_ends_too(
    desk: Desk, tmp_path: Path
) -> None:
    desk.script(gate=tmp_path / "gate")
    client = desk.connect(ROOT)
    client.ask("warm", image="debian-12")
    desk.until(lambda: desk.service.starting == 1, "the start")
    client.ask("cool", image="debian-12")
    (tmp_path / "gate").touch()
    desk.emptied()
    assert desk.made == 1


def test_a_drained_host_has_none_and_gets_them_back(desk: Desk) -> None:
    desk.keep_ready()
    client = desk.connect(ROOT)
    client.ask("drain")
    desk.emptied()
    client.ask("undrain")
    desk.until(lambda: len(desk.ready()) == 1, "the standby")
    assert desk.made == 2


def test_too_little_memory_ends_standbys_before_it_keeps_anybody_waiting(desk: Desk) -> None:
    desk.keep_ready(3)
    clients = [desk.connect()]
    assert clients[0].claim()["path"] == "standby"
    desk.until(lambda: len(desk.ready()) == 3, "the standbys")
    held = [one for one in desk.service.held() if not one.standby]
    room = sum(one.need.memory_mib for one in held) + desk.service.shared_mib() + 1 * 96
    desk.settings(reserve_memory_mib=desk.host_mib - room)
    desk.service.changed()
    desk.until(lambda: len(desk.service.table.machines) == 2, "standbys to be given up")
    assert len(desk.ready()) == 1


def test_one_that_cannot_be_made_is_tried_again_ever_later(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "BACK_OFF_S", 0.01)
    desk.script(start_fails="no such luck")
    hot = Hot(standby=Standby(image="debian-12"))
    desk.service.hot["debian-12", SMALL] = hot
    desk.service.changed()
    desk.until(lambda: hot.failures >= 2, "two failures")
    assert hot.trouble == "no such luck"
    item = desk.connect().ask("status")["standby"][0]
    assert (item["ready"], item["trouble"]) == (0, "no such luck")
    desk.script()
    desk.until(lambda: len(desk.ready()) == 1, "it at last")
    assert (hot.failures, hot.trouble) == (0, "")


def test_after_a_failure_it_is_not_tried_at_once(desk: Desk) -> None:
    desk.script(start_fails="no such luck")
    hot = Hot(standby=Standby(image="debian-12"))
    desk.service.hot["debian-12", SMALL] = hot
    desk.service.changed()
    desk.until(lambda: hot.failures == 1 and hot.making == 0, "a failure")
    desk.service.changed()
    desk.settle()
    assert (desk.made, desk.service.starting) == (1, 0)


def test_an_image_that_there_is_not_makes_no_trouble_for_others(desk: Desk) -> None:
    desk.service.hot["debian-99", SMALL] = Hot(standby=Standby(image="debian-99"))
    desk.keep_ready()
    assert "there is no image" in desk.service.hot["debian-99", SMALL].trouble


def renew(images: Path, name: str) -> None:
    """Put another disk into the place of an image's."""
    disk = images / name / DISK
    disk.write_text("a better one")
    facts = Facts(os="debian 12", source="a test", disk_bytes=1 << 30)
    write_record(images / name / RECORD, make_record(name, disk, facts))


def test_standbys_of_an_earlier_image_are_replaced(desk: Desk) -> None:
    desk.keep_ready()
    before = desk.only().id
    renew(desk.service.engine.paths.images, "debian-12")
    desk.service.changed()
    desk.until(lambda: [one.id for one in desk.ready()] not in ([], [before]), "a new one")
    assert desk.ready()[0].sha512 == desk.service.catalogue.find("debian-12").sha512


def test_standbys_of_an_earlier_image_are_not_handed_over(desk: Desk) -> None:
    desk.keep_ready()
    before = desk.only().id
    renew(desk.service.engine.paths.images, "debian-12")
    answer = desk.connect().claim()
    assert (answer["path"], answer["machine"] != before) == ("clone", True)


def test_standbys_of_an_image_that_was_tampered_with_are_given_up(desk: Desk) -> None:
    desk.keep_ready()
    (desk.service.engine.paths.images / "debian-12" / DISK).write_text("tampered with")
    desk.service.changed()
    desk.emptied()
    assert desk.service.hot["debian-12", SMALL].trouble != ""


def test_standbys_count_for_nobodys_limits(desk: Desk) -> None:
    desk.settings(limits=Limits(machines=1))
    desk.keep_ready(2)
    assert desk.connect().claim()["path"] == "standby"


def test_standbys_are_stopped_and_written_down(desk: Desk) -> None:
    desk.keep_ready()
    record = desk.only().record
    assert (record.state, record.owner, record.client) == (State.STANDBY, None, 0)


def test_an_alias_gets_a_standby_of_what_it_stands_for(desk: Desk) -> None:
    desk.service.catalogue.set_alias("stable", "debian-12")
    desk.connect(ROOT).ask("warm", image="stable", cpus=1, memory_mib=512, count=1)
    assert [name for name, _ in desk.service.hot] == ["debian-12"]
    desk.until(lambda: len(desk.ready()) == 1, "a standby")
    answer = desk.connect().claim(image="stable")
    pin = desk.service.catalogue.find("debian-12").pin
    assert (answer["path"], answer["image"]) == ("standby", pin)
    assert desk.connect().claim(image=pin)["image"] == pin
    desk.connect(ROOT).ask("cool", image="stable")
    assert desk.service.hot == {}


def test_a_standby_by_another_name_is_refused_with_the_name_to_use(desk: Desk) -> None:
    desk.service.catalogue.set_alias("stable", "debian-12")
    standby = Standby(image="stable", least=1, most=1)
    desk.service.hot["stable", SMALL] = Hot(standby=standby)
    desk.service.changed()
    desk.until(lambda: bool(desk.service.hot["stable", SMALL].trouble), "the trouble")
    assert "image 'debian-12'" in desk.service.hot["stable", SMALL].trouble
    assert desk.ready() == []
