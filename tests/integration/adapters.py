"""Batch systems whose daemons cannot be had: what they would call is called as they would do it.

Host service, programs, users and machines are real; only the daemon is missing.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mayfly import __file__ as code
from tests.integration.host import IMAGE, Host, host_of, policy_of_queue
from tests.integration.people import Someone, somebody
from tests.integration.slurm import home_with_policy
from tests.integration.waiting import wait_until

JOB_LIMIT_S = 90
HOST_SETTINGS = f"""\
requests = "registered"
[[standby]]
image = "{IMAGE}"
least = 1
most = 1
"""
POLICY = policy_of_queue("virt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A host that gives machines to registered jobs, and a user."""

    host: Host
    user: Someone
    top: Path
    """Where the batch system's own files would be."""

    @property
    def work(self) -> Path:
        """A directory of the user's."""
        return self.user.home / "work"

    @property
    def programs(self) -> Path:
        """Where our programs are put."""
        return self.top / "programs"

    def set(self, **settings: object) -> None:
        """Say what is in ``batch.toml``."""
        values = {"socket": str(self.host.socket), "live": [str(self.user.home)], **settings}
        lines = [f"{name} = {json.dumps(value)}\n" for name, value in values.items()]
        (self.top / "batch.toml").write_text("".join(lines))

    def tool(self, name: str, body: str) -> None:
        """Put a stand-in for one of the batch system's commands into the way."""
        directory = self.top / "tools"
        directory.mkdir(exist_ok=True)
        (directory / name).write_text(f"#!/bin/sh\n{body}")
        (directory / name).chmod(0o755)

    def mayfly(self, *words: str, **env: str) -> str:
        """Run ``mayfly batch`` as root; gives all that it said."""
        command, system, *rest = words
        places = [f"--programs={self.programs}", f"--config={self.top}/batch.toml"]
        done = subprocess.run(
            [*self.host.argv("batch", command, system), *places, *rest],
            env={
                **os.environ,
                "MAYFLY_HOME": str(self.host.home),
                "PATH": f"{self.top}/tools:{os.environ['PATH']}",
                **env,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=JOB_LIMIT_S,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def call(
        self, program: Path, *words: str, env: Mapping[str, str] | None = None, told: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        """Call a program as root, with the environment that is given and no other."""
        return _run([str(program), *words], env or {}, told)

    def as_user(
        self, argv: Sequence[str], env: Mapping[str, str], told: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        """Call a program as the job's user, in his directory."""
        ids = [f"--reuid={self.user.uid}", f"--regid={self.user.uid}", "--clear-groups"]
        own = {"HOME": str(self.user.home), "USER": self.user.name, "PATH": "/usr/bin:/bin"}
        return _run(["setpriv", *ids, *argv], {**own, **env}, told, cwd=self.work)

    def nothing_left(self) -> None:
        """Wait until no job has a machine or a right; and no ticket."""
        rights = self.host.state / "rights"
        wait_until(
            lambda: self.host.machines() == [] and list(rights.iterdir()) == [],
            "the machines and rights to go",
        )
        tickets = self.host.socket.parent / "tickets"
        assert not tickets.exists() or list(tickets.iterdir()) == []


def _run(
    argv: Sequence[str], env: Mapping[str, str], told: bytes, cwd: Path = Path("/")
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        argv, env=env, cwd=cwd, input=told, capture_output=True, check=False, timeout=JOB_LIMIT_S
    )


@contextlib.contextmanager
def site_of(warm_home: Path) -> Iterator[Site]:
    """Give a site; nothing of it is there afterwards."""
    with (
        home_with_policy(warm_home) as home,
        somebody("mayfly-ada") as user,
        tempfile.TemporaryDirectory(prefix="mayfly-adapter-", dir="/var/tmp") as name,
    ):
        (home / "policy.toml").write_text(POLICY)
        with host_of(home, HOST_SETTINGS) as host:
            top = Path(name)
            top.chmod(0o755)
            site = Site(host=host, user=user, top=top)
            site.set()
            site.work.mkdir()
            os.chown(site.work, user.uid, user.uid)
            host.refilled(1)
            yield site


def own_code() -> Path:
    """Give the directory of Mayfly's modules."""
    return Path(code).resolve().parents[1]


PYTHON = sys.executable
