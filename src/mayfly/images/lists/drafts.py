"""The lists that an endorser makes, before they are signed: one file each in a directory of his."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mayfly.errors import Conflict, Invalid, Missing, Untrusted
from mayfly.images.lists.files import clear_debris, locked, make_directory, read_owned, write_whole
from mayfly.images.lists.model import ImageList
from mayfly.images.lists.reader import BYTES_MOST, parse_list
from mayfly.images.lists.rules import Refused
from mayfly.images.lists.uris import ANY
from mayfly.images.lists.writer import render_list

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(slots=True, kw_only=True)
class Draft:
    """A list that is being changed; what ``images`` is at the end is written."""

    images: ImageList


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafts:
    """All lists of one endorser."""

    directory: Path

    def names(self) -> list[str]:
        """Give the names of all lists."""
        return sorted(file.stem for file in self.directory.glob("[!.]*.json"))

    def create(self, name: str, images: ImageList) -> None:
        """Begin a list; raises ``Conflict`` when there is one of this name."""
        file = self._file(name)
        with self._alone():
            if file.exists():
                raise Conflict(f"there is a list '{name}' already", hint="give another name")
            write_whole(file, render_list(images))

    def read(self, name: str) -> ImageList:
        """Give a list; raises ``Missing``."""
        file = self._file(name)
        try:
            return parse_list(read_owned(file, BYTES_MOST), ANY)
        except FileNotFoundError as error:
            known = ", ".join(self.names()) or "none"
            raise Missing(f"there is no list '{name}'", hint=f"there are: {known}") from error
        except Refused as refused:
            raise Untrusted(
                f"{file} cannot be used: {refused.refusal}", hint="restore it from a backup"
            ) from refused

    @contextmanager
    def change(self, name: str) -> Iterator[Draft]:
        """Change a list; nothing is written when the caller fails."""
        with self._alone():
            draft = Draft(images=self.read(name))
            yield draft
            write_whole(self._file(name), render_list(draft.images))

    def signed_file(self, name: str) -> Path:
        """Give where the signed message of a list lies."""
        return self._file(name).with_suffix(".signed")

    def _file(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise Invalid(
                f"'{name}' is not a name for a list",
                hint="at most 64 of a-z 0-9 . _ -, the first a letter or digit",
            )
        return self.directory / f"{name}.json"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        make_directory(self.directory)
        with locked(self.directory / ".lock"):
            clear_debris(self.directory)
            yield
