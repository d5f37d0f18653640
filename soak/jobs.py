"""The load: jobs of several users and kinds, each of which knows what must come out."""

from __future__ import annotations

import hashlib
import random
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from soak.service import Supervised, command

USERS = (4101, 4102, 4103)
MAYFLY_FAILED = 125
KILLED = -9
OUTPUT_LINES = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a job does."""

    name: str
    script: str
    code: int
    output: bytes
    stdin: bytes = b""


@dataclass(slots=True, kw_only=True)
class Running:
    """A job under way."""

    kind: Kind
    process: subprocess.Popen[bytes]
    directory: Path
    began: float = field(default_factory=time.monotonic)
    killed: bool = False
    """Whether we ended its client."""

    def verdict(self, kills: Sequence[float]) -> str:
        """Say what was wrong with how it ended; empty when nothing was.

        ``kills`` are the times at which something was killed: only they explain that Mayfly failed.
        """
        code = self.process.returncode
        output = (self.directory / "out").read_bytes()
        if code == self.kind.code:
            return "" if output == self.kind.output else self._wrong("the output is another")
        if code == KILLED and self.killed:
            return ""
        said = (self.directory / "err").read_text("utf-8", "replace")[-600:]
        if code != MAYFLY_FAILED:
            return self._wrong(f"exit status {code}, saying: {said}")
        if not any(kill >= self.began - 5 for kill in kills):
            return self._wrong(f"Mayfly failed though nothing was killed, saying: {said}")
        if not self.kind.output.startswith(output):
            return self._wrong("the output is no beginning of what it should be")
        return ""

    def _wrong(self, what: str) -> str:
        return f"{self.kind.name} job in {self.directory.name}: {what}"


def draw(rng: random.Random, token: str) -> Kind:
    """Draw a job."""
    line = f"{token}\n".encode()
    many = line * OUTPUT_LINES
    blob = hashlib.sha256(token.encode()).digest() * 8192
    kinds = (
        Kind(name="short", script=f"echo {token}", code=0, output=line),
        Kind(name="failing", script=f"echo {token}; exit 7", code=7, output=line),
        Kind(name="long", script=f"echo {token}; sleep 3; echo {token}", code=0, output=2 * line),
        Kind(
            name="output",
            script=f"yes {token} | head -n {OUTPUT_LINES}",
            code=0,
            output=many,
        ),
        Kind(name="input", script="cat; exit 3", code=3, output=blob, stdin=blob),
    )
    return rng.choice(kinds)


def start(service: Supervised, rng: random.Random, number: int) -> Running:
    """Begin a job of some user."""
    token = f"token-{number}-{rng.getrandbits(64):016x}"
    kind = draw(rng, token)
    directory = service.top / "jobs" / f"{number}"
    directory.mkdir(parents=True)
    (directory / "in").write_bytes(kind.stdin)
    uid = rng.choice(USERS)
    network = ["--network", "open"] if rng.random() < 0.2 else []
    words = ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups"]
    words += command("run", "--no-workdir", *network, "debian-12", "--", "sh", "-c", kind.script)
    nowhere = {"HOME": "/nonexistent", "MAYFLY_HOME": "/nonexistent"}
    with (
        open(directory / "in", "rb") as stdin,
        open(directory / "out", "wb") as out,
        open(directory / "err", "wb") as err,
    ):
        process = subprocess.Popen(
            words,
            stdin=stdin,
            stdout=out,
            stderr=err,
            cwd="/",
            env={**service.environment(), **nowhere},
        )
    return Running(kind=kind, process=process, directory=directory)
