"""A real Grid Engine of a test's own: one master and one execution host, this computer.

It has its own SGE_ROOT, spool directories and ports, needs no systemd, and is gone afterwards.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.integration.host import Host
from tests.integration.namespaces import Lan
from tests.integration.waiting import gone, wait_until

LIBRARY = Path("/usr/lib/gridengine")
STOCK = Path("/usr/share/gridengine")
ADMIN = "sgeadmin"
HOST = "localhost"
QUEUE, PLAIN = "virt", "plain"
"""Only the first gets machines."""
GIDS = 20_000
"""The first of the groups by which processes of a job are known, a hundred for each host."""
ANSWER_LIMIT_S = 30
JOB_LIMIT_S = 90
MARKS = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="the daemons of a batch system run as root"),
    pytest.mark.skipif(not (LIBRARY / "sge_qmaster").exists(), reason="needs Grid Engine"),
]

BOOTSTRAP = """\
admin_user              sgeadmin
default_domain          none
ignore_fqdn             false
spooling_method         berkeleydb
spooling_lib            libspoolb
spooling_params         {spool}/db
binary_path             /usr/sbin
qmaster_spool_dir       {spool}/qmaster
security_mode           none
listener_threads        2
worker_threads          2
scheduler_threads       1
"""
EXEC_HOST = {
    "hostname": HOST,
    "load_scaling": "NONE",
    "complex_values": "NONE",
    "user_lists": "NONE",
    "xuser_lists": "NONE",
    "projects": "NONE",
    "xprojects": "NONE",
    "usage_scaling": "NONE",
    "report_variables": "NONE",
}
PARALLEL = {
    "pe_name": "smp",
    "slots": "99",
    "user_lists": "NONE",
    "xuser_lists": "NONE",
    "start_proc_args": "NONE",
    "stop_proc_args": "NONE",
    "allocation_rule": "$pe_slots",
    "control_slaves": "FALSE",
    "job_is_first_task": "TRUE",
    "urgency_slots": "min",
    "accounting_summary": "FALSE",
    "qsort_args": "NONE",
}
QUEUE_CHANGES = {
    "slots": "4",
    "pe_list": "smp",
    "notify": "00:00:02",
    # Tests run beside other work: a high load must not stop them.
    "load_thresholds": "NONE",
}
GLOBAL_CHANGES = {
    "load_report_time": "00:00:02",
    "finished_jobs": "1000",
    "min_uid": "0",
    "min_gid": "0",
    "reporting_params": "accounting=true reporting=false flush_time=00:00:15 "
    "accounting_flush_time=00:00:00 joblog=false sharelog=00:00:00",
}
SCHEDULER_CHANGES = {
    "schedule_interval": "0:0:1",
    "flush_submit_sec": "1",
    "flush_finish_sec": "1",
}


@dataclass(slots=True, kw_only=True)
class Cell:
    """A Grid Engine; everything of its own lies beneath one directory."""

    top: Path
    ports: tuple[int, int]
    extra: dict[str, str] = field(default_factory=dict)
    """More of the daemons' environment, and so of the hooks'."""
    hosts: tuple[str, ...] = (HOST,)
    """Execution hosts; without a network of their own that is this computer."""
    lan: Lan | None = None

    def environment(self) -> dict[str, str]:
        """Give what makes a command ask this one."""
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "SGE_ROOT": str(self.top),
            "SGE_CELL": "default",
            "SGE_QMASTER_PORT": str(self.ports[0]),
            "SGE_EXECD_PORT": str(self.ports[1]),
            **self.extra,
        }

    def run(
        self,
        *argv: str,
        user: str = "root",
        cwd: Path | str = "/",
        stdin: str | bytes = "",
        env: Mapping[str, str] | None = None,
        limit_s: float = JOB_LIMIT_S,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as a user on the master's host, to its end."""
        become = [] if user == "root" else ["runuser", "-u", user, "--"]
        done = subprocess.run(
            [*self.at(self.master, cwd), *become, *argv],
            check=False,
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            cwd=cwd,
            env={**self.environment(), **(env or {})},
            timeout=limit_s,
        )
        out, err = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def at(self, host: str, cwd: Path | str) -> list[str]:
        """Give what runs a command on a host."""
        return [] if self.lan is None else self.lan.at(host, cwd)

    @property
    def master(self) -> str:
        """What the master's host is called."""
        return HOST if self.lan is None else self.lan.names[0]

    def ask(self, *argv: str) -> str:
        """Run a command of root's that must do, and give its output."""
        done = self.run(*argv, limit_s=ANSWER_LIMIT_S)
        assert done.returncode == 0, (argv, done.stdout, done.stderr)
        return done.stdout

    def start(self) -> None:
        """Start both daemons, and wait until jobs can be submitted."""
        self.run("sge_qmaster", limit_s=ANSWER_LIMIT_S)
        wait_until(lambda: self.run("qconf", "-sh").returncode == 0, "the master to answer")
        self._configure()
        for host in self.hosts:
            self.start_execd(host)
        wait_until(self.is_ready, "the execution hosts to answer", limit_s=ANSWER_LIMIT_S)

    def start_execd(self, host: str) -> None:
        """Start the daemon of an execution host."""
        argv = [*self.at(host, "/"), "sge_execd"]
        subprocess.run(argv, check=True, env=self.environment(), timeout=ANSWER_LIMIT_S)

    def is_ready(self) -> bool:
        """Tell whether the queue takes jobs on all hosts."""
        lines = self._instances()
        return all(len(words) == 5 and "-NA-" not in words for words in lines) and bool(lines)

    def queue_state(self) -> str:
        """Give the letters of what is wrong with the queue; "" when nothing is."""
        return "".join(words[5] for words in self._instances() if len(words) > 5)

    def _instances(self) -> list[list[str]]:
        lines = self.ask("qstat", "-f", "-q", QUEUE).splitlines()
        return [line.split() for line in lines if line.startswith(f"{QUEUE}@")]

    def _configure(self) -> None:
        self.change("-sconf", "-Mconf", GLOBAL_CHANGES, name="global")
        self.change("-ssconf", "-Msconf", SCHEDULER_CHANGES)
        self.ask("qconf", "-as", self.master)
        for number, host in enumerate(self.hosts):
            self.ask("qconf", "-ah", host)
            self.ask("qconf", "-as", host)
            self.ask("qconf", "-Ae", self.file({**EXEC_HOST, "hostname": host}))
            # They see each other's processes, and end what has a number of theirs.
            own = {"gid_range": f"{GIDS + number * 100}-{GIDS + number * 100 + 99}"}
            self.ask("qconf", "-Aconf", self.file(own, name=host))
        self.ask("qconf", "-Ap", self.file(PARALLEL))
        stock = parse_config(self.ask("qconf", "-sq"))
        changes = {**QUEUE_CHANGES, "hostlist": " ".join(self.hosts)}
        for name in (QUEUE, PLAIN):
            self.ask("qconf", "-Aq", self.file({**stock, "qname": name, **changes}))

    def change(self, show: str, modify: str, changes: Mapping[str, str], *, name: str = "") -> None:
        """Change some attributes of a configuration."""
        values = parse_config(self.ask("qconf", show, *([name] if name else [])))
        self.ask("qconf", modify, self.file({**values, **changes}, name=name))

    def file(self, values: Mapping[str, str], *, name: str = "") -> str:
        """Write attributes as qconf(1) reads them."""
        path = Path(tempfile.mkdtemp(dir=self.top / "given")) / (name or "values")
        path.write_text("".join(f"{key} {value}\n" for key, value in values.items()))
        return str(path)

    # --- jobs ------------------------------------------------------------------------------------

    def mayfly(self, host: Host, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one of our own commands as root, with the cell and the service of a test."""
        argv = [sys.executable, "-I", "-m", "mayfly.cli.main", *words]
        places = [f"--programs={self.programs}", f"--config={self.top}/batch.toml"]
        return self.run(*argv, *places, env={"MAYFLY_HOME": str(host.home)})

    @property
    def programs(self) -> Path:
        """Where the programs go that Grid Engine calls."""
        return self.top / "mayfly"

    def set(self, host: Host, *, at: str = "", **settings: object) -> None:
        """Write the site's settings, of one host if it is said which."""
        values = {"socket": str(host.socket), **settings}
        lines = [f"{name} = {json.dumps(value)}\n" for name, value in values.items()]
        (self.top / f"batch.toml{at and '.'}{at}").write_text("".join(lines))

    def dumps(self) -> dict[str, str]:
        """Give the whole configuration, as it is shown."""
        asked = ("-sconf", "-sc", "-ssconf", "-sh", "-ss", "-sm")
        named = (("-sq", QUEUE), ("-sq", PLAIN), ("-se", HOST), ("-sp", "smp"))
        found = {" ".join(words): self.ask("qconf", *words) for words in named}
        # How loaded a host is changes all the time.
        loads = re.compile(r"^load_values .*?[^\\\\]\n", re.MULTILINE | re.DOTALL)
        found[f"-se {HOST}"] = loads.sub("", found[f"-se {HOST}"])
        return {**found, **{option: self.ask("qconf", option) for option in asked}}

    def submit(self, *words: str, user: str, cwd: Path | str = "/", stdin: str | bytes = "") -> int:
        """Submit a job, and give its number."""
        done = self.run("qsub", "-terse", *words, user=user, cwd=cwd, stdin=stdin)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return int(done.stdout.split(".")[0])

    def states(self, job: int) -> list[str]:
        """Give the states of a job's tasks in the queue; empty when it is over."""
        lines = self.ask("qstat", "-u", "*").splitlines()[2:]
        return [line.split()[4] for line in lines if line.split()[0] == str(job)]

    def ended(self, job: int, *, limit_s: float = JOB_LIMIT_S) -> None:
        """Wait until a job is over."""
        wait_until(lambda: not self.states(job), f"job {job} to end", limit_s=limit_s)

    def account(self, job: int) -> dict[str, str]:
        """Give what the accounting says of a job that is over, its last task's."""
        found: list[dict[str, str]] = []

        def written() -> bool:
            done = self.run("qacct", "-j", str(job))
            found[:] = [parse_config(done.stdout)] if done.returncode == 0 else []
            return bool(found)

        wait_until(written, f"the account of job {job}")
        return found[0]

    # --- the end ---------------------------------------------------------------------------------

    def pids(self) -> list[int]:
        """Give the daemons."""
        files = [*self.top.glob("spool/execd/*/execd.pid"), self.top / "spool/qmaster/qmaster.pid"]
        texts = [file.read_text().strip() for file in files if file.exists()]
        return [int(text) for text in texts if text.isdigit() and self._is_ours(int(text))]

    def _is_ours(self, pid: int) -> bool:
        """Tell whether a process is of this one: a number may have gone to another."""
        with contextlib.suppress(OSError):
            return f"SGE_ROOT={self.top}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
        return False

    def stop(self) -> None:
        """End the daemons; a master takes its time over it, and has nothing to lose here."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                wait_until(lambda pid=pid: gone(pid), f"daemon {pid} to end")  # type: ignore[misc]


def parse_config(text: str) -> dict[str, str]:
    """Read attributes as qconf(1) shows them; a backslash continues a line."""
    values: dict[str, str] = {}
    for line in text.replace("\\\n", " ").splitlines():
        name, _, value = line.strip().partition(" ")
        if name and not name.startswith(("#", "=")):
            values[name] = " ".join(value.split())
    return values


@contextlib.contextmanager
def cell_of(lan: Lan | None = None) -> Iterator[Cell]:
    """Give a Grid Engine that runs; with a network the first of its hosts is the master's."""
    top = Path(tempfile.mkdtemp(prefix="mayfly-ge-", dir="/var/tmp"))
    top.chmod(0o755)
    cell = Cell(top=top, ports=_free_ports(), lan=lan, hosts=lan.names[1:] if lan else (HOST,))
    try:
        if lan is not None:
            for host in cell.hosts:
                lan.own_file(host, top / f"batch.toml.{host}", top / "batch.toml")
        _make(cell)
        cell.start()
        yield cell
    finally:
        cell.stop()
        shutil.rmtree(top, ignore_errors=True)


def _make(cell: Cell) -> None:
    """Lay out what a master needs before it can start."""
    top, common, spool = cell.top, cell.top / "default/common", cell.top / "spool"
    for place in (common, spool / "qmaster/job_scripts", spool / "db", spool / "execd"):
        place.mkdir(parents=True)
    (top / "given").mkdir()
    for name in ("bin", "lib", "util", "utilbin"):
        (top / name).symlink_to(Path("/var/lib/gridengine") / name)
    (common / "bootstrap").write_text(BOOTSTRAP.format(spool=spool))
    (common / "act_qmaster").write_text(f"{cell.master}\n")
    if cell.lan is None:
        (common / "host_aliases").write_text(f"{HOST} {socket.gethostname()}\n")
    stock = parse_config((STOCK / "default-configuration").read_text())
    stock["execd_spool_dir"] = str(spool / "execd")
    (top / "configuration").write_text("".join(f"{k} {v}\n" for k, v in stock.items()))
    subprocess.run(["chown", "-R", f"{ADMIN}:", str(top)], check=True)
    for argv in _spooling(cell):
        done = cell.run(*argv, user=ADMIN, limit_s=ANSWER_LIMIT_S)
        assert done.returncode == 0, (argv, done.stdout, done.stderr)


def _spooling(cell: Cell) -> Sequence[Sequence[str]]:
    defaults = str(LIBRARY / "spooldefaults")
    init = (str(LIBRARY / "spoolinit"), "berkeleydb", "libspoolb", f"{cell.top}/spool/db", "init")
    resources = STOCK / "util/resources"
    return (
        init,
        (defaults, "configuration", str(cell.top / "configuration")),
        (defaults, "complexes", str(resources / "centry")),
        (defaults, "usersets", str(resources / "usersets")),
        (defaults, "managers", ADMIN, "root"),
    )


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]
