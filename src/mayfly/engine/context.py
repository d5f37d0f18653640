"""What a site gives an image when it boots, without touching the image: files on the agent disk.

``context/IMAGE/`` beside the settings holds them. They are used once, when the template is made, so
they cost a job nothing; another content makes another template.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mayfly.errors import Invalid, Untrusted

USER_DATA, META_DATA, VENDOR_DATA = "user-data", "meta-data", "vendor-data"
PROLOG, EPILOG = "prolog.sh", "epilog.sh"
CONTEXT_SH = "context.sh"
EC2_USER_DATA = "ec2-user-data"
BY_IMAGE = "run-by-image"
"""With this file there the image itself runs the two scripts, as the HEPiX group wanted it."""
RESERVED = frozenset({"start", "bin", "lib", "network-config", VENDOR_DATA})
FILE_MOST, FILES_MOST = 1 << 20, 64
EC2_MOST = 16 << 10
"""As CernVM's own loader takes no more."""
CERNVM_PATH = "/var/lib/amiconfig"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_OURS = re.compile(r"^(instance-id|local-hostname)\s*:.*\n?", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The files for one image."""

    directory: Path
    files: Mapping[str, bytes]

    @property
    def digest(self) -> str:
        """Name the content (SHA-256)."""
        digest = hashlib.sha256()
        for name, content in sorted(self.files.items()):
            digest.update(f"{name} {len(content)}\n".encode() + content)
        return digest.hexdigest()

    def scripts(self) -> tuple[str, ...]:
        """Give those scripts, in order, that are ours to have run."""
        if BY_IMAGE in self.files:
            return ()
        return tuple(name for name in (PROLOG, EPILOG) if name in self.files)

    def on_disk(self, meta_data: str) -> dict[str, bytes]:
        """Give the files as they stand on the agent disk, whose own meta-data is given. Pure."""
        made = {name: content for name, content in self.files.items() if name != BY_IMAGE}
        if USER_DATA in made:
            # The disk's own user-data starts the agent. A site's part comes as the vendor's,
            # which cloud-init handles in the same way, after it.
            made[VENDOR_DATA] = made.pop(USER_DATA)
        if META_DATA in made:
            theirs = _OURS.sub("", made[META_DATA].decode("utf-8", "replace"))
            made[META_DATA] = f"{meta_data}{theirs}".encode()
        if EC2_USER_DATA in made:
            text = base64.b64encode(made.pop(EC2_USER_DATA)).decode()
            lines = f'EC2_USER_DATA="{text}"\nONE_CONTEXT_PATH="{CERNVM_PATH}"\n'
            made[CONTEXT_SH] = lines.encode()
        return made


def find_context(directories: tuple[Path, ...], image: str) -> Context | None:
    """Give the context of an image; the last directory that has one wins. None for most images.

    Raises ``Invalid``, ``Untrusted`` when others could have written it.
    """
    name = image.partition("@")[0]
    for top in reversed(directories):
        # Every run asks this: where there is none it must cost next to nothing.
        if os.path.isdir(os.path.join(top, name)):
            return read_context(top / name)
    return None


def read_context(directory: Path) -> Context:
    """Read all files of a context."""
    _check_owner(directory)
    names = sorted(os.listdir(directory))
    names = [name for name in names if not name.startswith(".") and not name.endswith("~")]
    if len(names) > FILES_MOST:
        raise Invalid(f"{directory} has {len(names)} files; at most {FILES_MOST} are possible")
    files = {name: _read(directory / name) for name in names}
    if len(files.get(EC2_USER_DATA, b"")) > EC2_MOST:
        raise Invalid(f"{directory / EC2_USER_DATA} has more than {EC2_MOST} bytes")
    if EC2_USER_DATA in files and CONTEXT_SH in files:
        raise Invalid(
            f"{directory} has both {EC2_USER_DATA} and {CONTEXT_SH}",
            hint=f"{CONTEXT_SH} is made of {EC2_USER_DATA}: remove one of them",
        )
    return Context(directory=directory, files=files)


def _read(path: Path) -> bytes:
    if not _NAME.fullmatch(path.name) or path.name in RESERVED:
        hint = f"a part for cloud-init is called {USER_DATA}" if path.name == VENDOR_DATA else ""
        raise Invalid(f"{path}: no file of a context can have that name", hint=hint)
    try:
        # Not blocking: a FIFO of that name would else hold us for ever.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise Invalid(f"{path} is not a file")
            _judge_owner(path, found)
            content = file.read(FILE_MOST + 1)
    except OSError as error:
        raise Invalid(f"cannot read {path}: {error.strerror}") from error
    if len(content) > FILE_MOST:
        raise Invalid(f"{path} has more than {FILE_MOST} bytes")
    return content


def _check_owner(path: Path) -> None:
    try:
        _judge_owner(path, os.stat(path))
    except OSError as error:
        raise Invalid(f"cannot read {path}: {error.strerror}") from error


def _judge_owner(path: Path, found: os.stat_result) -> None:
    """Refuse what others could have written: it runs as root in every machine of the image."""
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
        raise Untrusted(
            f"{path} can be written by others than root and its owner",
            hint=f"chown root {path}; chmod go-w {path}",
        )
