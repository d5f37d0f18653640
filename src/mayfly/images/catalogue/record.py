"""``image.json``: what is known of one image, versioned and checked when it is read."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mayfly.errors import Missing, Untrusted
from mayfly.images.catalogue.reference import title_of
from mayfly.model import Image

RECORD = "image.json"
FORMAT = 1
_DISK = "disk.qcow2"
_TEXT = ("name", "version", "arch", "os", "sha512", "disk_format", "created_at", "source")
_LATER_TEXT = ("endorsed_sha512",)
_LATER_LISTS = ("derived", "tags")
_NUMBERS = ("size_bytes", "disk_bytes", "mtime_ns")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the maker of an image says about it."""

    os: str
    source: str
    disk_bytes: int
    arch: str = "x86_64"
    version: str = ""
    """Empty: the time at which it was admitted."""
    endorsed_sha512: str = ""
    """Of the file that came from outside, if the disk was made of one: what a list vouches for."""
    derived: tuple[str, ...] = ()
    """What was done to that file, step by step, each with the program and its version."""
    tags: tuple[str, ...] = ()


def make_record(name: str, disk: Path, facts: Facts) -> dict[str, Any]:
    """Hash the disk and gather its record."""
    with disk.open("rb") as file:
        sha512 = hashlib.file_digest(file, "sha512").hexdigest()
        found = os.fstat(file.fileno())
    now = datetime.now(UTC).replace(microsecond=0)
    return {
        "format": FORMAT,
        "name": name,
        **asdict(facts),
        "version": facts.version or now.strftime("%Y%m%dT%H%M%SZ"),
        "created_at": now.isoformat(),
        "disk_format": "qcow2",
        "sha512": sha512,
        "size_bytes": found.st_size,
        "mtime_ns": found.st_mtime_ns,
    }


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record and see it reach the disk."""
    with path.open("w", encoding="utf-8") as file:
        json.dump(record, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o644)


def read_record(directory: Path) -> Image:
    """Read the record of the image in this directory."""
    path = directory / RECORD
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise Missing(f"image '{directory.name}' has no record: {path} is gone") from error
    except (OSError, ValueError, RecursionError) as error:
        raise Untrusted(
            f"the record of image '{directory.name}' cannot be read: {error}"
        ) from error
    return _parse(record, directory)


def _parse(record: object, directory: Path) -> Image:
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise Untrusted(
            f"the record of image '{directory.name}' has a format that this version does not know",
            hint="it was made by a newer Mayfly, or is damaged: build or import the image again",
        )
    # Records of older versions lack these; readers of older versions pass over them.
    record = {**dict.fromkeys(_LATER_TEXT, ""), **{key: [] for key in _LATER_LISTS}, **record}
    wrong = [key for key in (*_TEXT, *_LATER_TEXT) if type(record.get(key)) is not str]
    wrong += [key for key in _NUMBERS if type(record.get(key)) is not int]
    wrong += [key for key in _LATER_LISTS if not _is_texts(record[key])]
    name, at, digest = directory.name.partition("@")
    misplaced = wrong or record["name"] != name or not record["sha512"].startswith(digest)
    if misplaced:
        fields = ", ".join(wrong or ["name"])
        raise Untrusted(f"the record of image '{directory.name}' is damaged at: {fields}")
    names = (*_TEXT, *_LATER_TEXT, *_NUMBERS)
    values = {key: record[key] for key in names if key != "disk_format"}
    values |= {key: tuple(record[key]) for key in _LATER_LISTS}
    if at:
        values["name"] = title_of(name, record["version"], record["sha512"])
    return Image(**values, format=record["disk_format"], disk=directory / _DISK)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is str for item in value)
