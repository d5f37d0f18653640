"""What the soak finds wrong when something is wrong."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from soak import holds
from soak import service as soak_service
from soak.jobs import Kind, Running, draw
from soak.main import main
from soak.plot import draw as draw_plot
from soak.service import Supervised
from soak.stay import size_of
from tests.integration.waiting import wait_until

TOKEN = "token-1"
KIND = Kind(name="failing", script="", code=7, output=b"token-1\n")


def ended(folder: Path, script: str, *, killed: bool = False) -> Running:
    """Give a job whose client did this instead."""
    with open(folder / "out", "wb") as out, open(folder / "err", "wb") as err:
        process = subprocess.Popen(["sh", "-c", script], stdout=out, stderr=err)
        process.wait()
    return Running(kind=KIND, process=process, directory=folder, killed=killed)


def test_a_job_that_ended_as_it_should_is_right(tmp_path: Path) -> None:
    assert ended(tmp_path, "echo token-1; exit 7").verdict([]) == ""


WRONG = {
    "echo token-1; exit 0": "exit status 0",
    "echo other; exit 7": "the output is another",
    "exit 7": "the output is another",
    "echo token-1; echo why >&2; exit 125": "Mayfly failed though nothing was killed, saying: why",
    "echo token-1; kill -9 $$": "exit status -9",
}


@pytest.mark.parametrize("script", WRONG)
def test_any_other_end_is_wrong(tmp_path: Path, script: str) -> None:
    assert WRONG[script] in ended(tmp_path, script).verdict([])


def test_a_kill_explains_that_mayfly_failed_and_nothing_else(tmp_path: Path) -> None:
    kills = [time.monotonic()]
    assert ended(tmp_path, "exit 125").verdict(kills) == ""
    assert "no beginning" in ended(tmp_path, "echo other; exit 125").verdict(kills)
    assert "exit status 3" in ended(tmp_path, "exit 3").verdict(kills)
    long_ago = [time.monotonic() - 60]
    assert "nothing was killed" in ended(tmp_path, "exit 125").verdict(long_ago)


def test_a_client_that_was_killed_may_end_so(tmp_path: Path) -> None:
    assert ended(tmp_path, "kill -9 $$", killed=True).verdict([]) == ""


@pytest.mark.parametrize("seed", range(20))
def test_each_job_does_what_it_says(seed: int) -> None:
    kind = draw(random.Random(seed), TOKEN)
    script = kind.script.replace("sleep 3", ":")
    done = subprocess.run(["sh", "-c", script], check=False, input=kind.stdin, capture_output=True)
    assert (done.returncode, done.stdout) == (kind.code, kind.output)


# --- what must hold ------------------------------------------------------------------------------


class Answers:
    """A service that says what it is told to."""

    def __init__(self, top: Path) -> None:
        self.supervised = Supervised(home=top / "home", top=top)
        self.items: list[dict[str, object]] = []
        self.ready = 2

    def ask(self, *words: str, timeout_s: float = 0) -> object:
        """Answer ``machine list`` or ``host status``."""
        if words[0] == "machine":
            return self.items
        return {"standby": [{"ready": self.ready, "wanted": 2}]}


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answers:
    """A service at peace."""
    found = Answers(tmp_path)
    (tmp_path / "home/cache/templates").mkdir(parents=True)
    monkeypatch.setattr(holds, "SETTLE_S", 0.0)
    monkeypatch.setattr(Supervised, "keep_up", lambda _: None)
    monkeypatch.setattr(
        Supervised, "ask", lambda _, *words, timeout_s=0: found.ask(*words, timeout_s=timeout_s)
    )
    monkeypatch.setattr(holds, "qemus", list)
    return found


def test_a_service_at_peace_has_nothing_wrong(answers: Answers) -> None:
    assert holds.settled(answers.supervised) == []


def test_a_machine_that_nobody_has_is_found(answers: Answers, tmp_path: Path) -> None:
    answers.items = [{"id": "abcdefgh", "state": "running", "pid": 1}]
    (tmp_path / "state/machines/host/abcdefgh").mkdir(parents=True)
    assert holds.settled(answers.supervised) == ["machine abcdefgh is running though nobody has it"]


def test_what_was_left_is_found(
    answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state/machines/host/abcdefgh").mkdir(parents=True)
    (tmp_path / "state/machines/host/.gone-x").mkdir(parents=True)
    monkeypatch.setattr(holds, "qemus", lambda: [4711])
    answers.ready = 1
    config = str(tmp_path / "host.toml")
    stray = subprocess.Popen(
        [sys.executable, "-c", "input()", "host", "serve", "--config", config],
        stdin=subprocess.PIPE,
    )
    words = Path(f"/proc/{stray.pid}/cmdline")
    try:
        wait_until(lambda: config.encode() in words.read_bytes(), "the process to be another")
        assert holds.settled(answers.supervised) == [
            "directory abcdefgh is of no machine",
            "QEMU 4711 is of no machine",
            "1 standbys of 2 are ready",
            f"{tmp_path}/state/machines/host/.gone-x was left",
            f"process {stray.pid} of the service was left",
        ]
    finally:
        stray.communicate(b"\n")


def test_a_service_that_does_not_answer_is_wrong(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Supervised, "ask", lambda *_, **__: None)
    assert holds.settled(answers.supervised) == ["the service does not answer"]


def test_a_service_that_cannot_start_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak_service, "CONFIG", "nonsense")
    with (
        pytest.raises(RuntimeError, match=r"the service ended: .*is not TOML"),
        soak_service.supervised(tmp_path, tmp_path),
    ):
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_handlers_of_signals_are_as_before(tmp_path: Path, number: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(SystemExit):
        main(["--kills", "many", "--out", str(tmp_path)])
    assert signal.getsignal(number) is before


def test_the_size_of_a_directory_of_which_parts_go_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stays").write_bytes(b"x" * 10_000)
    (tmp_path / "goes").mkdir()
    (tmp_path / "goes/file").write_bytes(b"x")
    scandir = os.scandir

    def scandir_late(path: str) -> object:
        if str(path).endswith("goes"):
            (tmp_path / "goes/file").unlink()
            (tmp_path / "goes").rmdir()
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scandir_late)
    assert 10_000 <= size_of(tmp_path) < 20_000
    assert not (tmp_path / "goes").exists()


def test_a_record_is_drawn(tmp_path: Path) -> None:
    rows = [
        {"minute": n / 6, "memory_mib": 15.0, "files": 30 + n, "start_s": n or None}
        for n in range(5)
    ]
    record = tmp_path / "record.jsonl"
    record.write_text("\n".join(map(json.dumps, rows)))
    draw_plot(record, tmp_path / "soak.svg", "5 kills")
    lines = [one for one in ET.parse(tmp_path / "soak.svg").iter() if one.tag.endswith("polyline")]
    assert [len(str(line.get("points")).split()) for line in lines] == [5, 5, 4]
