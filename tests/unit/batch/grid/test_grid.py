"""Requests that come by the grid, friendly and hostile ones, as BLAH's scripts would see them."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from mayfly.batch.grid.requests import DIRECTIVES, GLUE, REFUSED, directives, options_from
from mayfly.batch.lsf.job import words_to_options
from mayfly.batch.pbs.job import Shown, options_of, parse_variables
from mayfly.batch.pbs.submission import directives as pbs_words
from mayfly.errors import Invalid
from tests.unit.batch.sites import files, mayfly

REQUEST = {"VMImage": "el9", "VMNetwork": "open", "VMShare": "/data,/soft:ro", "VMRoot": "yes"}


def test_a_request_becomes_the_local_option() -> None:
    assert directives("slurm", REQUEST)[0] == [
        "#SBATCH --vm-image=el9",
        "#SBATCH --vm-network=open",
        "#SBATCH --vm-root",
        "#SBATCH --vm-share=/data,/soft:ro",
    ]
    listed = "vm_image=el9,vm_network=open,vm_root=yes,vm_share=/data;/soft:ro"
    assert directives("sge", REQUEST)[0] == [f"#$ -ac {listed}"]
    assert directives("torque", REQUEST)[0] == [f"#PBS -v {listed}"]
    assert directives("condor", REQUEST)[0][0] == '+VMImage = "el9"'
    assert directives("pbs", {"VMImage": "el9"})[0] == ["#PBS -l vm_image=el9"]


def test_what_is_written_is_what_is_read() -> None:
    options = options_from(REQUEST)
    (line,) = directives("lsf", REQUEST)[0]
    _, _, inner = shlex.split(line, comments=False)[2].partition("(")
    assert words_to_options(inner.rstrip(")").split(",")) == options
    (line,) = directives("torque", REQUEST)[0]
    shown = Shown(job="1", user="x", variables=parse_variables(pbs_words(line.encode())[1]))
    assert options_of(shown) == options


@pytest.mark.parametrize(
    "environ",
    [
        {f"{GLUE}": "vm_el9"},
        {f"{GLUE}_1": '"VO-atlas-x"', f"{GLUE}_2": '"vm_el9"'},
        {GLUE: "VO-atlas, vm_el9; other"},
        {"vm_image": '"el9"'},
        {"vm_name": "el9"},
        {"VMImage": '"el9"', "vm_image": "el7", GLUE: "vm_el5"},
    ],
)
def test_ways_to_ask(environ: dict[str, str]) -> None:
    assert options_from(environ) == {"image": "el9"}


@pytest.mark.parametrize("system", DIRECTIVES)
def test_who_asks_for_nothing_gets_nothing(system: str) -> None:
    for environ in ({}, {"VMImage": ""}, {GLUE: "VO-cms"}, {"HOME": "/"}, {f"{GLUE}X": "vm_a"}):
        assert directives(system, environ) == ([], "")


HOSTILE = [
    "el9\n#SBATCH --uid=0",
    "el9 --partition=x",
    'el9" ; id',
    "$(id)",
    "`id`",
    "el9'",
    "\\el9",
    "el9,uid=0",
    "../../etc",
    "el9\r",
    "él9",
    "\udcff",
    "a" * 2000,
    "el9;x",
    "el9)",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("name", ["VMImage", "vm_image", "VMNetwork", "VMShare", "VMAllow"])
@pytest.mark.parametrize("system", DIRECTIVES)
def test_hostile_requests_are_refused_by_name(system: str, name: str, text: str) -> None:
    lines, wrong = directives(system, {"VMImage": "el9", name: text})
    if name == "vm_image" and not wrong:
        # What goes first is good.
        assert lines == directives(system, {"VMImage": "el9"})[0]
    else:
        assert wrong
        assert lines == directives(system, {"VMImage": REFUSED})[0]


def test_several_images_are_refused() -> None:
    lines, wrong = directives("slurm", {GLUE: "vm_a vm_b"})
    assert (lines, "several" in wrong) == ([f"#SBATCH --vm-image={REFUSED}"], True)
    with pytest.raises(Invalid, match="no 'cobalt'"):
        directives("cobalt", {})


# --- BLAH's scripts ------------------------------------------------------------------------------


@pytest.fixture
def blahp(tmp_path: Path) -> Path:
    """The directory of BLAH's scripts."""
    conf = tmp_path / "blahp"
    conf.mkdir()
    (conf / "slurm_local_submit_attributes.sh").write_text("#!/bin/sh\necho '#SBATCH -A atlas'\n")
    (conf / "sge_local_submit_attributes.sh").write_text("#!/bin/sh")
    (conf / "blah.config").write_text("x=1\n")
    return conf


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes a batch system")
def test_there_and_back(tmp_path: Path, blahp: Path) -> None:
    before = files(tmp_path)
    done = mayfly(tmp_path, "grid", blahp, "install")
    assert done.exit_code == 0, done.output
    assert "default_CERequirements" in done.output
    assert "ok    scripts" in mayfly(tmp_path, "grid", blahp, "check").output
    # As BLAH does: a script of assignments that ends by sourcing the site's.
    asked = 'VMImage="el9"\nGlueX=1\n'
    script = tmp_path / "request"
    evil = "VMImage='el9\n#SBATCH --uid=0'\n"
    for given, out in (
        (asked, "#SBATCH -A atlas\n#SBATCH --vm-image=el9\n"),
        (evil, f"#SBATCH -A atlas\n#SBATCH --vm-image={REFUSED}\n"),
        ("", "#SBATCH -A atlas\n"),
    ):
        script.write_text(f"{given}. {blahp}/slurm_local_submit_attributes.sh\n")
        for shell in ("sh", "bash"):
            ran = subprocess.run([shell, script], capture_output=True, text=True, check=True)
            assert ran.stdout == out, ran.stderr
    script.unlink()
    done = mayfly(tmp_path, "grid", blahp, "uninstall", "--yes")
    assert done.exit_code == 0, done.output
    assert files(tmp_path) == before
    (blahp / "slurm_local_submit_attributes.sh").unlink()
    (blahp / "sge_local_submit_attributes.sh").unlink()
    assert "no script of BLAH" in str(mayfly(tmp_path, "grid", blahp, "install").exception)
