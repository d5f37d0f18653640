"""What must hold: nothing lost track of, nothing left behind."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from soak.service import Supervised, qemus

SETTLE_S = 60.0
POLL_S = 0.2


def settled(service: Supervised) -> list[str]:
    """Give what is wrong once nobody uses the service; waits until it has had time to clean up."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        wrong = _wrong(service)
        if not wrong or time.monotonic() > deadline:
            return wrong
        time.sleep(POLL_S)


def _wrong(service: Supervised) -> list[str]:
    service.keep_up()
    items = service.ask("machine", "list")
    status = service.ask("host", "status")
    if items is None or status is None:
        return ["the service does not answer"]
    wrong = [
        f"machine {item['id']} is {item['state']} though nobody has it"
        for item in items
        if item["state"] != "standby"
    ]
    listed = {item["id"]: item["pid"] for item in items}
    there = {path.name for path in service.machines}
    wrong += [f"directory {name} is of no machine" for name in sorted(there - set(listed))]
    wrong += [f"machine {name} has no directory" for name in sorted(set(listed) - there)]
    running = set(qemus())
    wrong += [f"QEMU {pid} is of no machine" for pid in sorted(running - set(listed.values()))]
    for item in status["standby"]:
        if item["ready"] < item["wanted"]:
            wrong.append(f"{item['ready']} standbys of {item['wanted']} are ready")
    wrong += [f"{path} was left" for path in _debris(service)]
    return wrong + _strays(service)


def _debris(service: Supervised) -> list[Path]:
    hidden = list(service.top.glob("state/machines/*/.*"))
    homes = service.home / "cache/templates"
    return hidden + [path for path in homes.glob(".*") if path.is_dir()]


def _strays(service: Supervised) -> list[str]:
    """Find helpers of machines that are gone: they know the service's directory by their cwd."""
    main = service.process.pid if service.process is not None else 0
    wrong = []
    for path in Path("/proc").iterdir():
        if not path.name.isdecimal() or int(path.name) in (main, os.getpid()):
            continue
        try:
            words = (path / "cmdline").read_bytes()
        except OSError:
            continue
        # A helper that was forked keeps the arguments of the service.
        if str(service.top).encode() in words and b"serve" in words and not _is_zombie(path):
            wrong.append(f"process {path.name} of the service was left")
    return wrong


def _is_zombie(process: Path) -> bool:
    try:
        return (process / "stat").read_text().rpartition(") ")[2].startswith("Z")
    except OSError:
        return True


def spent(service: Supervised) -> dict[str, float]:
    """Give what the service itself uses now; empty while it does not run."""
    if service.process is None or service.process.poll() is not None:
        return {}
    process = Path(f"/proc/{service.process.pid}")
    try:
        lines = (process / "status").read_text().splitlines()
        files = len(list((process / "fd").iterdir()))
    except OSError:
        return {}
    memory = next((line.split()[1] for line in lines if line.startswith("RssAnon")), "0")
    return {
        "memory_mib": int(memory) / 1024,
        "files": files,
        "machines": len(service.machines),
    }


def append(file: Path, values: dict[str, object]) -> None:
    """Add a line to the record of the run."""
    with open(file, "a", encoding="utf-8") as out:
        out.write(json.dumps(values) + "\n")
