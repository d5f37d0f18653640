"""Machine and job features (HSF-TN-2016-02): what a job may know of its machine, as small files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mayfly.guest import fields
from mayfly.guest.fields import Refused
from mayfly.guest.files import beneath, make_folders, write_text

MACHINE = "/etc/machinefeatures"
JOB = "/etc/jobfeatures"
_KEY = re.compile(r"[a-z0-9_]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Values by their names; None where the host tells nothing."""

    machine: Mapping[str, str] | None = None
    job: Mapping[str, str] | None = None

    def variables(self) -> dict[bytes, bytes]:
        """Give the variables by which jobs find the files."""
        return {
            name: folder.encode()
            for name, folder, values in (
                (b"MACHINEFEATURES", MACHINE, self.machine),
                (b"JOBFEATURES", JOB, self.job),
            )
            if values is not None
        }


def parse_features(record: dict[str, Any] | None) -> Features:
    """Read the features of a claim."""
    if record is None:
        return Features()
    return Features(machine=_values(record, "machine"), job=_values(record, "job"))


def _values(record: dict[str, Any], key: str) -> Mapping[str, str] | None:
    given = fields.record(record, key)
    if given is None:
        return None
    for name in given:
        if not _KEY.fullmatch(name):
            raise Refused(f"'{name}' cannot be the name of a feature")
    return {name: fields.text(given, name) for name in given}


def write_features(features: Features, *, root: str = "/") -> None:
    """Write one file for each; those of another machine or job, or of the image, are removed."""
    for folder, values in (MACHINE, features.machine), (JOB, features.job):
        if values is not None:
            _write(beneath(root, folder), values)


def _write(folder: str, values: Mapping[str, str]) -> None:
    make_folders(folder)
    for entry in os.scandir(folder):
        if entry.name not in values and not entry.is_dir(follow_symlinks=False):
            os.unlink(entry.path)
    for name, value in values.items():
        write_text(f"{folder}/{name}", value + "\n")
