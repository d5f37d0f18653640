"""Which Debian mirror to build from: the one that this host uses itself, if it is Debian's."""

from __future__ import annotations

import shlex
from urllib.parse import urlsplit

from mayfly.command import run
from mayfly.errors import Failed, Invalid
from mayfly.images.build.recipe import Mirror, Recipe

DEFAULT = Mirror(
    main="http://deb.debian.org/debian", security="http://deb.debian.org/debian-security"
)

_REACHING = (
    "Acquire::http::Proxy",
    "Acquire::https::Proxy",
    "Acquire::Check-Date",
    "Acquire::Check-Valid-Until",
)
"""Settings of the host's apt without which the archive may be out of reach."""


def given_mirror(main: str, security: str | None = None) -> Mirror:
    """Give the mirror at this address; security updates lie beside it unless said otherwise."""
    addresses = [main.rstrip("/"), (security or f"{main.rstrip('/')}-security").rstrip("/")]
    for address in addresses:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.netloc or set(address) & set(" \n[]"):
            raise Invalid(
                f"'{address}' is not the address of a mirror",
                hint="write it as http://deb.debian.org/debian",
            )
    return Mirror(main=addresses[0], security=addresses[1])


def mirror_for(recipe: Recipe, main: str, security: str | None = None) -> Mirror:
    """Give the mirror at this address: others than Debian have security updates beneath it."""
    return given_mirror(main, security or (main if recipe.archive is not None else None))


def pick_mirror(targets: str) -> Mirror:
    """Choose from what ``apt-get indextargets`` printed: an address on each line."""
    found: dict[str, str] = {}
    for address in targets.split():
        kind = address.rstrip("/").rsplit("/", 1)[-1]
        if kind in ("debian", "debian-security") and address.startswith(("http://", "https://")):
            found.setdefault(kind, address.rstrip("/"))
    if "debian" not in found:
        return DEFAULT
    return Mirror(main=found["debian"], security=found.get("debian-security", DEFAULT.security))


def host_mirror() -> Mirror:
    """Give the mirror that this host installs from, or Debian's own."""
    argv = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    try:
        return pick_mirror(run(argv, timeout_s=30).text())
    except Failed:  # a host without apt, or with a broken one, can still build
        return DEFAULT


def host_apt_options() -> dict[str, str]:
    """Give the host's own apt settings that decide whether the archive can be reached."""
    pairs = [word for number, name in enumerate(_REACHING) for word in (f"V{number}", name)]
    try:
        output = run(["apt-config", "shell", *pairs], timeout_s=30).text()
    except Failed:
        return {}
    return read_apt_config(output)


def read_apt_config(output: str) -> dict[str, str]:
    """Read what ``apt-config shell`` printed; a value that apt could not quote is left out."""
    values = {}
    for word in shlex.split(output):
        variable, _, value = word.partition("=")
        if value and not set(value) & set('"\n\\'):
            values[_REACHING[int(variable[1:])]] = value
    return values
