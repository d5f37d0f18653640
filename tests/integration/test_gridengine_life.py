"""What befalls jobs of Grid Engine in machines: signals, limits, and parts that are killed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.integration.gridengine import MARKS, QUEUE
from tests.integration.gridengine_site import VM, Site, made, nothing_left, site
from tests.integration.host import IMAGE, User
from tests.integration.people import somebody
from tests.integration.waiting import wait_until

__all__ = ["made", "site"]

pytestmark = MARKS

WAITS = "touch up; while [ ! -e go ]; do sleep 0.1; done; echo gone >gone\n"
"""A job that says when it runs, and ends when it is told to."""
MOST_S = 60


def fresh(site: Site) -> None:
    """Have nothing in the user's directory."""
    shutil.rmtree(site.work)
    site.work.mkdir()
    os.chown(site.work, site.user.uid, site.user.uid)


def begun(site: Site, *words: str, script: str = WAITS) -> int:
    """Submit a job into an empty directory, and wait until it runs; gives its number."""
    fresh(site)
    given = (*VM, "-q", QUEUE, "-cwd", "-j", "y", "-o", "log", *words)
    job = site.cell.submit(*given, user=site.user.name, cwd=site.work, stdin=script)
    wait_until((site.work / "up").exists, f"job {job} to run", limit_s=MOST_S)
    return job


def ended(site: Site, job: int) -> dict[str, str]:
    """Tell a job to end, and give its account."""
    (site.work / "go").touch()
    site.cell.ended(job)
    assert (site.work / "gone").read_text() == "gone\n"
    return site.cell.account(job)


def own_lines(text: str) -> list[str]:
    """Give what a job wrote itself."""
    return [line for line in text.splitlines() if not line.startswith("mayfly: ")]


def state_of(site: Site) -> str:
    """Give the state of the one machine that somebody has."""
    (machine,) = site.host.machines()
    return str(machine["state"])


def suspending(site: Site) -> bool:
    """Tell whether Grid Engine has a method of suspension of ours run."""
    program = str(site.cell.top / "mayfly/suspend").encode()
    return any(program in each for each in map(_read, Path("/proc").glob("[0-9]*/cmdline")))


def _read(path: Path) -> bytes:
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""


# --- suspended -----------------------------------------------------------------------------------


def test_a_suspended_job_stands_still_with_its_machine(site: Site) -> None:
    job = begun(site)
    asked = site.cell.run("qmod", "-sj", str(job), user=site.user.name)
    assert asked.returncode == 0, asked.stdout
    wait_until(lambda: state_of(site) == "paused", "the machine to stand still")
    shown = ("qstat", "-j", str(job))
    wait_until(lambda: "vm_state=paused" in site.cell.ask(*shown), "that to be shown")
    (site.work / "go").touch()
    assert site.cell.states(job) == ["s"]
    env = {"MAYFLY_HOST_SOCKET": str(site.host.socket)}
    told = site.cell.run(*site.host.argv("job", "show", str(job), "--json"), env=env)
    shown_too = json.loads(told.stdout)
    assert shown_too["systems"]["gridengine"]["vm_image"] == IMAGE
    assert [each["state"] for each in shown_too["machines"]] == ["paused"]
    site.cell.run("qmod", "-usj", str(job), user=site.user.name)
    assert ended(site, job)["exit_status"] == "0"


def test_a_suspended_job_can_be_deleted(site: Site) -> None:
    job = begun(site)
    site.cell.run("qmod", "-sj", str(job))
    wait_until(lambda: state_of(site) == "paused", "the machine to stand still")
    site.cell.run("qdel", str(job))
    site.cell.ended(job)
    wait_until(lambda: nothing_left(site), "the machine to go")
    assert not (site.work / "gone").exists()


# --- told before ---------------------------------------------------------------------------------

HEARS = "trap 'touch usr1' USR1; trap 'touch usr2; exit 3' USR2\n" + WAITS


def test_with_notify_the_job_is_told_before_it_is_suspended_or_deleted(site: Site) -> None:
    job = begun(site, "-notify", script=HEARS)
    site.cell.run("qmod", "-sj", str(job))
    wait_until((site.work / "usr1").exists, "the job to hear of it")
    wait_until(lambda: state_of(site) == "paused", "the machine to stand still")
    # Told to go on before that, a job of Grid Engine stays as it is.
    wait_until(lambda: not suspending(site), "the method of suspension to end")
    site.cell.run("qmod", "-usj", str(job))
    wait_until(lambda: state_of(site) == "running", "it to go on")
    site.cell.run("qdel", str(job))
    wait_until((site.work / "usr2").exists, "the job to hear of its end")
    site.cell.ended(job)
    assert site.cell.account(job)["exit_status"] == "3"


def test_a_job_is_warned_by_its_soft_limit(site: Site) -> None:
    script = "trap 'exit 7' USR1; touch up; while :; do sleep 0.1; done\n"
    job = begun(site, "-l", "s_rt=2", script=script)
    site.cell.ended(job)
    assert site.cell.account(job)["exit_status"] == "7"


def test_a_job_is_ended_by_its_hard_limit(site: Site) -> None:
    job = begun(site, "-l", "h_rt=2")
    site.cell.ended(job)
    assert site.cell.account(job)["exit_status"].startswith("137")
    wait_until(lambda: nothing_left(site), "the machine to go")


# --- shells --------------------------------------------------------------------------------------

CSH = """set list = ( "a b" 'c$d' \\!e )
foreach each ( $list:q )
  echo "<$each:q>"
end
echo "$1:q|$2:q|$GIVEN:q"
exit 5
"""
ZSH = """typeset -A m; m=('a b' 'c$d')
for k v in ${(kv)m}; do print -r -- "<$k=$v>"; done
print -r -- "$1|$2|$GIVEN" ${#argv}
exit 5
"""
SHELLS = [("csh", "/usr/bin/tcsh", CSH), ("zsh", "/bin/zsh-static", ZSH)]


@pytest.mark.parametrize(("name", "program", "text"), SHELLS, ids=["csh", "zsh"])
def test_other_shells_read_scripts_as_without_a_machine(
    site: Site, name: str, program: str, text: str
) -> None:
    """They lie in a directory that is live: the image has none of them."""
    assert os.access(program, os.X_OK), f"{program} is not installed"
    shell = site.user.home / name
    shutil.copy(program, shell)
    script = site.work / "script"
    script.write_text(text)
    words = ("-S", str(shell), "-v", "GIVEN=x  y", str(script), "one 'two'", "$three")
    code, out, err = site.qsub(*VM, *words)
    bare = site.qsub("-ac", "vm_image=none", *words)
    assert (code, bare[0]) == (5, 5), (err, bare[2])
    assert out == bare[1] != ""


def test_a_shell_that_the_image_lacks_is_told(site: Site) -> None:
    code, _, err = site.qsub(*VM, "-S", "/opt/no/such-shell", stdin="true\n")
    assert code == 127
    assert "such-shell" in err


# --- whose ---------------------------------------------------------------------------------------


def test_nobody_claims_anothers_machine(site: Site) -> None:
    job = begun(site)
    key = f"default/{job}/0"
    for uid in (site.user.uid, site.user.uid + 1):
        code, _, said = site.host.job("--job", key, "--", "true", user=User(uid=uid))
        assert code == 125, said
    assert ended(site, job)["exit_status"] == "0"


def test_two_jobs_of_a_user_have_a_machine_each(site: Site) -> None:
    fresh(site)
    script = "hostname >$1; while [ ! -s $2 ]; do sleep 0.1; done\n"
    (site.work / "script").write_text(script)
    given = (*VM, "-q", QUEUE, "-cwd", "-o", "/dev/null", "-j", "y", "script")
    for names in (("one", "two"), ("two", "one")):
        site.cell.submit(*given, *names, user=site.user.name, cwd=site.work)
    wait_until(lambda: nothing_left(site), "both to end, each by the other", limit_s=MOST_S)
    hosts = [(site.work / name).read_text() for name in ("one", "two")]
    assert hosts[0] != hosts[1]


def test_a_user_without_a_home_directory(site: Site) -> None:
    with somebody("mayfly-gus", home=False) as user:
        fresh(site)
        os.chown(site.work, user.uid, user.uid)
        out = site.work / "out"
        done = site.cell.run(
            *("qsub", "-sync", "y", *VM, "-q", QUEUE, "-wd", str(site.work), "-j", "y"),
            *("-o", str(out)),
            user=user.name,
            stdin="pwd; id -un; touch made\n",
        )
        lines = own_lines(out.read_text())
        assert done.returncode == 0, lines
        assert lines == [str(site.work), user.name]
        assert (site.work / "made").stat().st_uid == user.uid


def test_roots_job_is_roots(site: Site) -> None:
    fresh(site)
    out = site.work / "out"
    done = site.cell.run(
        *("qsub", "-sync", "y", *VM, "-q", QUEUE, "-wd", str(site.work), "-j", "y", "-o", str(out)),
        stdin="id -u; hostname\n",
    )
    lines = own_lines(out.read_text())
    assert done.returncode == 0, lines
    assert lines[0] == "0"
    assert lines[1] != os.uname().nodename


# --- killed half way -----------------------------------------------------------------------------


def kill(pid: int) -> None:
    """Kill one process that this test has started, by way of others."""
    os.kill(pid, signal.SIGKILL)


def daemon(site: Site, pattern: str) -> int:
    """Give a daemon of the cell."""
    (file,) = (site.cell.top / "spool").glob(pattern)
    return int(file.read_text())


def test_daemons_that_are_killed_cost_no_job(site: Site) -> None:
    job = begun(site)
    for pattern in ("execd/*/execd.pid", "qmaster/qmaster.pid"):
        kill(daemon(site, pattern))
    (site.work / "go").touch()
    wait_until((site.work / "gone").exists, "the job to end")
    site.cell.run("sge_qmaster")
    wait_until(lambda: site.cell.run("qconf", "-sh").returncode == 0, "the master", limit_s=MOST_S)
    site.cell.start_execd("localhost")
    assert ended(site, job)["exit_status"] == "0"


def test_a_service_that_is_killed_costs_no_job(site: Site) -> None:
    job = begun(site)
    site.host.restart(signal.SIGKILL)
    assert ended(site, job)["exit_status"] == "0"
    site.host.refilled(2)


def test_a_machine_that_is_killed_has_its_job_begun_again(site: Site) -> None:
    job = begun(site)
    (machine,) = site.host.machines()
    (site.work / "up").unlink()
    kill(int(machine["pid"]))
    wait_until((site.work / "up").exists, "the job to run again", limit_s=MOST_S)
    assert "vm_tries=1" in site.cell.ask("qstat", "-j", str(job))
    assert ended(site, job)["exit_status"] == "0"
    assert "E" not in site.cell.queue_state()


def test_a_job_that_is_deleted_while_its_machine_starts_leaves_nothing(site: Site) -> None:
    for _ in range(3):
        given = (*VM, "-q", QUEUE, "-cwd", "-o", "/dev/null", "-j", "y")
        job = site.cell.submit(*given, user=site.user.name, cwd=site.work, stdin="sleep 600\n")
        wait_until(lambda job=job: "r" in "".join(site.cell.states(job)), "it to begin")  # type: ignore[misc]
        assert site.cell.run("qdel", str(job)).returncode == 0
        site.cell.ended(job)
        wait_until(lambda: nothing_left(site), "the machine to go")
