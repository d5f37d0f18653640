"""An endorser and a site in one home, driven by the commands themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mayfly.cli.main import mayfly
from mayfly.errors import MayflyError
from mayfly.images.catalogue import Catalogue
from mayfly.images.catalogue.record import Facts
from mayfly.model import Image

JO = "/O=A test/CN=Jo Doe"
URI = "https://lists.example.org/site.list"


def command(*words: object, answer: str = "") -> Result:
    """Run a command as it is typed; raises what it ends with."""
    argv = [str(word) for word in words]
    return CliRunner().invoke(
        mayfly, argv, input=answer, catch_exceptions=False, standalone_mode=False
    )


def refused(*words: object) -> MayflyError:
    """Run a command that is refused; gives the error."""
    with pytest.raises(MayflyError) as caught:
        command(*words)
    return caught.value


def admit(home: Path, name: str, content: str = "", *, force: bool = False) -> Image:
    """Put an image into the catalogue: a few bytes in place of a disk."""
    images = home / "state/images"
    with Catalogue(own=images, dirs=(images,)).draft(name, work="test", force=force) as draft:
        draft.disk.write_text(content or name)
        return draft.admit(Facts(os="almalinux 9", source="a test", disk_bytes=1 << 30))


def published(home: Path, *images: str) -> Path:
    """Endorse images, and publish a list of them; gives the file."""
    place = home / "site.list"
    if not (home / "state/endorse/lists/site.json").exists():
        command("endorse", "list", "create", "site", "--title", "Ours", "--uri", URI)
    for name in images:
        command("endorse", "image", name)
        command("endorse", "list", "add", "site", name)
    command("endorse", "list", "sign", "site")
    command("endorse", "list", "publish", "site", place)
    return place


def subscribed(home: Path, *images: str) -> str:
    """Follow a list of these images; gives its identifier."""
    place = published(home, *(images or ("el9",)))
    command("trust", "add", home / "state/endorse/cert.pem")
    done = command("trust", "subscribe", place.as_uri(), "--endorser", JO)
    return next(line for line in done.stdout.splitlines() if "identifier" in line).split()[1]
