"""What a task's machine has used, in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from mayfly.batch.gridengine.used import ask_used, used_words
from mayfly.batch.settings import BatchSettings


def test_all_that_is_known_is_said() -> None:
    event = {
        "cpu_s": 2.41,
        "memory_peak_bytes": 210 << 20,
        "disk_bytes": 3 << 20,
        "start_ms": {"clone": 110.4, "claim": 20.2},
    }
    assert used_words(event) == (
        "the machine used 2.4 s of CPU, memory at most 210 MiB, disk 3.0 MiB, "
        "start: clone 110 ms claim 20 ms"
    )


@pytest.mark.parametrize(
    "event", [{}, {"cpu_s": "much"}, {"cpu_s": True}, {"disk_bytes": -1}, {"start_ms": [1]}]
)
def test_nonsense_is_nothing(event: dict[str, object]) -> None:
    assert used_words(event) == ""


def test_without_a_service_nothing_is_known() -> None:
    assert ask_used("default/7/0", BatchSettings(socket=Path("/nonexistent/sock"))) == ()
