"""What ``mayfly doctor`` says of the needs of image build, and the commands it gives."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from mayfly.images.build import grub, needs
from mayfly.images.build.needs import boot_loader, subordinate_ids
from mayfly.model import Finding

NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ordinary user, on a host whose /etc is the directory given."""
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY.pw_uid)
    monkeypatch.setattr(needs, "SUBORDINATE_UIDS", tmp_path / "subuid")
    monkeypatch.setattr(needs, "SUBORDINATE_GIDS", tmp_path / "subgid")
    return tmp_path


def found() -> dict[str, Finding]:
    return {Path(item.name).name: item for item in subordinate_ids("/nonexistent")}


def test_grubs_own_files_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grub, "GRUB_DIRECTORY", tmp_path)
    lacking = boot_loader()
    assert (lacking.ok, lacking.mend) == (False, "apt-get install grub-pc-bin")
    for name in ("boot.img", "kernel.img"):
        (tmp_path / name).touch()
    assert boot_loader().ok


def test_root_needs_no_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert subordinate_ids() == []


@pytest.mark.usefixtures("user")
def test_a_user_without_anything_gets_every_command() -> None:
    items = found()
    assert not any(item.ok for item in items.values())
    assert [item.mend for item in items.values()] == [
        "apt-get install uidmap",
        "usermod --add-subuids 100000-165535 nobody",
        "usermod --add-subgids 100000-165535 nobody",
    ]


def test_a_new_range_is_one_that_nobody_has(user: Path) -> None:
    (user / "subuid").write_text("alice:100000:65536\nbob:165536:65536\n# nonsense\nx:y:z\n")
    assert found()["subgid"].mend == "usermod --add-subgids 231072-296607 nobody"


@pytest.mark.parametrize("name", ["nobody", str(NOBODY.pw_uid)])
def test_a_range_by_name_or_number_will_do(user: Path, name: str) -> None:
    (user / "subuid").write_text(f"{name}:300000:65536\n")
    assert (found()["subuid"].ok, found()["subgid"].ok) == (True, False)


def test_a_uid_without_account_is_told(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1_234_567_890)
    (user / "subuid").write_text(":100000:65536\n")
    assert "no account" in found()["subuid"].detail
