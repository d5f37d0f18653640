"""Debian's registry on this host, with or without logins; started for tests and ended with them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAM = shutil.which("docker-registry") or "/usr/bin/docker-registry"
START_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A registry that answers."""

    host: str
    blobs: Path
    """Where its blobs lie."""

    def blob(self, digest: str) -> Path:
        """Give the file of a blob."""
        algorithm, _, digits = digest.partition(":")
        return self.blobs / algorithm / digits[:2] / digits / "data"


@contextmanager
def running(place: Path, auth: str = "") -> Iterator[Running]:
    """Run a registry that keeps all in a directory; ``auth`` is that part of its configuration."""
    place.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = place / "config.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\n"
        f"storage: {{filesystem: {{rootdirectory: {place}/data}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n{auth}"
    )
    with (place / "log").open("wb") as log:
        child = subprocess.Popen(
            [PROGRAM, "serve", str(config)],
            stdout=log,
            stderr=log,
            env={"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"},
        )
        try:
            _wait(child, port, place / "log")
            blobs = place / "data/docker/registry/v2/blobs"
            yield Running(host=f"127.0.0.1:{port}", blobs=blobs)
        finally:
            child.terminate()
            child.wait(30)


def _wait(child: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise AssertionError(f"the registry ended: {log.read_text()}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError(f"the registry does not answer: {log.read_text()}")
