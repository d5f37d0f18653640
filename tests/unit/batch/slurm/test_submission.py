"""What is said to a user who submits."""

from __future__ import annotations

from pathlib import Path

import pytest

from mayfly.batch.settings import BatchSettings
from mayfly.batch.slurm.submission import check, images
from mayfly.errors import Denied, Invalid, Missing, Untrusted
from tests.unit.host.services import add_image
from tests.unit.host.trusting import ALL, write_policy

ON, OFF = BatchSettings(), BatchSettings(enabled=False)
EL9 = {"image": "el9"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site with two images."""
    monkeypatch.setenv("MAYFLY_HOME", str(tmp_path))
    for name in ("el9", "debian-12"):
        add_image(tmp_path / "state/images", name)
    return tmp_path


def test_what_there_is_may_be_had() -> None:
    check(EL9, "srun", ON)
    assert [line.split()[0] for line in images()] == ["debian-12", "el9"]


@pytest.mark.parametrize(
    ("options", "kind"),
    [({"image": "el7"}, Missing), ({"image": "a/b"}, Invalid), ({"network": "wide"}, Invalid)],
)
def test_what_there_is_not_is_refused(options: dict[str, str], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        check({**EL9, **options}, "srun", ON)


def test_what_the_policy_denies_is_neither_shown_nor_taken(home: Path) -> None:
    rule = '[[policy.allow]]\nwho = ["*"]\nimages = ["el9"]\n'
    write_policy(home / "policy.toml", rule, endorsed="optional")
    check(EL9, "srun", ON)
    with pytest.raises(Denied, match="no rule allows"):
        check({"image": "debian-12"}, "srun", ON)
    with pytest.raises(Denied, match="with root"):
        check({**EL9, "root": "yes"}, "srun", ON)
    assert [line.split()[0] for line in images()] == ["el9"]


def test_where_a_queue_decides_the_host_of_the_job_does(home: Path) -> None:
    rule = '[[policy.allow]]\nwho = ["queue:virt"]\nimages = ["el9"]\n'
    write_policy(home / "policy.toml", rule, endorsed="optional")
    check({"image": "debian-12"}, "srun", ON)
    assert len(images()) == 2


def test_an_image_that_nobody_vouches_for_is_refused(home: Path) -> None:
    write_policy(home / "policy.toml", ALL)
    with pytest.raises(Untrusted, match="no subscribed list has it"):
        check(EL9, "srun", ON)


def test_with_the_switch_off_machines_are_refused_and_nothing_else() -> None:
    with pytest.raises(Denied, match="switched off"):
        check(EL9, "srun", OFF)
    check({"image": "none"}, "srun", OFF)


def test_a_host_without_images_asks_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MAYFLY_HOME", str(tmp_path / "none"))
    check({"image": "el7"}, "sbatch", ON)
    assert images() == []
