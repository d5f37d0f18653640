"""Jobs of a real Grid Engine in machines of their own."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.integration.gridengine import MARKS, PLAIN, QUEUE, Cell, cell_of
from tests.integration.gridengine_site import VM, Site, made, nothing_left, site
from tests.integration.host import IMAGE, Host
from tests.integration.slurm import home_with_policy
from tests.integration.waiting import wait_until

__all__ = ["made", "site"]

pytestmark = MARKS


def test_line_of_2011(site: Site) -> None:
    code, out, err = site.qsub(
        *("-l", "vmem=1g", "-ac", f"vm_name={IMAGE}"),
        stdin="cat /proc/cpuinfo; free -m; hostname; id -un; pwd\n",
    )
    assert (code, f"machine of {IMAGE}" in err) == (0, True), (out, err)
    memory = re.search(r"Mem:\s+(\d+)", out)
    assert memory is not None
    assert 850 <= int(memory.group(1)) <= 1024
    assert out.count("processor\t:") == 1
    assert out.splitlines()[-2] == site.user.name
    assert os.uname().nodename not in out.splitlines()


def test_binary_and_exit_status(site: Site) -> None:
    code, out, _ = site.qsub(*VM, "-b", "y", "hostname")
    assert code == 0
    assert out.strip() not in ("", os.uname().nodename)
    assert site.qsub(*VM, "-b", "y", "/bin/sh", "-c", "exit 42")[0] == 42


SHELLS = [("/bin/sh", "dash"), ("/bin/bash", "bash")]
HORRORS = r"""
echo "a'b" '$HOME' `echo tick` $(printf %s 'x  y') \\ "\$1=$1" "2=$2"
cat <<'INNER'
%s %d ${x} \n "quoted" 'single' é
INNER
echo "task=$SGE_TASK_ID job=${JOB_NAME} var=$GIVEN tmp=$TMPDIR"; echo oops >&2; exit 7
"""


@pytest.mark.parametrize("shell", [shell for shell, _ in SHELLS])
def test_script_with_every_horror_is_as_bare(site: Site, shell: str) -> None:
    script = site.work / "job script's.sh"
    script.write_text(HORRORS)
    words = ("-S", shell, "-v", "GIVEN=a b", "-N", "horror", str(script), "one 'two'", "$three")
    code, out, err = site.qsub(*VM, *words)
    bare = site.qsub("-ac", "vm_image=none", *words)
    assert code == bare[0] == 7
    plain = [re.sub(r"tmp=\S+", "tmp=", text) for text in (out, bare[1])]
    assert plain[0] == plain[1]
    assert "oops" in err
    assert "tmp=/tmp\n" in out


def test_cwd_is_live_or_home(site: Site) -> None:
    code, out, err = site.qsub(*VM, "-cwd", stdin="pwd; echo made >by-job\n")
    assert (code, out.strip()) == (0, str(site.work)), err
    assert (site.work / "by-job").read_text() == "made\n"
    code, out, _ = site.qsub(*VM, stdin="pwd\n")
    assert (code, out.strip()) == (0, str(site.user.home))


def test_array_in_two_places(site: Site) -> None:
    out = site.work / "array.$TASK_ID"
    done = site.cell.run(
        *("qsub", "-sync", "y", *VM, "-q", QUEUE, "-t", "1-3", "-o", str(out), "-j", "y"),
        user=site.user.name,
        cwd=site.work,
        stdin="echo $SGE_TASK_ID $(hostname)\n",
    )
    assert done.returncode == 0, done.stderr
    found = [(site.work / f"array.{n}").read_text().splitlines() for n in (1, 2, 3)]
    texts = [line for lines in found for line in lines if not line.startswith("mayfly: ")]
    assert [text.split()[0] for text in texts] == ["1", "2", "3"]
    assert len({text.split()[1] for text in texts}) == 3


def test_queue_default_and_plain_queue(site: Site) -> None:
    assert f"machine of {IMAGE}" in site.qsub(stdin="true\n")[2]
    code, out, err = site.qsub("-q", PLAIN, stdin="hostname\n")
    assert (code, out.strip(), "mayfly" in err) == (0, os.uname().nodename, False)
    # Not named: what becomes of it is decided on its host, by the queue that it came into.
    code, out, err = site.qsub("-ac", "vm_image=none", "-b", "y", "hostname")
    assert (code, out.strip()) == (0, os.uname().nodename)


def test_parallel_environment_on_one_host(site: Site) -> None:
    code, out, _ = site.qsub(*VM, "-pe", "smp", "2", "-l", "vmem=256m", stdin="nproc; free -m\n")
    assert code == 0
    assert out.splitlines()[0] == "2"
    memory = re.search(r"Mem:\s+(\d+)", out)
    assert memory is not None
    assert 400 <= int(memory.group(1)) <= 512


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("-l", "vm_image=no-such"), "no-such"),
        (("-ac", "vm_image=../etc"), "no name of an image"),
        (("-ac", f"vm_image={IMAGE},vm_network=moon"), "no network"),
        (("-ac", f"vm_image={IMAGE},vm_root=yes"), "root"),
        (("-ac", "vm_image=list"), IMAGE),
        (("-l", f"vm_image={IMAGE},vmem=lots"), "vmem"),
    ],
)
def test_refused_at_submission(site: Site, words: tuple[str, ...], told: str) -> None:
    code, _, err = site.qsub(*words, stdin="true\n")
    assert code != 0
    assert told in err


def test_users_own_word_grants_nothing(site: Site) -> None:
    lie = "MAYFLY_JOB=v=1&guest_mib=4096"
    code, out, _ = site.qsub(*VM, "-l", "vmem=512m", "-v", lie, stdin="free -m; env\n")
    memory = re.search(r"Mem:\s+(\d+)", out)
    assert memory is not None
    assert (code, int(memory.group(1)) <= 512, "MAYFLY_JOB" in out) == (0, True, False)


def test_plain_job_cannot_claim(site: Site) -> None:
    argv = site.host.argv("run", IMAGE, "--job", "default/1/1", "--no-workdir", "--", "true")
    env = f"MAYFLY_HOST_SOCKET={site.host.socket}"
    code, out, err = site.qsub("-q", PLAIN, "-v", env, "-b", "y", *argv)
    assert code == 125
    assert "registered" in err + out


def test_deleted_job_leaves_nothing(site: Site) -> None:
    job = site.cell.submit(
        *VM, "-q", QUEUE, "-cwd", user=site.user.name, cwd=site.work, stdin="touch up; sleep 600\n"
    )
    wait_until((site.work / "up").exists, "the job to run", limit_s=60)
    machine = site.host.machines()[0]["id"]
    shown = f"vm_image={IMAGE},vm_state=running,vm_machine={machine},vm_host=localhost"
    wait_until(lambda: shown in site.cell.ask("qstat", "-j", str(job)), "the machine to be shown")
    assert site.cell.run("qdel", str(job), user=site.user.name).returncode == 0
    site.cell.ended(job)
    wait_until(lambda: nothing_left(site), "the machine to go")


def test_service_down_is_tried_and_told(site: Site) -> None:
    """The image is the queue's, which only its host knows here: so nothing keeps the job away."""
    site.cell.set(site.host, socket="/nonexistent/sock", tries=2)
    job = site.cell.submit(
        *("-l", f"qname={QUEUE}"), user=site.user.name, cwd=site.work, stdin="true\n"
    )
    wait_until(lambda: "E" in "".join(site.cell.states(job)), "the last try", limit_s=60)
    shown = site.cell.ask("qstat", "-j", str(job))
    assert "vm_tries=3" in shown
    assert "no host service" in shown
    assert "E" not in site.cell.queue_state()


def test_roots_hooks_run_nothing_of_the_users(site: Site) -> None:
    """They get the job's variables, and call programs when a job is begun again."""
    site.cell.set(site.host, socket="/nonexistent/sock", tries=1)
    evil, seen = site.work / "evil", site.work / "seen"
    evil.mkdir()
    seen.mkdir()
    os.chown(seen, site.user.uid, site.user.uid)
    for name in ("qstat", "qalter", "python3", "sh", "env"):
        (evil / name).write_text(f"#!/bin/sh\n: >{seen}/$(id -u)-{name}\n")
        (evil / name).chmod(0o755)
    for name in ("sitecustomize", "mayfly", "json"):
        (evil / f"{name}.py").write_text(f"open('{seen}/python', 'w')\n")
    variables = f"PATH={evil},PYTHONPATH={evil},PYTHONHOME={evil},SGE_ROOT={evil},HOME={evil}"
    job = site.cell.submit(
        *("-l", f"qname={QUEUE}", "-v", variables, "-v", f"LD_LIBRARY_PATH={evil}"),
        user=site.user.name,
        cwd=site.work,
        stdin="true\n",
    )
    wait_until(lambda: "E" in "".join(site.cell.states(job)), "the last try", limit_s=60)
    assert "vm_tries=2" in site.cell.ask("qstat", "-j", str(job))
    assert list(seen.iterdir()) == []


def test_host_that_is_not_well_gets_no_job_that_wants_a_machine(site: Site) -> None:
    site.cell.set(site.host, socket="/nonexistent/sock")
    wait_until(lambda: "vm_ready=0" in site.cell.ask("qhost", "-F", "vm_ready"), "the sensor")
    job = site.cell.submit(*VM, "-q", QUEUE, user=site.user.name, cwd=site.work, stdin="true\n")
    assert site.qsub("-q", PLAIN, stdin="true\n")[0] == 0
    assert site.cell.states(job) == ["qw"]
    site.cell.run("qdel", str(job))
    site.cell.set(site.host)
    wait_until(lambda: "vm_ready=1" in site.cell.ask("qhost", "-F", "vm_ready"), "the sensor")


def test_one_switch(site: Site) -> None:
    site.cell.set(site.host, enabled=False)
    code, _, err = site.qsub(*VM, stdin="true\n")
    assert (code != 0, "switched off" in err) == (True, True)
    code, out, _ = site.qsub("-b", "y", "hostname")
    assert (code, out.strip()) == (0, os.uname().nodename)


def test_check_and_uninstall_restore_everything(warm_home: Path) -> None:
    with home_with_policy(warm_home) as home, cell_of() as cell:
        host = Host(home=home, top=cell.top)
        cell.set(host)
        before, files = cell.dumps(), _files(cell)
        shown = cell.mayfly(host, "batch", "install", "gridengine", "--dry-run")
        assert (shown.returncode, f"queue {QUEUE}: prolog" in shown.stderr) == (0, True)
        assert (cell.dumps(), _files(cell)) == (before, files)
        for _ in range(2):
            done = cell.mayfly(host, "batch", "install", "gridengine")
            assert done.returncode == 0, done.stderr
        assert cell.dumps() != before
        found = cell.mayfly(host, "batch", "check", "gridengine")
        assert f"ok    queues: {PLAIN} {QUEUE}" in found.stdout
        assert "FAIL  host service" in found.stdout
        assert found.stdout.count("FAIL") == 1, found.stdout
        done = cell.mayfly(host, "batch", "uninstall", "gridengine", "--yes")
        assert done.returncode == 0, done.stderr
        assert (cell.dumps(), _files(cell)) == (before, files)


def _files(cell: Cell) -> list[Path]:
    return sorted([*cell.programs.rglob("*"), *(cell.top / "default/common").iterdir()])
