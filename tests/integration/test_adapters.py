"""Jobs of batch systems that cannot be had here, in real machines: only the daemons lack."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.adapters import Site, site_of
from tests.integration.host import IMAGE, MARKS
from tests.integration.waiting import wait_until
from tests.unit.batch.pbs.fake import launch

pytestmark = MARKS
SCRIPT = (
    b'#!/bin/sh\nhostname; id -un; echo $0 | sed s,.*/,,; cat; pwd >where; echo "$A" >&2; exit 3\n'
)
A = 'it\'s; "$(id)" `x`'


@pytest.fixture(scope="module")
def site(warm_home: Path) -> Iterator[Site]:
    """A host service with an image and a policy."""
    with site_of(warm_home) as made:
        yield made


def check_ran(site: Site, done_code: int, out: str, err: str, name: str) -> None:
    """See that the script above ran in a machine, in the live directory of the user."""
    assert done_code == 3, (out, err, site.host.log.read_text())
    hostname, user, script = out.splitlines()
    assert hostname != os.uname().nodename
    assert (user, script) == (site.user.name, name)
    assert f"machine of {IMAGE}, network none; working directory {site.work} (live)" in err
    assert err.splitlines()[-1] == A
    assert (site.work / "where").read_text() == f"{site.work}\n"
    (site.work / "where").unlink()


def spooled(site: Site, name: str, content: bytes = SCRIPT) -> Path:
    """Put a job's script where a batch system would."""
    script = site.top / name
    script.write_bytes(content)
    script.chmod(0o700)
    os.chown(script, site.user.uid, site.user.uid)
    return script


def test_torque(site: Site) -> None:
    home = site.top / "torque"
    (home / "mom_priv").mkdir(parents=True)
    (home / "server_name").write_text("srv\n")
    user, job = site.user.name, "17.srv.example.org"
    qstat = f"""\
Job Id: {job}
    Job_Owner = root@login
    queue = batch
    exec_host = node1/0
    Resource_List.mem = 640mb
    Variable_List = PBS_O_WORKDIR={site.work},vm_image={IMAGE}
"""
    site.tool("qstat", f"test \"$*\" = '-f {job}' && cat <<'EOF'\n{qstat}EOF\n")
    site.mayfly("install", "pbs", f"--conf={home}")
    starter = site.programs / "starter"
    assert (home / "mom_priv/config").read_text().split()[-5:-4] == [str(starter)]
    env = {"PBS_JOBID": job, "PBS_O_WORKDIR": str(site.work), "A": A}
    script = spooled(site, f"{job}.SC")

    begun = site.call(
        home / "mom_priv/prologue", job, user, user, "STDIN", "mem=640mb", "batch", ""
    )
    assert begun.returncode == 0, begun.stderr
    told = f"{script}\n".encode()
    done = site.as_user([str(starter), "/bin/bash", "-bash"], env, told)
    check_ran(site, done.returncode, done.stdout.decode(), done.stderr.decode(), script.name)
    ended = site.call(home / "mom_priv/epilogue", job, user, user, "STDIN", "1", "", "", "batch")
    assert ended.returncode == 0, ended.stderr
    site.nothing_left()

    # A job that nobody registered is a plain one; so is one that asks for nothing.
    plain = site.as_user([str(starter), "/bin/sh"], {**env, "PBS_JOBID": "18.srv"}, b"uname -n")
    assert plain.stdout.decode().strip() == os.uname().nodename
    failed = site.call(home / "mom_priv/prologue", "18.srv", user)
    assert failed.returncode == 2
    site.mayfly("uninstall", "pbs", f"--conf={home}", "--yes")
    assert list((home / "mom_priv").iterdir()) == []


def test_openpbs(site: Site) -> None:
    conf = site.top / "pbs.conf"
    conf.write_text("PBS_SERVER=srv\n")
    site.mayfly("install", "pbs", f"--conf={conf}")
    hook = site.programs / "hook.py"
    asked = {"mem": "640mb", "ncpus": "1"}

    def event(name: str) -> tuple[list[str], bool]:
        told = launch(hook, name, resources=asked, user=site.user.name, queue="virt")
        assert told.accepted
        return told.argv, told.rerun

    argv, _ = event("EXECJOB_LAUNCH")
    script = spooled(site, "7.srv.SC")
    env = {"PBS_JOBID": "7.srv", "PBS_O_WORKDIR": str(site.work), "A": A}
    done = site.as_user(argv, env, f"{script}\n".encode())
    check_ran(site, done.returncode, done.stdout.decode(), done.stderr.decode(), script.name)
    assert event("EXECJOB_EPILOGUE")[1] is False
    site.nothing_left()

    # Mayfly's failure: the job says why, and is begun again.
    site.set(socket=str(site.top / "nobody"))
    try:
        argv, _ = event("EXECJOB_LAUNCH")
        done = site.as_user(argv, env, f"{script}\n".encode())
        assert (done.returncode, b"begun again" in done.stderr) == (99, True), done.stderr
        assert event("EXECJOB_EPILOGUE")[1] is True
    finally:
        site.set()
    site.mayfly("uninstall", "pbs", f"--conf={conf}", "--yes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """What stands in for an HTCondor: a program that root runs and that has a job as its child."""

    site: Site
    scratch: Path

    @property
    def condor_starter(self) -> Path:
        """The program that is believed."""
        return self.site.top / "condor_starter"

    @property
    def failure(self) -> Path:
        """Where the wrapper says that Mayfly failed."""
        return self.scratch / ".job_wrapper_failure"

    @property
    def env(self) -> dict[str, str]:
        """A job's variables."""
        own = {"HOME": "/", "PATH": "/usr/bin:/bin", "A": A}
        own["_CONDOR_JOB_AD"] = str(self.scratch / ".job.ad")
        return {**own, "_CONDOR_WRAPPER_ERROR_FILE": str(self.failure)}

    def wants(self, ad: str) -> None:
        """Say what the job's ad is."""
        (self.scratch / ".job.ad").write_text(ad)

    def job(self, slot: str, command: str = "./condor_exec.exe") -> tuple[int, str, str]:
        """Run a job in a slot; gives exit status, output, errors."""
        user = f"setpriv --reuid={self.site.user.uid} --regid={self.site.user.uid} --clear-groups"
        line = f"{user} {self.site.programs}/starter {command} </dev/null; exit $?"
        done = subprocess.run(
            [str(self.condor_starter), "-c", line, "-a", slot, "host"],
            cwd=self.scratch,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )
        return done.returncode, done.stdout, done.stderr

    def failed(self) -> str:
        """Give why Mayfly failed, "" when it has not, and forget it."""
        reason = self.failure.read_text() if self.failure.exists() else ""
        self.failure.unlink(missing_ok=True)
        return reason


@pytest.fixture
def pool(site: Site) -> Iterator[Pool]:
    """A host of a pool, into which Mayfly was put, and its registrar."""
    conf = site.top / "config.d"
    conf.mkdir()
    made = Pool(site=site, scratch=site.work / "dir_7")
    shutil.copy("/bin/dash", made.condor_starter)
    values = f"STARTER) echo {made.condor_starter};; DAEMON_LIST) echo STARTD;; *) exit 1;;"
    site.tool("condor_config_val", f"case $1 in {values} esac\n")
    slot = 'Name = "slot1_1@h"\nJobId = "12.0"\nGlobalJobId = "s#12.0#1"\nCpus = 1\nMemory = 640'
    site.tool("condor_status", f"case \"$*\" in *slot1_1*) cat <<'EOF'\n{slot}\nEOF\nesac\n")
    site.mayfly("install", "htcondor", f"--conf={conf}")
    made.scratch.mkdir()
    program = made.scratch / "condor_exec.exe"
    program.write_bytes(SCRIPT.replace(b"pwd >where", b"pwd >../where"))
    program.chmod(0o755)
    shutil.chown(made.scratch, site.user.uid)
    registrar = subprocess.Popen([str(site.programs / "registrar")], env={})
    try:
        wait_until(site.host.socket.with_name("htcondor.sock").exists, "the registrar to listen")
        yield made
    finally:
        registrar.terminate()
        registrar.wait(30)
    site.mayfly("uninstall", "htcondor", f"--conf={conf}", "--yes")
    assert list(conf.iterdir()) == []


def test_htcondor(site: Site, pool: Pool) -> None:
    pool.wants(f'ClusterId = 12\nProcId = 0\nVMImage = "{IMAGE}"\n')
    code, out, err = pool.job("slot1_1@h")
    assert (code, "(live)" in err, pool.failed()) == (3, True, ""), err
    hostname, name, program = out.splitlines()
    assert hostname != os.uname().nodename
    assert (name, program) == (site.user.name, "condor_exec.exe")
    assert (site.work / "where").read_text() == f"{pool.scratch}\n"
    site.nothing_left()

    # Nobody but a job of HTCondor's gets one; nor does one of which the startd does not know.
    outside = site.as_user([str(site.programs / "starter"), "/bin/true"], pool.env)
    assert outside.returncode == 125
    assert "only a job that HTCondor has started" in pool.failed()
    assert pool.job("slot9")[0] == 125
    assert "names no job" in pool.failed()

    # What the user does wrong is not Mayfly's failure; and what asks for nothing runs as always.
    pool.wants('VMImage = "el5"\n')
    code, _, err = pool.job("slot1_1")
    assert (code, "el5" in err, pool.failed()) == (125, True, "")
    pool.wants("Cmd = 1\n")
    assert pool.job("slot1_1", "uname -n")[1].strip() == os.uname().nodename


def test_lsf(site: Site) -> None:
    conf, server = site.top / "lsb.queues", site.top / "server"
    server.mkdir()
    conf.write_text("Begin Queue\nQUEUE_NAME = normal\nEnd Queue\n")
    shown = f"{site.user.name}|normal|1|node1|640 M|-"
    site.tool("bjobs", f"test \"$4\" = '9[2]' && echo '{shown}'\n")
    site.mayfly("install", "lsf", f"--conf={conf}", LSF_SERVERDIR=str(server))
    (site.work / ".lsbatch").mkdir()
    script = site.work / ".lsbatch/1700.9.shell"
    script.write_bytes(SCRIPT)
    os.chown(script, site.user.uid, site.user.uid)

    submitted = site.top / "env"
    env = {"LSB_SUB_MODIFY_ENVFILE": str(submitted)}
    assert site.call(server / "esub.mayfly", f"image={IMAGE}", env=env).returncode == 0
    name, _, value = submitted.read_text().strip().partition("=")
    env = {"LSB_JOBID": "9", "LSB_JOBINDEX": "2", name: value.strip('"'), "A": A}
    begun = site.call(site.programs / "register", env=env)
    assert begun.returncode == 0, begun.stderr
    starter = str(site.programs / "starter")
    done = site.as_user([starter, str(script)], env)
    check_ran(site, done.returncode, done.stdout.decode(), done.stderr.decode(), script.name)
    assert site.call(site.programs / "release", env=env).returncode == 0
    site.nothing_left()

    # Of another job LSF knows nothing; and one whose ticket is not there is begun again elsewhere.
    other = {**env, "LSB_JOBINDEX": "3"}
    assert site.call(site.programs / "register", env=other).returncode == 1
    done = site.as_user([starter, "echo a; exit 4"], other)
    assert (done.returncode, b"PRE_EXEC" in done.stderr) == (99, True), done.stderr
    plain = site.as_user([starter, "uname -n; exit 4"], {**other, name: "image=none"})
    assert (plain.returncode, plain.stdout.decode().strip()) == (4, os.uname().nodename)
    site.mayfly("uninstall", "lsf", f"--conf={conf}", "--yes")
    assert conf.read_text() == "Begin Queue\nQUEUE_NAME = normal\nEnd Queue\n"
    assert list(server.iterdir()) == []
