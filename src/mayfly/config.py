"""Where things lie on disk, and the settings that a site or a user may give in TOML.

``/etc/mayfly/config.toml`` is read first, then ``~/.config/mayfly/config.toml``; the latter wins.
``MAYFLY_HOME=DIR`` puts everything of one user beneath DIR (tests, several copies on one host).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from mayfly.errors import Invalid
from mayfly.model import NetworkMode
from mayfly.units import MIB, parse_size

UID_LEAST, UID_MOST = 100_000, (1 << 31) - (1 << 17)
"""Where the uids of machines may begin: above those of people, below those that mean nobody."""
SYSTEM_CONFIG = Path("/etc/mayfly/config.toml")
SYSTEM_IMAGES = Path("/var/lib/mayfly/images")
SYSTEM_TRUST = Path("/var/lib/mayfly/trust")
SYSTEM_POLICY = Path("/etc/mayfly/policy.toml")
CHOICES = {
    "network": [mode.value for mode in NetworkMode],
    "accelerator": ["auto", "kvm", "tcg"],
    "disk_cache": ["unsafe", "writeback", "none"],
}
_KINDS = {int: "a whole number", str: "text", tuple: "a list", bool: "true or false"}
_PATHS = ("grid_certificates", "event_handler")


def host_id(file: Path = Path("/etc/machine-id")) -> str:
    """Name this host for as long as it is installed: machine-id(5), or else its host name."""
    try:
        name = file.read_text().strip()[:12]
    except OSError:
        name = ""
    return name or os.uname().nodename


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """The directories of one user (of the site, when that is root)."""

    state: Path
    """Records and disks of machines."""
    cache: Path
    """Templates, agent disk, probe verdicts: all can be made again."""
    images: Path
    """Images of this user."""
    image_dirs: tuple[Path, ...]
    """Where images are looked for, first hit wins."""
    config_files: tuple[Path, ...]
    policy_file: Path = SYSTEM_POLICY
    """What the site's policy is read from, if it is there."""
    site_images: Path = SYSTEM_IMAGES
    """Images of the site; those elsewhere are of the user alone."""
    site_trust: Path = SYSTEM_TRUST
    """What the site trusts."""

    @classmethod
    def for_user(cls, environ: Mapping[str, str] = os.environ) -> Paths:
        """Find the directories of the calling user; nothing is created."""
        if home := environ.get("MAYFLY_HOME"):
            top = Path(home).absolute()
            here = cls._beneath(top / "state", top / "cache", (top / "config.toml",), ())
            policy_file = top / "policy.toml"
            return replace(
                here, policy_file=policy_file, site_images=here.images, site_trust=here.trust
            )
        if os.geteuid() == 0:
            state, cache = Path("/var/lib/mayfly"), Path("/var/cache/mayfly")
            return cls._beneath(state, cache, (SYSTEM_CONFIG,), ())
        user = Path.home()
        state = Path(environ.get("XDG_STATE_HOME") or user / ".local/state") / "mayfly"
        cache = Path(environ.get("XDG_CACHE_HOME") or user / ".cache") / "mayfly"
        own = Path(environ.get("XDG_CONFIG_HOME") or user / ".config") / "mayfly/config.toml"
        return cls._beneath(state, cache, (SYSTEM_CONFIG, own), (SYSTEM_IMAGES,))

    @classmethod
    def _beneath(
        cls,
        state: Path,
        cache: Path,
        config_files: tuple[Path, ...],
        more: tuple[Path, ...],
    ) -> Paths:
        images = state / "images"
        return cls(
            state=state,
            cache=cache,
            images=images,
            image_dirs=(images, *more),
            config_files=config_files,
        )

    @property
    def machines(self) -> Path:
        """One directory per machine of this host: a home may be shared by many."""
        return self.state / "machines" / host_id()

    @property
    def contexts(self) -> tuple[Path, ...]:
        """Where the contexts of images are looked for, the last hit wins."""
        return tuple(file.with_name("context") for file in self.config_files)

    @property
    def templates(self) -> Path:
        """One directory per template."""
        return self.cache / "templates"

    @property
    def trust(self) -> Path:
        """Whom this user trusts: certificates, lists, blocked images."""
        return self.state / "trust"

    def has_rules(self) -> bool:
        """Tell whether anything here says what may be run: where nothing does, all may."""
        # Not as Path does it: where nothing may be looked at, nothing is said.
        places = (self.policy_file, self.site_trust, self.trust)
        return any(os.path.exists(each) for each in places)

    @property
    def endorse(self) -> Path:
        """What this user vouches for: keys, images and lists."""
        return self.state / "endorse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a site or user may set; ``docs/reference/settings.md`` has a line for each."""

    cpus: int = 1
    memory_mib: int = 512
    network: str = "none"
    site_networks: tuple[str, ...] = ()
    """Networks that ``open`` must not reach, besides the private ones."""
    workdir_limit_mib: int = 1024
    workdir_files: int = 200_000
    keep_hours: int = 24
    """How long a machine kept after a failure stays."""
    accelerator: str = "auto"
    """``auto`` (KVM when it was seen to boot a guest), ``kvm`` or ``tcg``."""
    qemu: str = ""
    """Path of qemu-system-x86_64; empty: from PATH."""
    uid_first: int = 0x6D61_0000
    """First uid that machines run as when root starts them; 65,536 are used."""
    disk_cache: str = "unsafe"
    """How a machine's disk is written to the host's: see ``docs/explanation/backends.md``."""
    template_hours: int = 8
    """How long an unused template's memory stays in RAM; after it, it is read from disk."""
    grid_certificates: str = "/etc/grid-security/certificates"
    """Where the authorities of grids are, with their revocation lists; empty: nowhere."""
    trust_sha1: bool = False
    """Whether signatures by SHA-1 count: for old lists that nobody signs anew."""
    trust_local_urls: bool = False
    """Whether images may be fetched from this host itself and what lies beside it."""
    image_quota: str = ""
    """How much the images may take, as ``200G``; empty: as much as there is room for."""
    neighbours: tuple[str, ...] = ()
    """Hosts that run ``mayfly image serve``, as HOST:PORT: they are asked for chunks of images."""
    plain_registries: tuple[str, ...] = ()
    """Registries that are asked without encryption, as HOST or HOST:PORT."""
    server: str = ""
    """Where the site server is, as ``unix:///PATH`` or ``https://HOST``; empty: there is none."""
    event_handler: str = ""
    """A program of the site that is called when images come and go."""


def load_settings(files: tuple[Path, ...]) -> Settings:
    """Read the files that exist, later ones winning.

    Raises ``Invalid``, naming file and key, on anything unknown, of the wrong type or no choice.
    """
    settings = Settings()
    for file in files:
        if not file.exists():
            continue
        # Most hosts have no such file, and every run would pay for the parser.
        import tomllib  # noqa: PLC0415

        try:
            values = tomllib.loads(file.read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise Invalid(f"{file} is not TOML: {error}") from error
        except OSError as error:
            raise Invalid(f"cannot read {file}: {error.strerror}") from error
        settings = replace(settings, **_checked(file, values))
    return settings


def _checked(file: Path, values: dict[str, object]) -> dict[str, Any]:
    known = {field.name: field for field in fields(Settings)}
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key == "memory" and isinstance(value, str):
            checked["memory_mib"] = _memory(file, value)
            continue
        if key not in known:
            raise Invalid(f"{file}: no such setting '{key}'", hint=f"known: {', '.join(known)}")
        checked[key] = _typed(file, key, value, type(getattr(Settings(), key)))
    return checked


def _typed(file: Path, key: str, value: object, wanted: type) -> object:
    if wanted is tuple and isinstance(value, list):
        for item in value:
            _CHECKS[key](file, key, item)
        return tuple(str(item) for item in value)
    if type(value) is not wanted:
        raise Invalid(f"{file}: '{key}' must be {_KINDS[wanted]}, not {value!r}")
    if wanted is int and not 0 < int(str(value)) < 1 << 32:
        raise Invalid(f"{file}: '{key}' must be positive, not {value!r}")
    if key == "uid_first" and not UID_LEAST <= int(str(value)) <= UID_MOST:
        raise Invalid(f"{file}: 'uid_first' must be from {UID_LEAST} to {UID_MOST}, not {value!r}")
    if key in _PATHS and value and not str(value).startswith("/"):
        raise Invalid(f"{file}: '{key}' must be a path from / on, not {value!r}")
    if key == "image_quota" and value:
        _size(file, key, str(value))
    if key in CHOICES and value not in CHOICES[key]:
        raise Invalid(f"{file}: '{key}' must be one of {', '.join(CHOICES[key])}, not {value!r}")
    return value


def _size(file: Path, key: str, text: str) -> int:
    try:
        return parse_size(text)
    except Invalid as error:
        raise Invalid(f"{file}: '{key}': {error.message}", hint=error.hint) from error


def _memory(file: Path, text: str) -> int:
    size = _size(file, "memory", text)
    if size < MIB:
        raise Invalid(f"{file}: 'memory' must be 1M or more, not {text}")
    return size // MIB


def _network(file: Path, key: str, item: object) -> None:
    import ipaddress  # noqa: PLC0415 - as above

    try:
        ipaddress.ip_network(str(item))
    except ValueError as error:
        raise Invalid(f"{file}: '{key}' has no network: {error}") from error


def _registry(file: Path, key: str, item: object) -> None:
    import re  # noqa: PLC0415 - as above

    if type(item) is not str or not re.fullmatch(
        r"[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]{1,5})?", str(item)
    ):
        raise Invalid(f"{file}: '{key}' must have HOST or HOST:PORT, not {item!r}")


def _neighbour(file: Path, key: str, item: object) -> None:
    _registry(file, key, item)
    if ":" not in str(item):
        raise Invalid(f"{file}: '{key}' must have HOST:PORT, not {item!r}")


_CHECKS = {
    "site_networks": _network,
    "plain_registries": _registry,
    "neighbours": _neighbour,
}
