"""A real Slurm of a test's own: munged, slurmctld and two slurmds in one directory, no systemd."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.host import Host
from tests.integration.waiting import gone, wait_until

TOOLS = ("munged", "slurmctld", "slurmd", "srun", "gcc")
NODES = ("n1", "n2")
LIMIT_S = 60
MUNGE = ("--force", "--num-threads=2")
USER = f"mayfly-{os.getpid()}"
"""Of these tests alone, as those of another run may be there too."""
PORTS = range(17_600, 18_600, 4)


@dataclass(slots=True, kw_only=True)
class Slurm:
    """A cluster; everything of it lies beneath one directory."""

    top: Path
    port: int
    host: Host
    extra: str = ""
    """More lines of slurm.conf."""
    cgroups: bool = False
    others: list[int] = field(default_factory=list)

    @property
    def uid(self) -> int:
        """Give who its user is."""
        return pwd.getpwnam(USER).pw_uid

    @property
    def conf(self) -> Path:
        """Give its configuration."""
        return self.top / "slurm.conf"

    @property
    def home(self) -> Path:
        """Give the user's home directory."""
        return self.top / "home"

    @property
    def work(self) -> Path:
        """Give a directory of the user's."""
        return self.home / "work"

    def environment(self) -> dict[str, str]:
        """Give what its commands need."""
        plain = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": str(self.home)}
        return {**plain, "SLURM_CONF": str(self.conf), "USER": USER}

    # --- life ------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Write what the daemons read."""
        self.top.chmod(0o755)
        for name in ("state", "plugstack.conf.d"):
            (self.top / name).mkdir()
        (self.top / "munge").mkdir(mode=0o700)
        key = self.top / "munge/key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        for place in (self.home, self.work):
            place.mkdir()
            os.chown(place, self.uid, self.uid)
        self.conf.write_text(self._conf())
        if self.cgroups:
            (self.top / "cgroup.conf").write_text(
                "CgroupPlugin=cgroup/v1\nConstrainRAMSpace=yes\nConstrainCores=yes\n"
                "AllowedRAMSpace=100\nCgroupAutomount=no\n"
            )

    def _conf(self) -> str:
        here = socket.gethostname().split(".")[0]
        ports = f"[{self.port + 1}-{self.port + len(NODES)}]"
        track = "cgroup" if self.cgroups else "linuxproc"
        flags = "Contain" if self.cgroups else "Alloc"
        return f"""\
ClusterName=lab
SlurmctldHost={here}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={self.top}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmctldPort={self.port}
StateSaveLocation={self.top}/state
SlurmdSpoolDir={self.top}/spool.%n
SlurmctldPidFile={self.top}/slurmctld.pid
SlurmdPidFile={self.top}/slurmd.%n.pid
SlurmctldLogFile={self.top}/slurmctld.log
SlurmdLogFile={self.top}/slurmd.%n.log
ProctrackType=proctrack/{track}
TaskPlugin=task/{"cgroup" if self.cgroups else "none"}
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0
ReturnToService=2
KillWait=5
SlurmdTimeout=60
MailProg=/bin/true
SlurmdParameters=config_overrides
PrologFlags={flags}
JobRequeue=1
GresTypes=gpu,nic
NodeName={NODES[0]},{NODES[1]} NodeHostname={here} NodeAddr=127.0.0.1 Port={ports} \
CPUs=2 RealMemory=3000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES State=UP
PartitionName=virt Nodes=ALL State=UP
{self.extra}"""

    def set(self, **settings: object) -> None:
        """Write the site's settings."""
        values = {"socket": str(self.host.socket), **settings}
        lines = [f"{name} = {json.dumps(value)}\n" for name, value in values.items()]
        (self.top / "batch.toml").write_text("".join(lines))

    def start(self) -> None:
        """Start the daemons and wait until both nodes take jobs."""
        munge = self.top / "munge"
        files = [f"--key-file={munge}/key", f"--socket={self.top}/munge.socket"]
        files += [f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed"]
        self._root("munged", *MUNGE, *files)
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        self.up()

    def up(self) -> None:
        """Wait until both nodes take jobs."""
        wait_until(self._is_up, f"the nodes: {self.log()}", limit_s=LIMIT_S)

    def start_controller(self) -> None:
        """Start slurmctld."""
        self._root("slurmctld", "-f", str(self.conf))

    def start_node(self, node: str, *, settings: Path | None = None) -> None:
        """Start the slurmd of a node; ``settings``: what it has as the site's, if others."""
        argv = ["slurmd", "-f", str(self.conf), "-N", node]
        if settings is not None:
            # What runs on that node alone sees another file: as if it were another host.
            bind = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
            places = [str(settings), str(self.top / "batch.toml")]
            argv = ["unshare", "--mount", "sh", "-c", bind, "sh", *places, *argv]
        self._root(*argv)

    def pid_of(self, daemon: str) -> int:
        """Give the process of ``slurmctld``, or of ``slurmd.NODE``."""
        return int((self.top / f"{daemon}.pid").read_text())

    def kill(self, daemon: str) -> None:
        """End a daemon at once, and wait until it is gone."""
        pid = self.pid_of(daemon)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: gone(pid), daemon, limit_s=LIMIT_S)

    def _root(self, *argv: str) -> None:
        null = subprocess.DEVNULL
        env = self.environment()
        subprocess.run(argv, check=True, env=env, stdin=null, stdout=null, stderr=null, timeout=60)

    def _is_up(self) -> bool:
        return self.run("sinfo", "-h", "-p", "main", "-t", "idle", "-o", "%D").stdout == "2\n"

    def log(self) -> str:
        """Give where to look."""
        return f"see {self.top}/*.log"

    def stop(self) -> None:
        """End the daemons that were started, and nothing else."""
        pids = [self.top / f"slurmd.{node}.pid" for node in NODES]
        for file in (*pids, self.top / "slurmctld.pid", self.top / "munge/pid"):
            with contextlib.suppress(OSError, ValueError):
                pid = int(file.read_text())
                os.kill(pid, signal.SIGTERM)
                wait_until(lambda pid=pid: gone(pid), str(file), limit_s=LIMIT_S)  # type: ignore[misc]

    # --- commands --------------------------------------------------------------------------------

    def argv(self, *words: str, root: bool = False) -> list[str]:
        """Give a command as the user runs it."""
        ids = ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups"]
        return [*([] if root else ids), *words]

    def run(
        self, *words: str, stdin: str = "", root: bool = True, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, as root unless said otherwise."""
        return subprocess.run(
            self.argv(*words, root=root),
            check=False,
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            env=self.environment(),
            cwd=cwd or self.work,
            timeout=LIMIT_S,
        )

    def user(
        self, *words: str, stdin: str = "", cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the user's to its end."""
        return self.run(*words, stdin=stdin, root=False, cwd=cwd)

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """Start a command of the user's."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            self.argv(*words),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
            env=self.environment(),
            cwd=self.work,
        )

    def in_terminal(self, *words: str, typed: bytes = b"") -> bytes:
        """Run a command of the user's in a terminal, to its good end; gives what it showed."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(self.work)
            argv = self.argv(*words)
            os.execvpe(argv[0], argv, self.environment())
        said = b""
        os.write(terminal, typed)
        try:
            while piece := os.read(terminal, 4096):
                said += piece
        except OSError:
            pass  # it hangs up when the job has ended
        finally:
            os.close(terminal)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, said
        return said

    def submit(self, *words: str, script: str) -> str:
        """Submit a batch job; gives its number."""
        done = self.user("sbatch", "--parsable", *words, stdin=script)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """Give what Slurm knows of a job."""
        text = self.run("scontrol", "show", "job", "-o", number).stdout
        return dict(word.partition("=")[::2] for word in text.split(" ") if "=" in word)

    def state(self, number: str) -> str:
        """Give a job's state."""
        return self.job(number).get("JobState", "")

    def wait(self, number: str, *states: str) -> dict[str, str]:
        """Wait until a job is in one of these states."""
        wait_until(lambda: self.state(number) in states, f"{number}: {states}", limit_s=LIMIT_S)
        return self.job(number)

    def ended(self, number: str) -> dict[str, str]:
        """Wait for a job's end."""
        return self.wait(
            number, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL"
        )

    def output(self, number: str, name: str = "slurm-{}.out") -> str:
        """Give what a job wrote."""
        return (self.work / name.format(number)).read_text(errors="replace")

    def clean(self) -> None:
        """End all jobs, and wait until nothing of them is there."""
        self.run("scancel", "--user", USER)
        wait_until(lambda: self.run("squeue", "-h").stdout == "", "the jobs", limit_s=LIMIT_S)
        self.host.emptied()


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def free_ports() -> int:
    """Give the first of some ports that nobody listens on; another run looks elsewhere."""
    first = os.getpid() % len(PORTS)
    for at in range(len(PORTS)):
        port = PORTS[(first + at) % len(PORTS)]
        if all(_is_free(number) for number in range(port, port + 1 + len(NODES))):
            return port
    raise AssertionError("no port is free")


@contextlib.contextmanager
def user_account(home: Path) -> Iterator[None]:
    """Have a user that the system knows: slurmd wants a name."""
    subprocess.run(
        ["useradd", "-M", "-U", f"--home-dir={home}", "--shell=/bin/bash", USER],
        check=True,
    )
    try:
        yield
    finally:
        subprocess.run(["userdel", USER], check=True, stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def slurm_of(host: Host, *, cgroups: bool = False, extra: str = "") -> Iterator[Slurm]:
    """Give a cluster whose nodes have this host service; all of it is gone afterwards."""
    top = Path(tempfile.mkdtemp(prefix="mayfly-slurm-", dir="/var/tmp"))
    slurm = Slurm(top=top, port=free_ports(), host=host, cgroups=cgroups, extra=extra)
    try:
        with user_account(slurm.home):
            slurm.prepare()
            slurm.set(live=[str(slurm.home)])
            install(slurm)
            slurm.start()
            try:
                yield slurm
            finally:
                slurm.stop()
    finally:
        shutil.rmtree(top, ignore_errors=True)


def install(slurm: Slurm, *words: str) -> subprocess.CompletedProcess[str]:
    """Install Mayfly there by its own command."""
    return mayfly(slurm, "batch", "install", "slurm", *words, *places(slurm))


def places(slurm: Slurm) -> list[str]:
    """Give the options that say where things are."""
    conf, programs = f"--conf={slurm.conf}", f"--programs={slurm.top}/programs"
    return [conf, programs, f"--config={slurm.top}/batch.toml"]


def mayfly(slurm: Slurm, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of root's."""
    argv = [sys.executable, "-I", "-m", "mayfly.cli.main", *words]
    home = str(slurm.host.home)
    done = subprocess.run(
        argv,
        check=False,
        capture_output=True,
        text=True,
        cwd="/",
        env={
            **os.environ,
            "MAYFLY_HOME": home,
            "MAYFLY_HOST_SOCKET": str(slurm.host.socket),
            "SLURM_CONF": str(slurm.conf),
        },
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done


@contextlib.contextmanager
def home_with_policy(warm_home: Path) -> Iterator[Path]:
    """Give a home with the warm one's images and templates, and a policy of its own."""
    with tempfile.TemporaryDirectory(prefix="mayfly-home-", dir="/var/tmp") as name:
        home = Path(name)
        home.chmod(0o755)
        for part in ("state", "cache"):
            (home / part).symlink_to(warm_home / part)
        yield home
