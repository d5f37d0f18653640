"""What an endorser has said of each image, kept between its versions: one file for each image.

The file is what an image endorser gives to a list endorser: the image's entry with his word in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mayfly.errors import Invalid, Untrusted
from mayfly.images.catalogue import check_name
from mayfly.images.lists.files import make_directory, read_owned, write_whole
from mayfly.images.lists.model import Endorser, ListedImage
from mayfly.images.lists.reader import BYTES_MOST, parse_image
from mayfly.images.lists.rules import Refused
from mayfly.images.lists.uris import ANY
from mayfly.images.lists.writer import render_image


@dataclass(frozen=True, slots=True, kw_only=True)
class Entries:
    """All entries of one endorser."""

    directory: Path

    def find(self, name: str) -> ListedImage | None:
        """Give what was said of an image last; None when nothing was."""
        file = self.file(name)
        try:
            return _parse(read_owned(file, BYTES_MOST))[0]
        except FileNotFoundError:
            return None
        except Refused as refused:
            raise Untrusted(
                f"{file} cannot be used: {refused.refusal}", hint="endorse the image again"
            ) from refused

    def write(self, name: str, image: ListedImage, endorser: Endorser) -> Path:
        """Keep what is said of an image."""
        file = self.file(name)
        make_directory(file.parent)
        write_whole(file, render_image(image, endorser))
        return file

    def file(self, name: str) -> Path:
        """Give where an entry lies."""
        return self.directory / f"{check_name(name)}.json"


def read_entry(file: Path) -> ListedImage:
    """Read an entry that somebody else wrote; what he signed in it is checked by the sites."""
    try:
        with file.open("rb") as opened:
            data = opened.read(BYTES_MOST + 1)
        return _parse(data)[0]
    except OSError as error:
        raise Invalid(f"cannot read {file}: {error.strerror}") from error
    except Refused as refused:
        raise Invalid(
            f"{file} is no entry of an image: {refused.refusal}",
            hint="'mayfly endorse image NAME --out FILE' writes one",
        ) from refused


def _parse(data: bytes) -> tuple[ListedImage, Endorser]:
    return parse_image(data, ANY)
