"""Jobs of a real Slurm in machines of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.faults import qemus_of
from tests.integration.host import IMAGE, MARKS, host_of, policy_of_queue
from tests.integration.slurm import NODES, TOOLS, Slurm, home_with_policy, mayfly, slurm_of
from tests.integration.waiting import wait_until

pytestmark = [
    *MARKS,
    pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason="Slurm is not installed"),
]

VM = f"--vm-image={IMAGE}"
MEMORY = "--mem=640"
CGROUPS = Path("/sys/fs/cgroup/memory/cgroup.procs").exists()
POLICY = policy_of_queue("virt")


@pytest.fixture(scope="module")
def slurm(warm_home: Path) -> Iterator[Slurm]:
    """A cluster whose hosts give machines to jobs only; queue virt has an image of its own."""
    settings = f'requests = "registered"\n[[standby]]\nimage = "{IMAGE}"\nleast = 2\nmost = 2\n'
    with home_with_policy(warm_home) as home:
        (home / "policy.toml").write_text(POLICY)
        with host_of(home, settings) as host, slurm_of(host, cgroups=CGROUPS) as cluster:
            host.refilled(2)
            yield cluster


@pytest.fixture
def cluster(slurm: Slurm) -> Iterator[Slurm]:
    """That cluster; nothing of a test's jobs is there before or after."""
    yield slurm
    slurm.set(live=[str(slurm.home)])
    slurm.clean()


def nothing_left(slurm: Slurm) -> bool:
    """Tell whether no job has a machine or a right."""
    rights = list((slurm.host.state / "rights").iterdir())
    return slurm.host.machines() == [] and rights == []


def plain(text: str) -> str:
    """Give what a job wrote, without what we said."""
    return "".join(
        line for line in text.splitlines(keepends=True) if not line.startswith("mayfly: ")
    )


def test_the_job_runs_in_a_machine(cluster: Slurm) -> None:
    done = cluster.user("srun", MEMORY, VM, "sh", "-c", "hostname; id -u; pwd; nproc")
    assert done.returncode == 0, done.stderr
    name, uid, cwd, cpus = done.stdout.split()
    assert name != os.uname().nodename
    assert (uid, cwd, cpus) == (str(cluster.uid), str(cluster.work), "1")
    first = done.stderr.splitlines()[0]
    assert first.startswith(f"mayfly: machine of {IMAGE}, network none; working directory")
    assert first.endswith("(live)")
    wait_until(lambda: nothing_left(cluster), "the right to be taken back")


def test_a_batch_script_of_any_words_is_itself(cluster: Slurm) -> None:
    script = "#!/bin/bash\nprintf '%s|' \"$@\" \"$A\" 'it''s' \"\\$x\"\necho\nexit 5\n"
    number = cluster.submit(MEMORY, VM, "--export=ALL,A=b c", script=script)
    assert cluster.ended(number)["ExitCode"] == "5:0"
    told = f"AdminComment=mayfly: machine of {IMAGE}"
    shown = ["scontrol", "show", "job", number]
    wait_until(lambda: told in cluster.run(*shown).stdout, "the image beside the job")
    assert plain(cluster.output(number)) == "b c|its|$x|\n"


def test_standard_streams_and_exit_status_are_the_jobs(cluster: Slurm) -> None:
    done = cluster.user("srun", MEMORY, VM, "sh", "-c", "cat; echo e >&2; exit 7", stdin="a\nb\n")
    assert (done.returncode, done.stdout) == (7, "a\nb\n")
    assert "\ne\n" in done.stderr


def test_a_signal_that_ends_the_job_is_its_end(cluster: Slurm) -> None:
    number = cluster.submit(MEMORY, VM, script="#!/bin/sh\nkill -USR1 $$\n")
    assert cluster.ended(number)["ExitCode"] == f"0:{int(signal.SIGUSR1)}"


def begun(cluster: Slurm, script: str) -> str:
    """Submit a job whose first line is ``ready``, and wait for that."""
    number = cluster.submit(MEMORY, VM, script=script)
    wait_until(lambda: "ready" in _written(cluster, number), "the job", limit_s=60)
    return number


def test_what_a_job_got_is_shown(cluster: Slurm) -> None:
    number = begun(cluster, "#!/bin/sh\necho ready\nexec sleep 600\n")
    shown = json.loads(mayfly(cluster, "job", "show", number, "--json").stdout)
    assert shown["systems"]["slurm"]["state"] == "RUNNING"
    (machine,) = shown["machines"]
    assert (machine["image"], machine["state"]) == (IMAGE, "running")
    cluster.run("scancel", number)
    cluster.ended(number)
    wait_until(lambda: nothing_left(cluster), "the machine's end")
    (used,) = json.loads(mayfly(cluster, "job", "show", number, "--json").stdout)["used"]
    assert (used["cluster"], used["machine"], used["restart"]) == ("lab", machine["id"], "0")
    assert float(used["submitted_at"]) > 0
    assert 0 < used["memory_peak_bytes"] < 640 << 20


def test_a_job_that_is_cancelled_may_end_in_its_own_way(cluster: Slurm) -> None:
    script = "#!/bin/sh\ntrap 'echo told; exit 3' TERM\necho ready\nwhile :; do sleep 1; done\n"
    number = begun(cluster, script)
    cluster.run("scancel", number)
    job = cluster.ended(number)
    assert (job["JobState"], job["ExitCode"], job["Restarts"]) == ("CANCELLED", "3:0", "0")
    assert "told" in cluster.output(number)
    wait_until(lambda: nothing_left(cluster), "the machine's end")


def test_a_machine_keeps_to_the_jobs_cpus(cluster: Slurm) -> None:
    if not CGROUPS:
        pytest.skip("no cgroups of the first version here")
    begun(cluster, "#!/bin/sh\necho ready\nexec sleep 600\n")
    (machine,) = cluster.host.machines()
    cpus = (cgroup_of(cluster, "cpuset") / "cpuset.cpus").read_text().strip()
    assert len(cpus) == 1
    tasks = list(Path(f"/proc/{machine['pid']}/task").iterdir())
    allowed = {
        (task / "status").read_text().partition("Cpus_allowed_list:\t")[2].split("\n")[0]
        for task in tasks
    }
    assert allowed == {cpus}


def test_a_job_that_is_suspended_stands_still_with_its_machine(cluster: Slurm) -> None:
    if not CGROUPS:
        pytest.skip("no cgroups of the first version here")
    script = "#!/bin/sh\necho ready\nwhile [ ! -e go ]; do sleep 0.1; done\necho gone\n"
    number = begun(cluster, script)
    ours = cgroup_of(cluster, "freezer") / "step_extern/mayfly"
    (machine,) = cluster.host.machines()
    assert str(machine["pid"]) in (ours / "cgroup.procs").read_text().split()
    cluster.run("scontrol", "suspend", number)
    cluster.wait(number, "SUSPENDED")
    state = ours / "freezer.state"
    wait_until(lambda: state.read_text() == "FROZEN\n", "the freeze")
    (cluster.work / "go").touch()
    cluster.run("scontrol", "resume", number)
    assert cluster.ended(number)["ExitCode"] == "0:0"
    (cluster.work / "go").unlink()
    assert "gone" in cluster.output(number)


def cgroup_of(cluster: Slurm, hierarchy: str) -> Path:
    """Give the cgroup of the one job that runs and has a machine."""
    (machine,) = cluster.host.machines()
    where = Path(f"/proc/{machine['pid']}/cgroup").read_text()
    path = where.partition(f":{hierarchy}:")[2].split("\n")[0]
    return Path(f"/sys/fs/cgroup/{hierarchy}{path.partition('/step_')[0]}")


def test_a_machine_that_uses_up_the_jobs_memory_ends_as_the_job_would(cluster: Slurm) -> None:
    if not CGROUPS:
        pytest.skip("no cgroups of the first version here")
    eat = "until [ -e go ]; do sleep 0.1; done; head -c 400M /dev/zero | tail | wc -c"
    number = begun(cluster, f"#!/bin/sh\necho ready\n{eat}\necho survived\n")
    job = cgroup_of(cluster, "memory")
    # As if it had been granted less: a guest alone does not get over what it is granted.
    (job / "memory.limit_in_bytes").write_text(str(330 << 20))
    (cluster.work / "go").touch()
    shown = cluster.ended(number)
    (cluster.work / "go").unlink()
    said = cluster.output(number)
    assert (shown["JobState"], shown["Restarts"]) == ("OUT_OF_MEMORY", "0"), said
    assert "640 MiB of memory that the job was granted were used up" in said
    assert "oom-kill event(s) in StepId=" in said
    assert "survived" not in said
    wait_until(lambda: nothing_left(cluster), "the machine's end")
    wait_until(lambda: not job.exists(), "the job's cgroups to be removed")


def _written(cluster: Slurm, number: str) -> str:
    try:
        return cluster.output(number)
    except OSError:
        return ""


def test_a_job_that_is_killed_leaves_no_qemu(cluster: Slurm) -> None:
    number = begun(cluster, "#!/bin/sh\necho ready\nexec sleep 600\n")
    (machine,) = cluster.host.machines()
    assert machine["job"] in {f"lab/{number}/{node}.0" for node in NODES}
    cluster.run("scancel", "--signal=KILL", "--full", number)
    cluster.ended(number)
    wait_until(lambda: nothing_left(cluster), "the machine's end")
    assert machine["pid"] not in qemus_of(cluster.host.top)


def test_each_task_of_an_array_has_its_machine(cluster: Slurm) -> None:
    words = [MEMORY, VM, "--array=1-2", "--output=out-%a"]
    number = cluster.submit(*words, script="#!/bin/sh\necho $SLURM_ARRAY_TASK_ID; hostname\n")
    wait_until(lambda: cluster.run("squeue", "-h").stdout == "", "the array", limit_s=60)
    outputs = [plain((cluster.work / f"out-{task}").read_text()).split() for task in (1, 2)]
    assert [task for task, _ in outputs] == ["1", "2"], number
    assert outputs[0][1] != outputs[1][1]


BOOT = "cat /proc/sys/kernel/random/boot_id"


def test_tasks_of_a_step_share_a_machine(cluster: Slurm) -> None:
    show = f"echo $SLURM_PROCID $({BOOT}) $(nproc); sleep 1"
    # What the second starter takes comes on top.
    done = cluster.user("srun", "-n2", "-N1", "--mem=656", VM, "sh", "-c", show)
    assert done.returncode == 0, done.stderr
    tasks, boots, cpus = zip(*sorted(map(str.split, done.stdout.splitlines())), strict=True)
    assert tasks == ("0", "1")
    assert len(set(boots)) == 1
    assert cpus == ("2", "2")
    wait_until(lambda: nothing_left(cluster), "the machine's end")


def test_steps_of_a_job_share_its_machine(cluster: Slurm) -> None:
    number = begun(cluster, f"#!/bin/sh\n{BOOT}\necho ready\nexec sleep 600\n")
    for _ in range(2):
        done = cluster.user("srun", f"--jobid={number}", "--overlap", VM, "sh", "-c", BOOT)
        assert done.returncode == 0, done.stderr
        assert done.stdout in cluster.output(number)
    assert len(cluster.host.machines()) == 1


def test_a_terminal_is_one(cluster: Slurm) -> None:
    said = cluster.in_terminal("srun", "--pty", MEMORY, VM, "sh", "-c", "tty; hostname")
    assert b"/dev/pts/" in said
    assert b"not a tty" not in said


def test_without_the_option_nothing_is_different(cluster: Slurm) -> None:
    done = cluster.user("srun", MEMORY, "hostname")
    assert (done.stdout.strip(), done.stderr) == (os.uname().nodename, "")


def test_a_queue_has_its_image_and_one_may_do_without(cluster: Slurm) -> None:
    done = cluster.user("srun", MEMORY, "--partition=virt", "hostname")
    assert done.stdout.startswith("mayfly-"), done.stderr
    done = cluster.user("srun", MEMORY, "--partition=virt", "--vm-image=none", "hostname")
    assert done.stdout.strip() == os.uname().nodename


@pytest.mark.parametrize("command", ["srun", "sbatch"])
def test_what_cannot_be_had_is_refused_in_the_terminal(cluster: Slurm, command: str) -> None:
    words = ["true"] if command == "srun" else ["--wrap=true"]
    done = cluster.user(command, MEMORY, "--vm-image=el7", *words)
    assert done.returncode != 0
    assert "mayfly: there is no image 'el7'" in done.stderr
    assert cluster.run("squeue", "-h").stdout == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gres=gpu:1"], "a machine has no GPU"),
        (["--gpus=1"], "a machine has no GPU"),
        (["--gpus-per-task=1", "--ntasks=1"], "a machine has no GPU"),
        (["--gres=nic:1"], "a machine has no network card of the host"),
        (["--exclusive", "--nodes=2"], "whole hosts for MPI have no machines"),
    ],
)
def test_what_no_machine_has_is_refused_in_the_terminal(
    cluster: Slurm, words: list[str], said: str
) -> None:
    done = cluster.user("sbatch", MEMORY, VM, *words, "--wrap=true")
    assert done.returncode != 0
    assert f"mayfly: {said}" in done.stderr
    assert cluster.run("squeue", "-h").stdout == ""


def test_a_shell_on_the_submitting_host_is_no_machine(cluster: Slurm) -> None:
    done = cluster.user("salloc", MEMORY, VM, "true")
    assert done.returncode != 0
    assert "mayfly: salloc gives a shell on this host, which is no machine" in done.stderr


def test_what_there_is_is_listed(cluster: Slurm) -> None:
    done = cluster.user("srun", "--vm-image=list")
    assert done.returncode == 0, done.stderr
    assert IMAGE in [line.split()[0] for line in done.stdout.splitlines()]


def test_too_little_memory_is_the_jobs_own_failure(cluster: Slurm) -> None:
    number = cluster.submit("--mem=100", VM, script="#!/bin/sh\ntrue\n")
    job = cluster.ended(number)
    assert (job["JobState"], job["ExitCode"], job["Restarts"]) == ("FAILED", "125:0", "0")
    assert "100 MiB of memory are too little for a machine" in cluster.output(number)


def test_a_job_whose_ticket_is_made_up_gets_no_machine(cluster: Slurm) -> None:
    ticket = '{"format":1,"system":"slurm","job":"1","key":"lab/999/n1.0","image":"debian-12"'
    ticket += ',"network":"none","network_asked":false,"allow":[],"root":true,"shares":[]'
    ticket += ',"live":true,"keep":false,"restart":0,"step":"0","shared":true'
    ticket += ',"fault":null,"reason":"","hint":""}'
    starter = str(cluster.top / "programs/starter")
    made = ["env", f"MAYFLY_TICKET={ticket}", "MAYFLY_ARGV0=id", starter]
    done = cluster.user("srun", MEMORY, *made)
    assert done.returncode == 125
    assert "no job 'lab/999/n1.0' is registered on this host" in done.stderr


def test_when_mayfly_fails_the_job_is_begun_again(cluster: Slurm) -> None:
    # As if the host service were not there: other jobs' is.
    cluster.set(socket=f"{cluster.top}/none", tries=1)
    number = cluster.submit(MEMORY, VM, "--open-mode=append", script="#!/bin/sh\nhostname\n")
    wait_until(lambda: cluster.job(number)["Restarts"] == "1", "the job's return", limit_s=60)
    cluster.set(live=[str(cluster.home)])
    assert "no host service listens" in cluster.run("squeue", "-h", "-o", "%k").stdout
    cluster.run("scontrol", "update", f"jobid={number}", "StartTime=now")
    assert cluster.ended(number)["ExitCode"] == "0:0"
    assert "mayfly-" in cluster.output(number)


def test_a_warning_signal_reaches_the_job(cluster: Slurm) -> None:
    script = "#!/bin/sh\ntrap 'echo warned' USR1\necho ready\nwhile :; do sleep 1; done\n"
    number = begun(cluster, script)
    cluster.run("scancel", "--batch", "--signal=USR1", number)
    wait_until(lambda: "warned" in _written(cluster, number), "the warning")
    assert cluster.state(number) == "RUNNING"


def test_the_one_switch_turns_it_all_off(cluster: Slurm) -> None:
    cluster.set(enabled=False)
    done = cluster.user("srun", MEMORY, VM, "true")
    assert done.returncode != 0
    assert "machines for jobs are switched off" in done.stderr
    done = cluster.user("srun", MEMORY, "--partition=virt", "hostname")
    assert done.stdout.strip() == os.uname().nodename


def test_a_host_that_is_sick_takes_itself_out_and_comes_back(cluster: Slurm) -> None:
    def state() -> str:
        return cluster.run("sinfo", "-h", "-N", "-n", "n1", "-p", "main", "-o", "%T %E").stdout

    health = ["env", "SLURMD_NODENAME=n1", f"{cluster.top}/programs/health"]
    cluster.host.ask("drain")
    try:
        assert cluster.run(*health).stdout == "drained: in service: drained\n"
        wait_until(lambda: state() == "drained mayfly: in service: drained\n", "the drain")
        done = cluster.user("srun", MEMORY, "--partition=main", "printenv", "SLURMD_NODENAME")
        assert done.stdout == "n2\n"
    finally:
        cluster.host.ask("undrain")
    assert cluster.run(*health).stdout == "resumed\n"
    wait_until(lambda: state().startswith("idle"), "the node")
    # What an admin has drained stays so.
    cluster.run("scontrol", "update", "nodename=n1", "state=drain", "reason=a broken fan")
    assert cluster.run(*health).stdout == "well\n"
    assert "a broken fan" in state()
    cluster.run("scontrol", "update", "nodename=n1", "state=resume")
