"""Mayfly put into a Slurm's files, and taken out again."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mayfly.batch.slurm.installation import SOURCE, described, setting
from mayfly.batch.slurm.programs import NAMES, main
from mayfly.cli.batch import batch
from mayfly.errors import Missing

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root changes a batch system"),
    pytest.mark.skipif(
        not Path("/usr/include/slurm/spank.h").exists() or shutil.which("gcc") is None,
        reason="no headers of Slurm, or no compiler",
    ),
]
CONF = b"ClusterName=lab # x\nSlurmctldPidFile=/nowhere/pid\nKillWait=5"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Slurm's configuration directory."""
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm/slurm.conf").write_bytes(CONF)
    monkeypatch.setenv("MAYFLY_HOME", str(tmp_path / "home"))
    return tmp_path


def mayfly(site: Path, *words: str) -> Result:
    command, *rest = words
    places = [f"--conf={site}/slurm/slurm.conf", f"--programs={site}/lib/programs"]
    places.append(f"--config={site}/batch.toml")
    return CliRunner().invoke(batch, [command, "slurm", *places, *rest])


def files(site: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.stat().st_mode, path.read_bytes())
        for path in site.rglob("*")
        if path.is_file()
    }


def test_uninstalling_restores_every_file(site: Path) -> None:
    before = files(site)
    done = mayfly(site, "install")
    assert done.exit_code == 0, done.output
    programs = site / "lib/programs"
    stack = (site / "slurm/plugstack.conf").read_text()
    policy = f"policy={site}/home/policy.toml"
    assert f"required {programs}/mayfly_spank.so programs={programs} {policy} epilog=yes\n" in stack
    assert f"Epilog={programs}/epilog\n" in (site / "slurm/slurm.conf").read_text()
    checked = json.loads(mayfly(site, "check", "--json").output)
    wrong = [one["name"] for one in checked if not one["ok"] and one["needed"]]
    assert wrong == ["host service"]
    done = mayfly(site, "uninstall", "--yes")
    assert done.exit_code == 0, done.output
    assert files(site) == before
    assert not (site / "lib").exists()


def test_a_dry_run_changes_nothing(site: Path) -> None:
    before = files(site)
    done = mayfly(site, "install", "--dry-run")
    assert done.exit_code == 0
    assert f"+Epilog={site}/lib/programs/epilog" in done.output
    assert files(site) == before


def test_an_epilog_of_the_sites_own_stays(site: Path) -> None:
    with open(site / "slurm/slurm.conf", "a") as file:
        file.write("\nEpilog=/site/epilog\n")
    before = (site / "slurm/slurm.conf").read_bytes()
    done = mayfly(site, "install")
    assert "Slurm has an epilog already, /site/epilog" in done.output
    assert (site / "slurm/slurm.conf").read_bytes() == before


def test_where_the_controller_is_submissions_are_looked_at(site: Path) -> None:
    conf = site / "slurm/slurm.conf"
    here = socket.gethostname().split(".")[0]
    conf.write_bytes(CONF + f"\nSlurmctldHost={here}(127.0.0.1)\n".encode())
    (site / "slurm/job_submit.lua").write_text("function slurm_job_submit() return 0 end")
    before = files(site)
    mayfly(site, "install")
    assert "JobSubmitPlugins=lua\n" in conf.read_text()
    script = (site / "slurm/job_submit.lua").read_text()
    assert script.startswith("function slurm_job_submit() return 0 end\n-- >>> mayfly >>>\n")
    mayfly(site, "uninstall", "--yes")
    assert files(site) == before
    conf.write_bytes(before[str(conf)][1] + b"JobSubmitPlugins=all_partitions\n")
    assert "are not refused at submission" in mayfly(site, "install").output
    assert "Plugins=lua" not in conf.read_text()


def test_without_slurm_it_is_said(site: Path) -> None:
    (site / "slurm/slurm.conf").unlink()
    assert isinstance(mayfly(site, "install").exception, Missing)
    assert isinstance(mayfly(site, "uninstall", "--yes").exception, Missing)
    assert "FAIL  slurm.conf" in mayfly(site, "check").output


def test_a_path_that_slurm_cannot_read_is_refused(site: Path) -> None:
    done = CliRunner().invoke(batch, ["install", "slurm", f"--programs={site}/a b"])
    assert "take no such signs" in str(done.exception)


def test_the_programs_run_by_themselves(site: Path) -> None:
    mayfly(site, "install")
    for name in NAMES:
        assert os.access(site / "lib/programs" / name, os.X_OK)
    words = ["job=1", "step=0", "task=0", "uid=1", "tasks=1", "cpus=1", "cores=0", "node=n1"]
    words += ["step_cores=0", "memory_mib=640", "restart=0", "array=0", "vm-image=../x"]
    env = {"PATH": "/usr/bin:/bin", "SLURM_CONF": "/dev/null"}
    done = subprocess.run(
        [site / "lib/programs/register", *words], env=env, capture_output=True, check=False
    )
    kind, ticket = done.stdout.splitlines()
    assert (done.returncode, kind) == (0, b"machine")
    assert json.loads(ticket)["fault"] == "job"
    done = subprocess.run([site / "lib/programs/epilog"], env=env, check=False)
    assert done.returncode == 0


def test_an_epilog_never_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "batch.toml"
    config.write_text("nonsense = 1")
    for job in ("7", "../x", "", "9" * 300):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        with pytest.raises(SystemExit) as ended:
            main("epilog", cluster="lab", config=str(config))
        assert ended.value.code == 0


def test_the_plugin_compiles_without_a_warning(tmp_path: Path) -> None:
    argv = ["gcc", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC"]
    done = subprocess.run(
        [*argv, "-o", str(tmp_path / "x.so"), str(SOURCE)], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


def test_what_squeue_shows_of_a_job() -> None:
    words = ["RUNNING", "None", "virt", "n1", "ada", "0", "(null)", "mayfly: machine of el9"]
    text = "\x1f".join(words) + "\x1f\nPENDING\x1f\n"
    shown = described(text)
    assert (shown["state"], shown["note"]) == ("RUNNING", "mayfly: machine of el9")
    assert "comment" not in shown
    assert described("") == {}


@pytest.mark.parametrize(
    ("line", "value"),
    [("ClusterName=lab # x", "lab"), ("  clustername = a", "a"), ("#ClusterName=b", "")],
)
def test_settings_of_slurm(line: str, value: str) -> None:
    assert setting(f"KillWait=5\n{line}\n", "ClusterName") == value
