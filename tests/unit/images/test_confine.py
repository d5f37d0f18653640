"""A confined child has little, may little, and ends."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from mayfly.errors import Failed, Invalid, Quota, Untrusted
from mayfly.images.confine import Bounds, Tell, confined
from mayfly.units import MIB

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def ask(work: Any, **words: Any) -> Any:
    return confined(lambda tell: work(), what="it", keep=words.pop("keep", ()), **words)


def test_the_answer_comes_back_and_progress_before_it() -> None:
    seen: list[tuple[str, float | None]] = []

    def work(tell: Tell) -> dict[str, int]:
        tell("layers", 0.5)
        return {"a": 1}

    answer = confined(work, what="it", keep=(), report=lambda *told: seen.append(told))
    assert (answer, seen) == ({"a": 1}, [("layers", 0.5)])


def test_an_error_comes_back_as_it_was() -> None:
    def work() -> None:
        raise Untrusted("tampered", hint="do not")

    with pytest.raises(Untrusted, match="tampered") as caught:
        ask(work)
    assert caught.value.hint == "do not"


def test_it_has_no_files_but_those_given(tmp_path: Path) -> None:
    with (tmp_path / "a").open("w") as given, (tmp_path / "b").open("w") as other:
        found = ask(lambda: sorted(map(int, os.listdir("/proc/self/fd"))), keep=(given.fileno(),))
        assert given.fileno() in found
        assert other.fileno() not in found


def status() -> dict[str, str]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


@as_root
def test_it_has_no_rights_of_root() -> None:
    found = ask(status)
    assert found["Uid"].split() == ["65534"] * 4
    assert found["Gid"].split() == ["65534"] * 4
    assert found["Groups"].strip() == ""
    assert int(found["CapEff"], 16) == int(found["CapPrm"], 16) == 0
    assert found["NoNewPrivs"].strip() == "1"


@as_root
def test_it_has_no_network_and_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "word")

    assert ask(lambda: [name for _, name in socket.if_nameindex()]) == ["lo"]
    assert "SECRET" not in ask(lambda: list(os.environ))


def test_it_is_stopped_at_its_bounds(tmp_path: Path) -> None:
    def burn() -> None:
        while True:
            pass

    def write() -> None:
        os.write(target.fileno(), bytes(5 * MIB))
        os.write(target.fileno(), b"more")

    with pytest.raises(Quota, match="CPU time"):
        ask(burn, bounds=Bounds(cpu_s=1))
    with pytest.raises(Quota, match="memory"):
        ask(lambda: len(bytes(900 * MIB)), bounds=Bounds(memory_bytes=600 * MIB))
    with pytest.raises(Quota, match="in time"):
        ask(lambda: time.sleep(60), bounds=Bounds(wall_s=0.2))
    with (tmp_path / "a").open("wb") as target, pytest.raises(Quota, match="writes more than"):
        ask(write, keep=(target.fileno(),), bounds=Bounds(file_bytes=4 * MIB))
    assert (tmp_path / "a").stat().st_size == 4 * MIB


def test_one_that_dies_is_a_failure_and_one_that_is_too_deep_is_not() -> None:
    def deep(level: int) -> int:
        return deep(level + 1)

    with pytest.raises(Failed, match="without a word"):
        ask(lambda: os.kill(os.getpid(), signal.SIGSEGV))
    with pytest.raises(Invalid, match="nested"):
        ask(lambda: deep(0))


def test_what_it_started_ends_with_it() -> None:
    pid = ask(lambda: os.posix_spawnp("sleep", ["sleep", "600"], os.environ))
    deadline = time.monotonic() + 10
    while _is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _is_running(pid)


def _is_running(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"
