"""The nouns of Mayfly as frozen values; ``docs/reference/glossary.md`` has the words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class NetworkMode(StrEnum):
    """What a machine can reach."""

    NONE = "none"
    RESTRICTED = "restricted"
    """A list of host:port, through a proxy of ours."""
    OPEN = "open"
    """The outside world, but not the host, link-local, private or site networks."""


class State(StrEnum):
    """The states of a machine."""

    WANTED = "wanted"
    STARTING = "starting"
    STANDBY = "standby"
    RUNNING = "running"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    STOPPED = "stopped"
    KEPT = "kept"
    STOPPING = "stopping"
    GONE = "gone"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Who(StrEnum):
    """Whose doing the end of a job was."""

    JOB = "job"
    MAYFLY = "mayfly"
    SITE = "site"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A group of the host, to exist in the machine too."""

    name: str
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The user a job runs as: the same name and numbers inside as outside."""

    name: str
    uid: int
    gid: int
    groups: tuple[Group, ...]
    """All groups, the primary one included."""
    home: str
    shell: str
    all_groups: tuple[str, ...] = ()
    """Names of the groups that the host's databases have him in; for rules, not for machines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The size of a machine."""

    cpus: int
    memory_mib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A bootable disk in the catalogue."""

    name: str
    """With ``@VERSION`` after it when it is not the newest of that name."""
    version: str
    arch: str
    os: str
    sha512: str
    """Of the disk file as it stands in the catalogue."""
    size_bytes: int
    disk_bytes: int
    """Size of the disk that the guest sees."""
    format: str
    """``qcow2`` or ``raw``."""
    created_at: str
    """ISO 8601, UTC."""
    source: str
    """Where it came from, in words: a recipe, a file."""
    disk: Path
    mtime_ns: int
    """Of the disk file when it was admitted; a change means that it was tampered with."""
    endorsed_sha512: str = ""
    """Of the file that the disk was made of, which is what a list vouches for; empty: the disk."""
    derived: tuple[str, ...] = ()
    """What was done to that file, step by step, with the programs' versions."""
    tags: tuple[str, ...] = ()

    @property
    def contents(self) -> tuple[str, ...]:
        """Give what a list may have of it: the SHA-512 of its disk and of what that was made of."""
        return tuple(dict.fromkeys([self.sha512, self.endorsed_sha512 or self.sha512]))

    @property
    def pin(self) -> str:
        """Name just this disk, whatever its name stands for by tomorrow."""
        return pin_of(self.name, self.sha512)


def pin_of(name: str, sha512: str) -> str:
    """Name one disk by its digest; a version that the name has already gives way to it."""
    return f"{name.partition('@')[0]}@sha512:{sha512}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSpec:
    """What is asked for."""

    image: str
    shape: Shape
    disk_mib: int | None
    """How much its disk may grow; None: as the host has it."""
    network: NetworkMode
    allow: tuple[str, ...] = ()
    """host:port pairs that ``restricted`` lets through."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareDir:
    """A directory of the host, at the same path in the machine."""

    path: Path
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended: the content of ``--status-file``."""

    phase: str
    """The step under way: ``template``, ``start``, ``copy-in``, ``job``, ``copy-out``, ``done``."""
    who: Who
    code: int
    """Exit status that ``mayfly run`` gives."""
    reason: str
    machine: str
    image: str = ""
    """The image that was used, as ``NAME@sha512:DIGEST``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str
    """What is there, or what does not work without it."""
    mend: str = ""
    """The exact command that puts it right."""
    needed: bool = True
    """Whether machines cannot run at all without it."""
