"""What root has registered for each batch job: which machine its user may have, and until when.

A right is one JSON file in a directory of root's, so it survives the service; rights from before a
reboot are those of jobs that are gone, and are removed. Its age is counted since boot, so that a
clock that is set ends no job.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mayfly.errors import Conflict, Denied, Failed, Invalid, Missing, Quota
from mayfly.model import Shape

if TYPE_CHECKING:
    # Each job's registration imports this module, and has no use for that one.
    from mayfly.host.limits import Held

RIGHT_FORMAT = 1
GRACE_S = 300.0
"""How long a right outlives its job's wall time: batch systems are not punctual."""
MOST = 10_000
"""Rights at once."""
CGROUPS = Path("/sys/fs/cgroup")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
CPUS_MOST = 4096
MEMORY_MOST_MIB = 1 << 24
WALL_MOST_S = 10 * 365 * 86_400.0
CREATED_MOST = float(1 << 40)
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+\[\]-]{0,63}")
_FEATURE = re.compile(r"[a-z0-9_]{1,64}")
_FEATURES_MOST = 64
_VALUE_LENGTH = 200
_JOIN = "%"
"""Between the parts of a key in the name of its file: no part has it."""
_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """What the user of one job may have."""

    key: str
    """``cluster/job/step``."""
    uid: int
    cpus: int
    memory_mib: int
    """All that the job was granted, QEMU's own memory included."""
    wall_s: float = 0.0
    """0: it ends only when it is unregistered."""
    image: str = ""
    """The only image that it may be; empty: any."""
    cgroup: str = ""
    """Where its QEMU belongs, from the top of the cgroup tree; empty: nowhere.

    Of a shared one: the job's own, in which those of its steps are.
    """
    shared: bool = False
    """Whether all processes of the job share its machine, which then ends with the right."""
    machines: int = 1
    """Machines at once."""
    queue: str = ""
    """Of the batch system: the site's policy may speak of it."""
    scratch_mib: int = 0
    """Disk that the job was granted; 0: not said."""
    machine_features: Mapping[str, str] = field(default_factory=lambda: _NONE)
    """Values that root knows better than we: ``hs06``, ``shutdowntime``."""
    job_features: Mapping[str, str] = field(default_factory=lambda: _NONE)
    identity: Mapping[str, str] = field(default_factory=lambda: _NONE)
    """What tells it from others of its number: ``array_task``, ``restart``, ``submitted_at``."""
    created_at: float = 0.0
    """Seconds since the epoch."""

    def same_as(self, other: Right) -> bool:
        """Tell whether another one says the same, whenever it was made."""
        return _content(self) == _content(other)


def _content(right: Right) -> dict[str, Any]:
    plain = {item.name: getattr(right, item.name) for item in fields(right)}
    del plain["created_at"]
    return {name: dict(value) if _is_map(value) else value for name, value in plain.items()}


def _is_map(value: object) -> bool:
    return isinstance(value, Mapping)


# --- reading one ---------------------------------------------------------------------------------


def check_key(key: str) -> str:
    """Give a key that is one; raises ``Invalid``."""
    parts = key.split("/")
    if len(parts) != 3 or not all(_PART.fullmatch(part) for part in parts):
        raise Invalid(
            f"{key[:200]!r} is no key of a job",
            hint="write CLUSTER/JOB/STEP, each of letters, digits and _.:+-[]",
        )
    return key


def parse_right(values: Mapping[str, Any], *, created_at: float) -> Right:
    """Read what root registers; unknown fields are ignored. Raises ``Invalid``."""
    key = _text(values, "key")
    return Right(
        key=check_key(key),
        # -1 is nobody.
        uid=_whole(values, "uid", 0, (1 << 32) - 2),
        cpus=_whole(values, "cpus", 1, CPUS_MOST),
        memory_mib=_whole(values, "memory_mib", 1, MEMORY_MOST_MIB),
        wall_s=_seconds(values, "wall_s", WALL_MOST_S),
        image=_text(values, "image"),
        cgroup=_cgroup(values),
        shared=_flag(values, "shared"),
        machines=_whole(values, "machines", 1, 1000, default=1),
        queue=_text(values, "queue"),
        scratch_mib=_whole(values, "scratch_mib", 0, 1 << 40, default=0),
        machine_features=_features(values, "machine_features"),
        job_features=_features(values, "job_features"),
        identity=_features(values, "identity"),
        created_at=created_at,
    )


def _text(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key, "")
    if not isinstance(value, str) or len(value) > 1000 or not value.isprintable():
        raise Invalid(f"the right's '{key}' must be a text, not {str(value)[:100]!r}")
    return value


def _whole(
    values: Mapping[str, Any], key: str, least: int, most: int, *, default: int | None = None
) -> int:
    value = values.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise Invalid(
            f"the right's '{key}' must be a whole number from {least} to {most}, "
            f"not {str(value)[:100]!r}"
        )
    return value


def _flag(values: Mapping[str, Any], key: str) -> bool:
    value = values.get(key, False)
    if not isinstance(value, bool):
        raise Invalid(f"the right's '{key}' must be true or false, not {str(value)[:100]!r}")
    return value


def _seconds(values: Mapping[str, Any], key: str, most: float) -> float:
    value = values.get(key, 0)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    # What is no number at all (NaN) is not between any two.
    if not number or not 0 <= value <= most:
        raise Invalid(f"the right's '{key}' must be seconds, not {str(value)[:100]!r}")
    return float(value)


def _cgroup(values: Mapping[str, Any]) -> str:
    path = _text(values, "cgroup")
    if path and (not path.startswith("/") or {".", "..", ""} & set(path[1:].split("/"))):
        raise Invalid(
            f"the right's 'cgroup' must be a path from the top of the cgroup tree, not {path!r}",
            hint="write it as in /proc/PID/cgroup: /slurm/uid_1000/job_5/step_extern",
        )
    return path


def _features(values: Mapping[str, Any], key: str) -> Mapping[str, str]:
    given = values.get(key, {})
    if not isinstance(given, Mapping) or len(given) > _FEATURES_MOST:
        raise Invalid(f"the right's '{key}' must be an object of at most {_FEATURES_MOST} texts")
    for name, value in given.items():
        named = isinstance(name, str) and _FEATURE.fullmatch(name)
        if not named or not isinstance(value, str) or len(value) > _VALUE_LENGTH:
            raise Invalid(f"the right's '{key}' cannot have {str(name)[:100]!r}")
        if not value.isprintable():
            raise Invalid(f"the right's '{key}': {name} must be one line")
    return MappingProxyType(dict(given))


# --- all of them ---------------------------------------------------------------------------------


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Rights:
    """The rights of this host, in memory and on disk."""

    def __init__(
        self,
        directory: Path,
        *,
        overhead_mib: int,
        clock: Callable[[], float] = _since_boot,
        boot_id: str | None = None,
    ) -> None:
        self._directory = directory
        self._overhead_mib = overhead_mib
        self._clock = clock
        self._boot_id = BOOT_ID.read_text().strip() if boot_id is None else boot_id
        self._rights: dict[str, Right] = {}
        self._began: dict[str, float] = {}
        """When each was registered, by the clock."""

    def load(self) -> list[str]:
        """Read what was written before; gives what could not be read, for people.

        Raises ``Failed`` when the directory itself cannot be made or read.
        """
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            files = sorted(self._directory.iterdir())
        except OSError as error:
            raise Failed(f"cannot read the rights in {self._directory}: {error}") from error
        warnings = []
        for file in files:
            try:
                self._read(file)
            except (OSError, ValueError, Invalid, RecursionError) as error:
                warnings.append(f"{file} is no right and is ignored: {error}")
        return warnings

    def _read(self, file: Path) -> None:
        """Read one file; what an unfinished write or an earlier boot has left is removed."""
        if file.name.startswith(".new-"):
            file.unlink()
            return
        values = json.loads(file.read_text("utf-8"))
        if not isinstance(values, dict):
            raise Invalid("it holds no object")
        right = parse_right(values, created_at=_seconds(values, "created_at", CREATED_MOST))
        began = _seconds(values, "began_s", CREATED_MOST)
        if file.name != _file_name(right.key):
            raise Invalid(f"it holds the right of {right.key}")
        if values.get("boot_id") != self._boot_id:
            file.unlink()
            return
        self._rights[right.key] = right
        self._began[right.key] = began

    def all(self) -> list[Right]:
        """Give all rights, oldest first."""
        return sorted(self._rights.values(), key=lambda right: (right.created_at, right.key))

    def find(self, key: str) -> Right | None:
        """Give the right of a job."""
        return self._rights.get(key)

    def register(self, right: Right) -> bool:
        """Take a right in; gives false when just that one was there already.

        Raises ``Conflict`` when the key has another right, ``Quota`` when it cannot be written.
        """
        check_key(right.key)
        known = self._rights.get(right.key)
        if known is not None and known.same_as(right):
            return False
        if known is not None:
            raise Conflict(
                f"job {right.key} is registered already, with something else",
                hint=f"'mayfly host unregister {right.key}' first",
            )
        if len(self._rights) >= MOST:
            raise Quota(f"{len(self._rights)} jobs are registered, at most {MOST} may be")
        began = self._clock()
        self._write(right, began)
        self._rights[right.key] = right
        self._began[right.key] = began
        return True

    def _write(self, right: Right, began: float) -> None:
        values = {**_content(right), "created_at": right.created_at, "began_s": began}
        text = json.dumps({"format": RIGHT_FORMAT, "boot_id": self._boot_id, **values})
        name = _file_name(right.key)
        fresh = self._directory / f".new-{name}"
        try:
            fresh.write_text(text)
            fresh.chmod(0o600)
            fresh.replace(self._directory / name)
        except OSError as error:
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise Quota(
                f"cannot write the right of job {right.key} in {self._directory}: {error.strerror}",
                hint="free some space there",
            ) from error

    def unregister(self, key: str) -> bool:
        """Remove a right; gives false when there is none: an epilog may run twice.

        Raises ``Failed`` when its file cannot be removed.
        """
        check_key(key)
        try:
            (self._directory / _file_name(key)).unlink(missing_ok=True)
        except OSError as error:
            raise Failed(f"cannot remove the right of job {key}: {error}") from error
        self._began.pop(key, None)
        return self._rights.pop(key, None) is not None

    def expired(self) -> list[str]:
        """Give the keys of the rights whose time is over."""
        return [right.key for right in self.all() if self._is_over(right)]

    def _is_over(self, right: Right) -> bool:
        over_at = self._began[right.key] + right.wall_s + GRACE_S
        return right.wall_s > 0 and self._clock() >= over_at

    def check(self, uid: int, key: str, *, image: str, shape: Shape, held: Sequence[Held]) -> Right:
        """Give the right by which a user may have one more machine; ``held``: those it has already.

        Raises ``Missing`` (no such job), ``Denied`` (not this user, image, or not any more) or
        ``Quota`` (more than is left of it).
        """
        right = self._rights.get(key)
        if right is None:
            raise Missing(
                f"no job {key[:200]!r} is registered on this host",
                hint="the batch system's prolog registers jobs: its log tells why it did not",
            )
        if right.uid != uid:
            raise Denied(f"job {key} is not yours")
        if self._is_over(right):
            raise Denied(f"the time of job {key} is over")
        if right.image and right.image != image:
            raise Denied(f"job {key} may have machines of '{right.image}', not of '{image}'")
        self._check_room(right, shape, held)
        return right

    def _check_room(self, right: Right, shape: Shape, held: Sequence[Held]) -> None:
        if len(held) >= right.machines:
            raise Quota(f"job {right.key} has {len(held)} of {right.machines} machines already")
        cpus = right.cpus - sum(each.need.cpus for each in held)
        if shape.cpus > cpus:
            raise Quota(
                f"job {right.key} was granted {right.cpus} CPUs, {cpus} of them are free; "
                f"the machine wants {shape.cpus}"
            )
        memory = right.memory_mib - sum(each.need.memory_mib for each in held)
        if shape.memory_mib + self._overhead_mib > memory:
            raise Quota(
                f"job {right.key} was granted {right.memory_mib} MiB of memory, {memory} MiB are "
                f"free; the machine wants {shape.memory_mib} MiB and {self._overhead_mib} MiB for "
                f"QEMU itself",
                hint="ask the batch system for more, or Mayfly for a smaller machine",
            )


def _file_name(key: str) -> str:
    return key.replace("/", _JOIN) + ".json"


# --- the job's cgroup ----------------------------------------------------------------------------


def put_into_cgroup(pid: int, cgroup: str, *, top: Path = CGROUPS) -> None:
    """Move a process into a job's cgroup, in each hierarchy that has it.

    Memory that it has touched already stays charged where it was. Raises ``Failed`` when the
    cgroup is nowhere, or does not take it.
    """
    tops = [top] if (top / "cgroup.controllers").exists() else sorted(top.glob("*/"))
    places = [each / cgroup.lstrip("/") / "cgroup.procs" for each in tops]
    there = [place for place in places if place.exists()]
    if not there:
        raise Failed(f"the job's cgroup {cgroup} is not there: the job has ended")
    for place in there:
        try:
            place.write_text(str(pid))
        except OSError as error:
            raise Failed(f"cannot put process {pid} into {place}: {error.strerror}") from error
