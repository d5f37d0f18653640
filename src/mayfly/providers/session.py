"""Sessions in machines of the host service, each in a process of its own that the server starts.

usage: session SOCKET launch|finish|reach MACHINE-OR-KEY

``launch`` claims a machine (the order comes as JSON on standard input) and makes it ready;
``finish`` makes one ready that is there already; both print JSON. ``reach`` makes standard input
and output a connection to the machine's ssh server. An error is JSON on standard error, status 1.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from mayfly.command import run
from mayfly.engine.agentdisk import MOUNT
from mayfly.engine.jobs import Steps
from mayfly.engine.session.job import JobRequest, JobResult, Stdio
from mayfly.errors import Failed, MayflyError, Missing, refusal
from mayfly.host import client, protocol
from mayfly.host.claiming import claim_request
from mayfly.host.run import Claimed, claim
from mayfly.providers.inside import DIRECTORY, PORT, PREPARE, RELAY

DROPBEAR, DROPBEARKEY = "/usr/sbin/dropbear", "/usr/bin/dropbearkey"
TOOL_LIMIT_S = 20.0
PREPARE_LIMIT_S = 120.0
_PYTHON = (
    "/bin/sh",
    "-c",
    f'exec {MOUNT}/lib/ld-linux* --library-path {MOUNT}/lib {MOUNT}/bin/python3 -S -s -c "$@"',
    "python3",
)
"""The guest's shell only finds the loader's name: the disk was made on another day."""


def main() -> None:
    """Do one thing with a machine."""
    socket_path, verb, name = sys.argv[1:4]
    try:
        sys.exit(_VERBS[verb](Path(socket_path), name))
    except (MayflyError, OSError) as error:
        known = refusal(error) if isinstance(error, OSError) else error
        print(json.dumps(protocol.error_message(known)), file=sys.stderr)
        sys.exit(1)


def _launch(socket_path: Path, key: str) -> int:
    order = json.load(sys.stdin)
    with closing(client.require(socket_path)) as connection, ExitStack() as stack:
        fields = {"outlive": True, "user": order["user"], "lease": key, "root": True}
        request = claim_request(
            image=order["image"],
            size=(order["cpus"], order["memory_mib"]),
            network=order["network"],
            label=f"lease {key}",
            **fields,
        )
        connection.ask("claim", request)
        claimed = claim(connection, _quiet(), stack)
        return _prepare(claimed, order)


def _finish(socket_path: Path, machine: str) -> int:
    order = json.load(sys.stdin)
    with closing(client.require(socket_path)) as connection, ExitStack() as stack:
        connection.ask("enter", {"machine": machine})
        return _prepare(claim(connection, _quiet(), stack), order, machine)


def _reach(socket_path: Path, machine: str) -> int:
    with closing(client.require(socket_path)) as connection, ExitStack() as stack:
        connection.ask("enter", {"machine": machine})
        claimed = claim(connection, _quiet(), stack)
        request = _request((*_PYTHON, RELAY, str(PORT)), time_limit_s=None)
        result = _run(claimed, request, Stdio())
    return 0 if result.code == 0 else 1


def _prepare(claimed: Claimed, order: dict[str, Any], machine: str = "") -> int:
    files = _ssh_server()
    header = {
        "directory": DIRECTORY,
        "port": PORT,
        "user": order["user"],
        "keys": order["ssh_keys"],
        "loader": next(name for name in files if name.startswith("ld-linux")),
        "files": [[name, len(data)] for name, data in files.items()],
    }
    with (
        tempfile.TemporaryFile() as source,
        tempfile.TemporaryFile() as output,
        tempfile.TemporaryFile() as complaints,
    ):
        source.write(json.dumps(header).encode() + b"\n" + b"".join(files.values()))
        source.seek(0)
        stdio = Stdio(stdin=source.fileno(), stdout=output.fileno(), stderr=complaints.fileno())
        request = _request((*_PYTHON, PREPARE), time_limit_s=PREPARE_LIMIT_S)
        result = _run(claimed, request, stdio)
        for file in (output, complaints):
            file.seek(0)
        if result.code != 0:
            said = complaints.read(4000).decode("utf-8", "replace").strip()
            raise Failed(f"the machine could not be made ready: {said or result.reason}")
        words = json.loads(output.read(65536))
    keys = [str(each)[:200] for each in words["host_keys"]]
    print(json.dumps({"id": machine or claimed.id, "host_keys": keys}))
    return 0


def _ssh_server() -> dict[str, bytes]:
    """Give the ssh server, and all that it needs to run beside any C library."""
    found: dict[str, bytes] = {}
    for program in (DROPBEAR, DROPBEARKEY):
        if not os.path.exists(program):
            raise Missing(f"there is no {program}", hint="apt-get install dropbear-bin")
        found[os.path.basename(program)] = Path(program).read_bytes()
        listed = run(["ldd", program], timeout_s=TOOL_LIMIT_S).text()
        libraries = [word for word in listed.split() if word.startswith("/")]
        found |= {os.path.basename(word): Path(word).read_bytes() for word in libraries}
    return found


def _request(argv: tuple[str, ...], *, time_limit_s: float | None) -> JobRequest:
    return JobRequest(
        argv=argv,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONHOME": MOUNT},
        cwd="/",
        umask=0o022,
        limits={},
        root=True,
        tty=False,
        workdir=None,
        time_limit_s=time_limit_s,
    )


def _run(claimed: Claimed, request: JobRequest, stdio: Stdio) -> JobResult:
    from mayfly.engine.session.run import run_job  # noqa: PLC0415 - after the claim was sent

    return run_job(
        claimed.session, request, stdio, machine_gone=claimed.gone, report=lambda text: None
    )


def _quiet() -> Steps:
    return Steps(report=lambda text: None, note=lambda text: None)


_VERBS = {"launch": _launch, "finish": _finish, "reach": _reach}

if __name__ == "__main__":
    main()
