"""Whether a guest that ran elsewhere finds its CPU here."""

from __future__ import annotations

from typing import Any

import pytest

from mayfly.engine.hostcpu import cpu_of, lacking
from tests.unit.engine.qmp import monitored

THERE: dict[str, Any] = {
    "sse2": True,
    "avx512f": False,
    "vendor": "AuthenticAMD",
    "family": 25,
    "model": 1,
    "stepping": 2,
}


@pytest.mark.parametrize("accelerator", ["tcg", "kvm"])
@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({}, []),
        ({"avx512f": True, "new": True, "stepping": 9}, []),
        ({"sse2": False}, ["sse2"]),
        ({"sse2": None}, ["sse2"]),
        ({"sse2": 1}, ["sse2"]),
    ],
)
def test_more_is_no_harm_and_less_is(
    accelerator: str, changes: dict[str, object], missing: list[str]
) -> None:
    assert lacking(THERE, {**THERE, **changes}, accelerator) == missing


@pytest.mark.parametrize("name", ["vendor", "family", "model"])
def test_another_make_is_another_cpu_only_when_it_is_real(name: str) -> None:
    other = {**THERE, name: "other"}
    assert lacking(THERE, other, "tcg") == []
    assert lacking(THERE, other, "kvm") == [f"{name} {THERE[name]}"]


def test_what_no_cpu_has_is_not_missed() -> None:
    assert lacking({**THERE, "pcommit": True}, THERE, "tcg") == []


@pytest.mark.parametrize(("accelerator", "model"), [("kvm", "host"), ("tcg", "max")])
def test_qemu_is_asked_for_all_that_it_can_do(accelerator: str, model: str) -> None:
    with monitored() as (qmp, monitor):
        qmp.tell("query-cpu-model-expansion", {"model": {"name": "base", "props": THERE}})
        assert cpu_of(monitor, accelerator) == THERE
        assert qmp.asked[0][1] == {"type": "static", "model": {"name": model}}
