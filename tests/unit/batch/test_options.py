"""The same options on every batch system."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from mayfly.batch.spelling import options_in, spelled
from mayfly.batch.systems import SYSTEMS
from mayfly.batch.wish import OPTIONS
from mayfly.cli.batch import batch


@pytest.mark.parametrize("system", SYSTEMS)
def test_each_system_has_each_option(system: str) -> None:
    done = CliRunner().invoke(batch, ["options", system, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert {one["system"] for one in told} == {system}
    spellings = " ".join(one["option"].lower() for one in told)
    for name in OPTIONS:
        assert name in spellings, name


def test_all_are_shown_at_once() -> None:
    lines = CliRunner().invoke(batch, ["options"]).output.splitlines()
    assert lines[0].split() == ["SYSTEM", "OPTION", "MEANING"]
    assert {line.split()[0] for line in lines[1:]} == set(SYSTEMS)


def test_names_and_values() -> None:
    given = {"vm_name": "el7", "vm_share": "'/a;/b:ro'", "vm_other": "x", "image": "y"}
    assert options_in(given) == {"image": "el7", "share": "/a,/b:ro"}
    assert options_in({"vm_name": "el7", "vm_image": "el9"}) == {"image": "el9"}
    assert spelled("-l ")[0][0].startswith("-l vm_image=NAME")
