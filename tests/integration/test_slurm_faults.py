"""Jobs of a real Slurm in machines, when something goes wrong around them."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mayfly.errors import MayflyError
from mayfly.host import client
from tests.integration.faults import qemus_of
from tests.integration.host import IMAGE, MARKS, User, acting_as, host_of
from tests.integration.slurm import NODES, TOOLS, USER, Slurm, home_with_policy, slurm_of
from tests.integration.waiting import wait_until

pytestmark = [
    *MARKS,
    pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason="Slurm is not installed"),
]

VM = f"--vm-image={IMAGE}"
MEMORY = "--mem=640"
CGROUPS = Path("/sys/fs/cgroup/memory/cgroup.procs").exists()
BOOT = "cat /proc/sys/kernel/random/boot_id"
MANY = int(os.environ.get("MAYFLY_TEST_JOBS", "16"))
"""Jobs of the tests with many; by hand, 100."""
LEFT_BEFORE: set[Path] = set()
WAITS = "#!/bin/sh\necho ready\nuntil [ -e go ]; do sleep 0.1; done\necho done\n"


@pytest.fixture(scope="module")
def slurm(warm_home: Path) -> Iterator[Slurm]:
    """A cluster of its own: its daemons are killed and its nodes are broken."""
    settings = f'requests = "registered"\n[[standby]]\nimage = "{IMAGE}"\nleast = 2\nmost = 2\n'
    with (
        home_with_policy(warm_home) as home,
        host_of(home, settings) as host,
        slurm_of(host, cgroups=CGROUPS) as cluster,
    ):
        host.refilled(2)
        # Another run, of a user with the same number, may have been killed.
        LEFT_BEFORE.update(cgroups())
        yield cluster


@pytest.fixture
def cluster(slurm: Slurm) -> Iterator[Slurm]:
    """That cluster; nothing of a test's jobs is there before or after."""
    (slurm.work / "go").unlink(missing_ok=True)
    yield slurm
    slurm.clean()
    wait_until(lambda: nothing_left(slurm), "the machines' and the rights' ends", limit_s=30)
    slurm.up()


def nothing_left(slurm: Slurm) -> bool:
    """Tell whether no job has a machine or a right, and no cgroup is left that we made."""
    rights = list((slurm.host.state / "rights").iterdir())
    return slurm.host.machines() == [] and rights == [] and not cgroups() - LEFT_BEFORE


def cgroups() -> set[Path]:
    """Give the cgroups of machines, whosever they are."""
    return set(
        Path("/sys/fs/cgroup/freezer").glob(f"slurm_*/uid_{_uid()}/job_*/step_extern/mayfly")
    )


def _uid() -> str:
    with contextlib.suppress(KeyError):
        return str(pwd.getpwnam(USER).pw_uid)
    return "none"


def written(cluster: Slurm, number: str) -> str:
    """Give what a job wrote so far."""
    with contextlib.suppress(OSError):
        return cluster.output(number)
    return ""


def begun(cluster: Slurm, script: str = WAITS, *words: str) -> str:
    """Submit a job whose first line is ``ready``, and wait for that."""
    number = cluster.submit(MEMORY, VM, *words, script=script)
    wait_until(lambda: "ready" in written(cluster, number), "the job", limit_s=60)
    return number


def well_ended(cluster: Slurm, number: str) -> None:
    """Let a job go on to its end, which is a good one."""
    (cluster.work / "go").touch()
    job = cluster.ended(number)
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "0"), written(cluster, number)
    assert written(cluster, number).endswith("done\n")


@pytest.mark.parametrize("daemon", ["slurmctld", "slurmd"])
def test_a_job_goes_on_while_a_daemon_is_killed(cluster: Slurm, daemon: str) -> None:
    number = begun(cluster, WAITS, "--nodelist=n1")
    if daemon == "slurmctld":
        cluster.kill("slurmctld")
        cluster.start_controller()
    else:
        cluster.kill("slurmd.n1")
        cluster.start_node("n1")
    wait_until(lambda: cluster.state(number) == "RUNNING", "the job to be seen", limit_s=30)
    well_ended(cluster, number)
    assert cluster.job(number)["NodeList"] == "n1"


def test_a_job_goes_on_while_the_host_service_is_killed(cluster: Slurm) -> None:
    number = begun(cluster)
    (machine,) = cluster.host.machines()
    cluster.host.restart(signal.SIGKILL)
    wait_until(lambda: len(cluster.host.machines("running")) == 1, "the machine")
    # Who comes later gets in as before.
    done = cluster.user("srun", f"--jobid={number}", "--overlap", VM, "cat", "/etc/hostname")
    assert done.stdout == f"mayfly-{machine['id']}\n", done.stderr
    well_ended(cluster, number)


def test_a_job_whose_end_nobody_told_of_is_missed(cluster: Slurm) -> None:
    if not CGROUPS:
        pytest.skip("no cgroups of the first version here")
    number = begun(cluster)
    (machine,) = cluster.host.machines()
    cluster.host.end(signal.SIGKILL)
    cluster.run("scancel", number)
    job = cluster.ended(number)
    assert job["JobState"] == "CANCELLED"
    wait_until(lambda: cluster.run("squeue", "-h").stdout == "", "the epilog", limit_s=60)
    # No epilog of ours puts a node out of service.
    cluster.up()
    assert machine["pid"] in qemus_of(cluster.host.top)
    cluster.host.start()
    wait_until(lambda: nothing_left(cluster), "the machine's end", limit_s=30)
    assert machine["pid"] not in qemus_of(cluster.host.top)


def test_when_qemu_is_killed_the_job_is_begun_again(cluster: Slurm) -> None:
    number = begun(cluster, WAITS, "--open-mode=append")
    (machine,) = cluster.host.machines()
    os.kill(machine["pid"], signal.SIGKILL)
    wait_until(lambda: cluster.job(number)["Restarts"] == "1", "the job's return", limit_s=30)
    (cluster.work / "go").touch()
    cluster.run("scontrol", "update", f"jobid={number}", "StartTime=now")
    assert cluster.ended(number)["JobState"] == "COMPLETED"
    said = cluster.output(number)
    assert "the machine ended before the job did: its QEMU ended" in said
    assert "the job is begun again, from its beginning (try 2)" in said
    assert said.endswith("done\n")


def test_a_job_that_slurm_takes_back_begins_again_in_a_fresh_machine(cluster: Slurm) -> None:
    script = f"#!/bin/sh\n{BOOT}\n" + WAITS.partition("\n")[2]
    number = begun(cluster, script, "--open-mode=append", "--nodelist=n1")
    cluster.run("scontrol", "requeue", number)
    wait_until(lambda: cluster.job(number)["Restarts"] == "1", "the job's return", limit_s=30)
    # At once: what is left of the first machine is just being cleared away.
    cluster.run("scontrol", "update", f"jobid={number}", "StartTime=now")
    wait_until(lambda: written(cluster, number).count("ready") == 2, "the second try", limit_s=60)
    (cluster.work / "go").touch()
    assert cluster.ended(number)["JobState"] == "COMPLETED"
    said = cluster.output(number)
    boots = [line for line in said.splitlines() if line.count("-") == 4 and " " not in line]
    assert len(set(boots)) == 2, said
    assert "the job is begun again, from its beginning (try 2)" in said


@pytest.mark.parametrize("moment", ["right", "machine", "session"])
def test_a_job_that_is_cancelled_as_it_starts_leaves_nothing(cluster: Slurm, moment: str) -> None:
    # Of a size of which no machine stands by: it has to be made.
    words = ["--mem=700", "--nodelist=n1", VM]
    number = cluster.submit(*words, script="#!/bin/sh\nexec sleep 600\n")
    rights = cluster.host.state / "rights"
    states = {"right": lambda: any(rights.glob(f"lab%{number}%*.json"))}
    states["machine"] = lambda: cluster.host.machines() != []
    states["session"] = lambda: cluster.host.machines("running") != []
    wait_until(states[moment], moment, limit_s=60)
    cluster.run("scancel", number)
    assert cluster.ended(number)["JobState"] == "CANCELLED"
    wait_until(lambda: nothing_left(cluster), "the machine's end", limit_s=30)


def test_another_job_of_the_user_gets_not_into_the_machine(cluster: Slurm) -> None:
    if not CGROUPS:
        pytest.skip("no cgroups of the first version here")
    number = begun(cluster)
    (machine,) = cluster.host.machines()
    key = machine["job"]
    # This process is as an ssh login of the user: of no job.
    for op in ("join", "claim"):
        with acting_as(User(uid=cluster.uid)):
            connection = client.require(cluster.host.socket)
        fields = {"job": key, "image": IMAGE, "cpus": None, "memory_mib": None}
        with contextlib.closing(connection), pytest.raises(MayflyError) as caught:
            client.call(connection, op, fields)
        assert "is not of the job" in caught.value.message or "machines already" in str(
            caught.value
        )
    code = "import sys; sys.path.insert(0, sys.argv[1])\nfrom mayfly.host import client\n"
    code += "from pathlib import Path\nconnection = client.require(Path(sys.argv[2]))\n"
    code += "client.call(connection, 'join', {'job': sys.argv[3]})"
    source = str(Path(client.__file__).parents[2])
    words = ["/usr/bin/python3", "-c", code, source, str(cluster.host.socket), key]
    done = cluster.user("srun", "--mem=100", *words)
    assert done.returncode != 0
    assert "this process is not of the job" in done.stderr
    well_ended(cluster, number)


def test_jobs_of_root_run_too(cluster: Slurm) -> None:
    done = cluster.run("srun", MEMORY, VM, "sh", "-c", "id -u; hostname", cwd=Path("/tmp"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("0\nmayfly-")


def test_a_user_without_a_home_directory_has_jobs(cluster: Slurm) -> None:
    name = f"{USER}-x"
    subprocess.run(
        ["useradd", "-M", "-U", "--home-dir=/nonexistent/home", "--shell=/bin/sh", name], check=True
    )
    try:
        uid = subprocess.run(["id", "-u", name], check=True, capture_output=True, text=True)
        number = uid.stdout.strip()
        ids = ["setpriv", f"--reuid={number}", f"--regid={number}", "--clear-groups"]
        command = ["srun", MEMORY, VM, "sh", "-c", "id -un; pwd"]
        done = cluster.run(*ids, *command, cwd=Path("/"))
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{name}\n")
        wait_until(lambda: nothing_left(cluster), "the machine's end", limit_s=30)
    finally:
        subprocess.run(["userdel", name], check=True, stderr=subprocess.DEVNULL)


def test_two_jobs_of_a_user_on_a_host_have_a_machine_each(cluster: Slurm) -> None:
    script = f"#!/bin/sh\n{BOOT}\n" + WAITS.partition("\n")[2]
    numbers = [begun(cluster, script, "--nodelist=n1") for _ in range(2)]
    boots = {written(cluster, number).splitlines()[-2] for number in numbers}
    assert len(boots) == 2
    for number in numbers:
        well_ended(cluster, number)


def test_many_tasks_of_an_array_in_one_directory(cluster: Slurm) -> None:
    script = "#!/bin/sh\necho $SLURM_ARRAY_TASK_ID >>all.$SLURM_ARRAY_TASK_ID\n"
    words = [MEMORY, VM, f"--array=1-{MANY}", "--output=/dev/null"]
    cluster.submit(*words, script=script)
    wait_until(lambda: cluster.run("squeue", "-h").stdout == "", "the array", limit_s=60 + 4 * MANY)
    found = sorted(int(path.read_text()) for path in cluster.work.glob("all.*"))
    assert found == list(range(1, MANY + 1))


def test_of_two_hosts_one_broken_one_loses_no_job(cluster: Slurm, tmp_path: Path) -> None:
    broken = tmp_path / "batch.toml"
    broken.write_text(f'socket = "{cluster.top}/none"\n')
    cluster.run("scontrol", "update", "nodename=n2", "state=down", "reason=a test")
    pid = cluster.pid_of("slurmd.n2")
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the node's end", limit_s=30)
    cluster.start_node("n2", settings=broken)
    cluster.run("scontrol", "update", "nodename=n2", "state=resume")
    cluster.up()
    health = ["env", "SLURMD_NODENAME=n2", "unshare", "--mount", "sh", "-c"]
    health += [
        f"mount --bind {broken} {cluster.top}/batch.toml; exec {cluster.top}/programs/health"
    ]
    numbers = [
        cluster.submit(
            MEMORY, VM, "--output=/dev/null", script=f"#!/bin/sh\necho x >end.{number}\n"
        )
        for number in range(MANY)
    ]
    try:
        # As slurmd would, with HealthCheckProgram, at some time.
        assert cluster.run(*health).stdout.startswith("drained: no host service listens")
        wait_until(lambda: quickened(cluster), "all jobs", limit_s=60 + 4 * MANY)
        states = {cluster.state(number) for number in numbers}
        restarts = [int(cluster.job(number)["Restarts"]) for number in numbers]
        assert states == {"COMPLETED"}
        assert len(list(cluster.work.glob("end.*"))) == MANY
        # It took some before it was drained, and none of them a second time.
        assert max(restarts) <= 1, restarts
    finally:
        cluster.run("scontrol", "update", "nodename=n2", "state=down", "reason=a test")
        os.kill(cluster.pid_of("slurmd.n2"), signal.SIGTERM)
        wait_until(lambda: not _is_up(cluster, "n2"), "the node's end", limit_s=30)
        cluster.start_node("n2")
        cluster.run("scontrol", "update", "nodename=n2", "state=resume")


def quickened(cluster: Slurm) -> bool:
    """Tell whether all jobs have ended; those that were given back need not wait out their time."""
    waiting = cluster.run("squeue", "-h", "-t", "PENDING", "-o", "%i %r").stdout.splitlines()
    for line in waiting:
        number, _, reason = line.partition(" ")
        if reason == "BeginTime":
            cluster.run("scontrol", "update", f"jobid={number}", "StartTime=now")
    return cluster.run("squeue", "-h").stdout == ""


def _is_up(cluster: Slurm, node: str) -> bool:
    file = cluster.top / f"slurmd.{node}.pid"
    return file.exists() and Path(f"/proc/{file.read_text().strip()}").exists()


assert NODES == ("n1", "n2")
