"""Tells a program of the site when images come and go, as vmcatcher tells its event handlers.

What was told is written down, so that an image which expired between two updates is told of too,
and a kill makes an event come twice rather than never.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from mayfly.errors import Untrusted
from mayfly.images.lists.files import locked, make_directory, read_owned, write_whole
from mayfly.images.lists.model import ListedImage
from mayfly.images.lists.offers import trusted_offers
from mayfly.images.lists.store import RECORD_MOST, TrustStore

LIMIT_S = 10.0
FORMAT = 1
_FILE = "announced.json"
_PREFIX = "VMCATCHER_EVENT_"
_LONGEST = 4096
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

log = logging.getLogger("mayfly.images.lists")

Told = Mapping[str, str]
"""What an event says of an image, by the names of vmcatcher without their beginning."""


class EventType(StrEnum):
    """What happened."""

    PROCESS_PREFIX = "ProcessPrefix"
    PROCESS_POSTFIX = "ProcessPostfix"
    IMAGE_NEW = "SubscriptionImageNew"
    """A list has an image that it had not before."""
    AVAILABLE_PREFIX = "AvailablePrefix"
    AVAILABLE_POSTFIX = "AvailablePostfix"
    """An image is trusted, and here."""
    EXPIRE_PREFIX = "ExpirePrefix"
    EXPIRE_POSTFIX = "ExpirePostfix"
    """It is trusted no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that a site's program is told."""

    type: EventType
    told: Told = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """What the program knows."""

    listed: Mapping[str, Told] = field(default_factory=dict)
    """By list and identifier."""
    available: Mapping[str, Told] = field(default_factory=dict)
    """By list, identifier and SHA-512."""


# --- what is to be told: pure --------------------------------------------------------------------


def changes(before: Announced, after: Announced) -> Iterator[Event]:
    """Give the events that lead from what is known to what is so; what goes comes first."""
    for key, told in before.available.items():
        if key not in after.available:
            yield Event(type=EventType.EXPIRE_PREFIX, told=told)
            yield Event(type=EventType.EXPIRE_POSTFIX, told=told)
    for key, told in after.listed.items():
        if key not in before.listed:
            yield Event(type=EventType.IMAGE_NEW, told=told)
    for key, told in after.available.items():
        if key not in before.available:
            yield Event(type=EventType.AVAILABLE_PREFIX, told=told)
            yield Event(type=EventType.AVAILABLE_POSTFIX, told=told)


def describe(image: ListedImage, list_identifier: str, file: Path | None = None) -> dict[str, str]:
    """Give what an event says of an image."""
    words = {
        "DC_DESCRIPTION": image.description,
        "DC_IDENTIFIER": image.identifier,
        "DC_TITLE": image.title,
        "HV_HYPERVISOR": image.hypervisor,
        "HV_SIZE": str(image.size_bytes),
        "HV_URI": image.uri,
        "HV_VERSION": image.version,
        "HV_FORMAT": image.format,
        "SL_ARCH": image.arch,
        "SL_CHECKSUM_SHA512": image.sha512,
        "SL_COMMENTS": image.comments,
        "SL_OS": image.os,
        "SL_OSVERSION": image.os_version,
        "IL_DC_IDENTIFIER": list_identifier,
        "AD_MPURI": str(image.extra.get("ad:mpuri") or ""),
        "FILENAME": str(file) if file else "",
    }
    return {key: _clean(value) for key, value in words.items() if value}


def environment(event: Event, session: str) -> dict[str, str]:
    """Give the environment of the program: nothing of the caller's own is in it."""
    told = {"TYPE": event.type.value, "UUID_SESSION": session, **event.told}
    names = {f"{_PREFIX}{key}": value for key, value in told.items()}
    return {"PATH": os.environ.get("PATH", _PATH), "LC_ALL": "C.UTF-8", **names}


def _clean(text: str) -> str:
    """Leave out what would end a line, or a variable; it is for scripts."""
    return "".join(letter if letter.isprintable() else " " for letter in text)[:_LONGEST]


def standing(store: TrustStore, disks: Mapping[str, Path], now: datetime) -> Announced:
    """Give how things stand; ``disks``: the files that are here, by the SHA-512 in a list."""
    trusted = {offer.image.sha512 for offer in trusted_offers(store, now)}
    listed: dict[str, Told] = {}
    available: dict[str, Told] = {}
    for subscription in store.subscriptions():
        accepted = subscription.accepted
        for image in [each.image for each in accepted.images] if accepted else []:
            file = disks.get(image.sha512)
            told = describe(image, subscription.identifier, file)
            key = f"{subscription.identifier}/{image.identifier}"
            listed[key] = told
            if file is not None and image.sha512 in trusted:
                available[f"{key}/{image.sha512}"] = told
    return Announced(listed=listed, available=available)


# --- telling it ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Herald:
    """Tells a program of the site, in one session of it."""

    program: Path
    store: TrustStore
    session: str = field(default_factory=lambda: str(uuid.uuid4()))

    def tell(self, event: Event) -> None:
        """Call the program; what becomes of that changes nothing here."""
        trouble = call(self.program, environment(event, self.session))
        if trouble:
            log.warning("%s: %s %s", event.type.value, self.program, trouble)

    def announce(self, disks: Mapping[str, Path], now: datetime) -> None:
        """Tell of all that is otherwise than it was told before."""
        make_directory(self.store.directory)
        with locked(self.store.directory / "events.lock"):
            after = standing(self.store, disks, now)
            for event in changes(self._known(), after):
                self.tell(event)
            self._remember(after)

    def _known(self) -> Announced:
        try:
            stored = json.loads(read_owned(self.store.directory / _FILE, RECORD_MOST))
            return Announced(listed=_table(stored["listed"]), available=_table(stored["available"]))
        except FileNotFoundError:
            return Announced()
        except (ValueError, KeyError, TypeError, RecursionError, Untrusted) as error:
            log.warning("what was told before cannot be read, all is told again: %s", error)
            return Announced()

    def _remember(self, known: Announced) -> None:
        table = {"format": FORMAT, "listed": known.listed, "available": known.available}
        write_whole(self.store.directory / _FILE, json.dumps(table).encode("ascii"))


def _table(stored: object) -> dict[str, Told]:
    if not isinstance(stored, dict) or not all(isinstance(each, dict) for each in stored.values()):
        raise ValueError("it is no table")
    return {
        str(key): {str(name): str(value) for name, value in told.items()}
        for key, told in stored.items()
    }


def call(program: Path, env: Mapping[str, str], *, limit_s: float = LIMIT_S) -> str:
    """Run the program and all that it starts for so long at most; gives what went wrong."""
    try:
        child = subprocess.Popen(
            [str(program)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=dict(env),
            cwd="/",
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return f"cannot be run: {error}"
    try:
        code = child.wait(limit_s)
        return f"ended with status {code}" if code else ""
    except subprocess.TimeoutExpired:
        return f"did not end within {limit_s:g} s"
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
