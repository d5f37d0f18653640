"""A server that speaks EC2 over a site in memory, on a port of its own, in a process of its own.

usage: python -m tests.unit.ec2.live SOCKET_FD OWNER...     one line of JSON: the users' keys
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parents[3]


class Server(NamedTuple):
    """Where it listens, and a key pair (access key, secret) per user."""

    port: int
    keys: dict[str, tuple[str, str]]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/ec2"


@contextlib.contextmanager
def start_server(*owners: str) -> Iterator[Server]:
    """Start one; it is ready when this returns, since its socket listens before it exists."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        listening.set_inheritable(True)
        number = listening.fileno()
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.unit.ec2.live", str(number), *owners],
            stdout=subprocess.PIPE,
            pass_fds=[number],
            cwd=REPOSITORY,
        )
        port = listening.getsockname()[1]
    assert process.stdout is not None
    try:
        keys = {owner: (a, b) for owner, (a, b) in json.loads(process.stdout.readline()).items()}
        yield Server(port, keys)
    finally:
        process.terminate()
        process.stdout.close()
        process.wait(30)


def main() -> None:
    """Serve until told to stop."""
    import uvicorn

    from mayfly.ec2.app import App
    from tests.unit.ec2 import calls

    number, *owners = sys.argv[1:]
    made = calls.memory(clock=None)
    made._clock = lambda: datetime.now(UTC)
    issued = {owner: calls.VAULT.issue(owner, datetime.now(UTC)) for owner in owners}
    for each in issued.values():
        made.add_credential(each.credential)
    shown = {owner: (each.credential.access_key, each.secret) for owner, each in issued.items()}
    print(json.dumps(shown), flush=True)
    os.dup2(2, 1)
    config = uvicorn.Config(App(calls.service(made)), log_level="warning", ws="none")
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(number))])


if __name__ == "__main__":
    main()
