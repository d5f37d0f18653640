"""A site's program hears of images that come and go, whatever becomes of the program."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from mayfly.config import Settings
from mayfly.images.lists.events import (
    Announced,
    Event,
    EventType,
    Herald,
    call,
    changes,
    describe,
    environment,
)
from mayfly.images.lists.following import Follower, trust_settings
from mayfly.images.lists.store import TrustStore
from mayfly.images.lists.update import TrustSettings
from tests.integration.waiting import gone, wait_until
from tests.unit.images.lists.pki import DAY, NOW
from tests.unit.images.lists.samples import LIST, listed
from tests.unit.images.lists.test_admission import accepted, subscription, vouched

DISKS = {listed(number).sha512: Path(f"/images/el{number}/disk.qcow2") for number in range(1, 4)}


@pytest.fixture
def store(tmp_path: Path) -> TrustStore:
    store = TrustStore(directory=tmp_path / "trust")
    has(store, 1, 2)
    return store


def has(store: TrustStore, *numbers: int, until: datetime = NOW + 20 * DAY) -> None:
    images = [vouched(listed(number), until=until) for number in numbers]
    with store.changing():
        store.save(subscription(accepted(*images)))


def program(folder: Path, text: str) -> Path:
    file = folder / "program"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file


@pytest.fixture
def herald(store: TrustStore, tmp_path: Path) -> Herald:
    told = "$VMCATCHER_EVENT_TYPE $VMCATCHER_EVENT_DC_TITLE $VMCATCHER_EVENT_FILENAME"
    made = program(tmp_path, f'echo "{told}" >> {tmp_path / "heard"}')
    return Herald(program=made, store=store, session="one")


def heard(herald: Herald) -> list[str]:
    """Give what was told, and forget it."""
    file = herald.program.with_name("heard")
    lines = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return lines


# --- what is told --------------------------------------------------------------------------------


def test_what_goes_is_told_before_what_comes() -> None:
    old, new = describe(listed(1), LIST), describe(listed(2), LIST)
    found = changes(
        Announced(listed={"l/1": old}, available={"l/1/x": old}),
        Announced(listed={"l/2": new}, available={"l/2/y": new}),
    )
    assert [(each.type.value, each.told["DC_TITLE"]) for each in found] == [
        *(("ExpirePrefix", "el1"), ("ExpirePostfix", "el1"), ("SubscriptionImageNew", "el2")),
        *(("AvailablePrefix", "el2"), ("AvailablePostfix", "el2")),
    ]


def test_the_variables_are_those_of_vmcatcher() -> None:
    image = replace(listed(1), format="qcow2", extra={"ad:mpuri": "https://appdb/1"})
    event = Event(type=EventType.AVAILABLE_POSTFIX, told=describe(image, LIST, Path("/i/disk")))
    found = environment(event, "session")
    assert found.pop("PATH")
    assert found.pop("LC_ALL") == "C.UTF-8"
    assert {key.removeprefix("VMCATCHER_EVENT_"): value for key, value in found.items()} == {
        "TYPE": "AvailablePostfix",
        "UUID_SESSION": "session",
        "DC_DESCRIPTION": "Enterprise Linux 1",
        "DC_IDENTIFIER": image.identifier,
        "DC_TITLE": "el1",
        "HV_HYPERVISOR": "kvm",
        "HV_SIZE": "1000001",
        "HV_URI": image.uri,
        "HV_VERSION": "1.0",
        "HV_FORMAT": "qcow2",
        "SL_ARCH": "x86_64",
        "SL_CHECKSUM_SHA512": image.sha512,
        "SL_COMMENTS": "for tests",
        "SL_OS": "centos",
        "SL_OSVERSION": "7",
        "IL_DC_IDENTIFIER": LIST,
        "AD_MPURI": "https://appdb/1",
        "FILENAME": "/i/disk",
    }


def test_words_that_could_trick_a_script_lose_their_lines() -> None:
    image = replace(
        listed(1), description="a\nVMCATCHER_EVENT_TYPE=x\0\x1b[0m", comments="c" * 9000
    )
    told = describe(image, LIST)
    assert told["DC_DESCRIPTION"] == "a VMCATCHER_EVENT_TYPE=x  [0m"
    assert len(told["SL_COMMENTS"]) == 4096


# --- when it is told -----------------------------------------------------------------------------


def test_an_image_is_told_of_once(herald: Herald) -> None:
    herald.announce(DISKS, NOW)
    first = "/images/el1/disk.qcow2"
    assert f"AvailablePostfix el1 {first}" in heard(herald)
    herald.announce(DISKS, NOW)
    assert heard(herald) == []


def test_an_image_that_is_not_here_is_new_but_not_available(herald: Herald) -> None:
    herald.announce({}, NOW)
    assert heard(herald) == ["SubscriptionImageNew el1 ", "SubscriptionImageNew el2 "]
    herald.announce({listed(1).sha512: Path("/i")}, NOW)
    assert heard(herald) == ["AvailablePrefix el1 /i", "AvailablePostfix el1 /i"]


def test_an_image_that_expired_meanwhile_is_told_of(herald: Herald) -> None:
    has(herald.store, 1, until=NOW + DAY)
    herald.announce(DISKS, NOW)
    heard(herald)
    herald.announce(DISKS, NOW + 2 * DAY)
    assert [line.split()[0] for line in heard(herald)] == ["ExpirePrefix", "ExpirePostfix"]


def test_an_image_that_left_its_list_is_told_of_with_its_file(herald: Herald) -> None:
    herald.announce(DISKS, NOW)
    heard(herald)
    has(herald.store, 2)
    herald.announce(DISKS, NOW)
    assert heard(herald)[-1] == "ExpirePostfix el1 /images/el1/disk.qcow2"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"listed": 1, "available": {}}', "null"])
def test_a_damaged_memory_tells_all_again(herald: Herald, text: str) -> None:
    herald.announce(DISKS, NOW)
    before = heard(herald)
    (herald.store.directory / "announced.json").write_text(text)
    herald.announce(DISKS, NOW)
    assert heard(herald) == before


# --- the program ---------------------------------------------------------------------------------


def test_a_program_that_does_not_end_is_ended_with_all_it_started(tmp_path: Path) -> None:
    made = program(tmp_path, f"sleep 1000 & echo $! > {tmp_path / 'pid'}; wait")
    began = time.monotonic()
    assert "did not end within" in call(made, {"PATH": os.environ["PATH"]}, limit_s=0.5)
    assert time.monotonic() - began < 5
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: gone(pid), "the end of what the program had started", limit_s=5)


def test_a_program_that_fails_changes_nothing(store: TrustStore, tmp_path: Path) -> None:
    assert call(program(tmp_path, "exit 3"), {}) == "ended with status 3"
    assert "cannot be run" in call(tmp_path / "nosuch", {})
    Herald(program=tmp_path / "nosuch", store=store).announce(DISKS, NOW)
    assert (store.directory / "announced.json").exists()


def test_a_program_gets_no_words_of_a_shell(herald: Herald, tmp_path: Path) -> None:
    evil = listed(
        1, title=f"$(touch {tmp_path}/evil)`touch {tmp_path}/evil`; touch {tmp_path}/evil"
    )
    with herald.store.changing():
        herald.store.save(subscription(accepted(evil)))
    herald.announce(DISKS, NOW)
    assert f"SubscriptionImageNew {evil.title} /images/el1/disk.qcow2" in heard(herald)
    assert not (tmp_path / "evil").exists()


def test_without_a_program_nothing_is_written(store: TrustStore) -> None:
    follower = Follower(store=store, settings=_settings(), ask=lambda url: b"")
    follower.announce(NOW)
    assert not (store.directory / "announced.json").exists()


def test_an_update_is_begun_and_ended_with_an_event(herald: Herald) -> None:
    follower = Follower(
        store=herald.store,
        settings=_settings(),
        program=herald.program,
        disks=lambda: DISKS,
        ask=lambda url: b"rubbish",
    )
    (done,) = follower.update(NOW)
    assert "was not taken over" in done.words or "trusted no more" in done.words
    lines = heard(herald)
    assert (lines[0].strip(), lines[-1].strip()) == ("ProcessPrefix", "ProcessPostfix")


def _settings() -> TrustSettings:

    return trust_settings(Settings(grid_certificates=""))
