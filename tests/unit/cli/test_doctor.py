"""``mayfly doctor``: it tries KVM anew, and looks for what image build needs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from mayfly.cli import doctor as command
from mayfly.engine.kvm import Verdict
from tests.unit.engine.machines import QEMU


def test_kvm_is_tried_anew_and_the_mend_is_that_of_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def choose(*_: object, fresh: bool) -> Verdict:
        asked.append(fresh)
        return Verdict(accelerator="tcg", reason="it is not there", mend="modprobe it")

    monkeypatch.setenv("MAYFLY_HOME", str(tmp_path))
    monkeypatch.setattr(command, "probe_qemu", lambda *_: QEMU)
    monkeypatch.setattr(command, "choose_accelerator", choose)
    monkeypatch.setattr(command, "check_network", list)
    result = CliRunner().invoke(command.doctor, ["--json"], catch_exceptions=False)
    found = {item["name"]: item for item in json.loads(result.stdout)}
    assert asked == [True]
    assert (found["KVM"]["ok"], found["KVM"]["mend"]) == (False, "modprobe it")
    assert found["KVM"]["detail"] == "emulation: it is not there"
    assert found["boot.img"]["mend"] == "apt-get install grub-pc-bin"
