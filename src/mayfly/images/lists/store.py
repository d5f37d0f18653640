"""What a site trusts, on disk: one directory of small files that only root writes.

``anchors/NAME.json`` are the certificates that the admin added, ``subscriptions/UUID.json`` the
lists that are followed with what was accepted of each, ``messages/`` the signed messages of those,
``blocked.json`` the images that the admin has blocked, ``registries/NAME.json`` the keys of
registries, ``signed/SHA512.json`` what those had signed of an image when it came in. Each file
changes in one step and says all that belongs together, so that a reader needs no lock, and a kill
at any moment leaves what was or what is.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from mayfly.errors import Conflict, Invalid, Missing, Untrusted
from mayfly.images.cosign.keys import RegistryKey, Signed
from mayfly.images.lists.admission import Admission, Signatures, admission
from mayfly.images.lists.authorities import Anchor, Anchors, Kind, Role
from mayfly.images.lists.codec import Damaged, build, plain
from mayfly.images.lists.files import (
    check_owned_directory,
    clear_debris,
    locked,
    make_directory,
    read_owned,
    remove_whole,
    write_whole,
)
from mayfly.images.lists.openssl import certificate
from mayfly.images.lists.subscriptions import Subscription

FORMAT = 1
RECORD_MOST = 256 << 20
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_PARTS = (".", "anchors", "subscriptions", "messages", "registries", "signed")
_SIGNED_MOST = 16

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class _AnchorRecord:
    """An anchor as it is on disk."""

    name: str
    kind: Kind
    pem: str
    roles: tuple[Role, ...]
    crls: tuple[str, ...]
    crl_required: bool
    subjects: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _SignedRecord:
    """What was signed of one image, as it is on disk."""

    seen: tuple[Signed, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustStore:
    """The directory of what a site trusts."""

    directory: Path

    # --- anchors ---------------------------------------------------------------------------------

    def anchors(self, grids: tuple[Path, ...] = ()) -> Anchors:
        """Give all certificates that were added, and the directories of grids with them."""
        own = [self._anchor(file) for file in self._files("anchors")]
        return Anchors(own=tuple(each for each in own if each is not None), grids=grids)

    def add_anchor(self, anchor: Anchor, *, force: bool = False) -> None:
        """Trust a certificate; raises ``Conflict`` when the name is taken."""
        file = self._anchor_file(anchor.name)
        with self._changing():
            self._check_name_free("registries", anchor.name)
            if file.exists() and not force:
                raise Conflict(
                    f"there is an anchor '{anchor.name}' already",
                    hint="remove it first, or give another name",
                )
            self._write(file, _anchor_record(anchor))

    def remove_anchor(self, name: str) -> None:
        """Trust a certificate no longer; lists that it signed are refused at the next update."""
        self._remove(self._anchor_file(name), f"anchor '{name}'")

    def _anchor(self, file: Path) -> Anchor | None:
        try:
            return _anchor(self._read(file, _AnchorRecord))
        except FileNotFoundError:
            return None  # it was removed just now
        except Invalid as error:
            raise self._damaged(file, error.message) from error

    def _anchor_file(self, name: str) -> Path:
        return self._named("anchors", name)

    def _named(self, part: str, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise Invalid(
                f"'{name}' is not a name for a certificate or key",
                hint="at most 64 of a-z 0-9 . _ -, the first a letter or digit",
            )
        return self.directory / part / f"{name}.json"

    # --- subscriptions ---------------------------------------------------------------------------

    def subscriptions(self, only: str = "") -> tuple[Subscription, ...]:
        """Give all subscriptions; with ``only``, without the images of another SHA-512.

        That makes the look that comes before each machine cheap.
        """
        found = []
        for file in self._files("subscriptions"):
            # One that is removed just now is not there any more.
            with contextlib.suppress(FileNotFoundError):
                found.append(self._read(file, Subscription, only=only))
        return tuple(found)

    def subscription(self, identifier: str) -> Subscription:
        """Give the subscription of this list; raises ``Missing``."""
        file = self._subscription_file(identifier)
        try:
            return self._read(file, Subscription)
        except FileNotFoundError as error:
            known = ", ".join(each.stem for each in self._files("subscriptions")) or "none"
            raise Missing(
                f"the list {identifier} is not subscribed", hint=f"subscribed: {known}"
            ) from error

    def save(self, subscription: Subscription, message: bytes | None = None) -> None:
        """Write a subscription, with the message it has accepted; only under ``changing``."""
        if message is not None and subscription.accepted is not None:
            place = self._message_file(subscription)
            make_directory(place.parent)
            # It comes first: a record never speaks of a message that is not there.
            write_whole(place, message)
        self._write(self._subscription_file(subscription.identifier), subscription)
        self._drop_messages(subscription)

    def remove_subscription(self, identifier: str) -> None:
        """Follow a list no longer; its images are trusted no more, at once."""
        self._remove(self._subscription_file(identifier), f"subscription {identifier}")

    def message(self, subscription: Subscription) -> bytes | None:
        """Give the signed message of the list that was accepted; None when it is gone."""
        if subscription.accepted is None:
            return None
        try:
            return read_owned(self._message_file(subscription), RECORD_MOST)
        except FileNotFoundError:
            return None

    def _subscription_file(self, identifier: str) -> Path:
        if not _UUID.fullmatch(identifier.lower()):
            raise Invalid(
                f"'{identifier}' is not the identifier of a list",
                hint="it is a UUID: 'mayfly trust show' has those that are subscribed",
            )
        return self.directory / "subscriptions" / f"{identifier.lower()}.json"

    def _message_file(self, subscription: Subscription) -> Path:
        assert subscription.accepted is not None
        digest = subscription.accepted.message_sha512[:32]
        return self.directory / "messages" / f"{subscription.identifier}-{digest}.signed"

    def _drop_messages(self, subscription: Subscription) -> None:
        if subscription.accepted is None:
            return
        kept = self._message_file(subscription)
        for file in kept.parent.glob(f"{subscription.identifier}-*.signed"):
            if file != kept:
                remove_whole(file)

    # --- images ----------------------------------------------------------------------------------

    def blocked(self) -> Mapping[str, str]:
        """Give the images that the admin has blocked: SHA-512 to reason."""
        try:
            table = self._load(self.directory / "blocked.json").get("images")
        except FileNotFoundError:
            return {}
        if not isinstance(table, dict) or not all(isinstance(each, str) for each in table.values()):
            raise self._damaged(self.directory / "blocked.json", "it has no table of images")
        return table

    def block(self, sha512: str, reason: str) -> None:
        """Refuse an image from now on, whoever vouches for it."""
        if not re.fullmatch(r"[0-9a-f]{128}", sha512.lower()):
            raise Invalid(f"'{sha512[:140]}' is not a SHA-512", hint="give all its 128 digits")
        with self._changing():
            self._write_blocked({**self.blocked(), sha512.lower(): reason})

    def unblock(self, sha512: str) -> None:
        """Leave an image to the lists again; raises ``Missing`` when it was not blocked."""
        with self._changing():
            table = dict(self.blocked())
            if table.pop(sha512.lower(), None) is None:
                raise Missing(f"the image {sha512[:16]}… is not blocked")
            self._write_blocked(table)

    def _write_blocked(self, images: Mapping[str, str]) -> None:
        table = {"format": FORMAT, "images": images}
        write_whole(self.directory / "blocked.json", _json(table))

    def admission(self, sha512: str, now: datetime) -> Admission:
        """Say whether an image may be used now: a look at a few files."""
        wanted = sha512.lower()
        return admission(
            sha512,
            self.subscriptions(only=wanted),
            blocked=self.blocked(),
            now=now,
            signed=Signatures(seen=self.signed(wanted), keys=self.registry_keys()),
        )

    def _check_name_free(self, part: str, name: str) -> None:
        """Keep certificates and registry keys apart: one name is one thing to remove."""
        if self._named(part, name).exists():
            what = {"anchors": "a certificate", "registries": "a registry key"}[part]
            raise Conflict(f"there is {what} '{name}' already", hint="give another --name")

    # --- registries ------------------------------------------------------------------------------

    def registry_keys(self) -> tuple[RegistryKey, ...]:
        """Give the keys that are believed for images of registries."""
        found = []
        for file in self._files("registries"):
            with contextlib.suppress(FileNotFoundError):
                found.append(self._read(file, RegistryKey))
        return tuple(found)

    def add_registry_key(self, key: RegistryKey, *, force: bool = False) -> None:
        """Believe a key of a registry; raises ``Conflict`` when the name is taken."""
        file = self._named("registries", key.name)
        with self._changing():
            self._check_name_free("anchors", key.name)
            if file.exists() and not force:
                raise Conflict(
                    f"there is a registry key '{key.name}' already",
                    hint="give another --name, or --force to put this one in its place",
                )
            self._write(file, key)

    def remove_registry_key(self, name: str) -> None:
        """Believe a key of a registry no more; nobody vouches for what it has signed, at once."""
        self._remove(self._named("registries", name), f"registry key '{name}'")

    def signed(self, sha512: str) -> tuple[Signed, ...]:
        """Give what was found signed when an image came in."""
        try:
            return self._read(self._signed_file(sha512), _SignedRecord).seen
        except FileNotFoundError:
            return ()

    def note_signed(self, sha512: str, signed: Signed) -> None:
        """Remember what was found signed of an image."""
        with self._changing():
            others = tuple(
                each
                for each in self.signed(sha512)
                if (str(each), each.fingerprint) != (str(signed), signed.fingerprint)
            )
            seen = (*others, signed)[-_SIGNED_MOST:]
            self._write(self._signed_file(sha512), _SignedRecord(seen=seen))

    def _signed_file(self, sha512: str) -> Path:
        return self.directory / "signed" / f"{sha512.lower()}.json"

    # --- files -----------------------------------------------------------------------------------

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Be the only one who changes anything here."""
        with self._changing():
            yield

    @contextmanager
    def _changing(self) -> Iterator[None]:
        check_owned_directory(self.directory)
        make_directory(self.directory)
        with locked(self.directory / "lock"):
            for part in _PARTS:
                if (self.directory / part).is_dir():
                    clear_debris(self.directory / part)
            yield

    def _files(self, part: str) -> list[Path]:
        check_owned_directory(self.directory)
        place = self.directory / part
        check_owned_directory(place)
        # Not as Path.glob does it: what may not be read would look as if nothing were there.
        try:
            names = os.listdir(place)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(place / name for name in names if name.endswith(".json") and name[0] != ".")

    def _write(self, file: Path, value: object) -> None:
        make_directory(file.parent)
        write_whole(file, _json({"format": FORMAT, **plain(value)}))

    def _remove(self, file: Path, what: str) -> None:
        with self._changing():
            if not file.exists():
                raise Missing(f"there is no {what}", hint="'mayfly trust show' has what there is")
            remove_whole(file)

    def _read(self, file: Path, kind: type[T], *, only: str = "") -> T:
        table = self._load(file)
        if only:
            _keep_only(table, only)
        try:
            return build(kind, table)
        except Damaged as error:
            raise self._damaged(file, str(error)) from error

    def _load(self, file: Path) -> dict[str, Any]:
        data = read_owned(file, RECORD_MOST)
        try:
            table = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self._damaged(file, "it is not JSON") from error
        if not isinstance(table, dict) or table.get("format") != FORMAT:
            raise self._damaged(file, "it has a format that this version does not know")
        return table

    def _damaged(self, file: Path, why: str) -> Untrusted:
        return Untrusted(
            f"{file} cannot be used: {why}",
            hint="restore it from a backup, or remove it and do again what made it",
        )


def _keep_only(table: dict[str, Any], sha512: str) -> None:
    """Leave out all images but one before they are read: a list may have thousands."""
    accepted = table.get("accepted")
    if isinstance(accepted, dict) and isinstance(accepted.get("images"), list):
        accepted["images"] = [each for each in accepted["images"] if _has(each, sha512)]
        accepted["faults"] = []


def _has(vouched: object, sha512: str) -> bool:
    image = vouched.get("image") if isinstance(vouched, dict) else None
    return isinstance(image, dict) and image.get("sha512") == sha512


def _json(table: object) -> bytes:
    return (json.dumps(table, indent=1) + "\n").encode("ascii")


def _anchor(record: _AnchorRecord) -> Anchor:
    return Anchor(
        name=record.name,
        kind=record.kind,
        certificate=certificate(record.pem.encode()),
        roles=frozenset(record.roles),
        crls=tuple(crl.encode() for crl in record.crls),
        crl_required=record.crl_required,
        subjects=record.subjects,
    )


def _anchor_record(anchor: Anchor) -> _AnchorRecord:
    return _AnchorRecord(
        name=anchor.name,
        kind=anchor.kind,
        pem=anchor.certificate.pem.decode("ascii"),
        roles=tuple(sorted(anchor.roles)),
        crls=tuple(crl.decode("ascii") for crl in anchor.crls),
        crl_required=anchor.crl_required,
        subjects=anchor.subjects,
    )
