"""Puts Mayfly into a Slurm: plugin, programs, two lines of configuration."""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mayfly.batch.changes import Change, with_block, without_block
from mayfly.batch.launchers import programs_of
from mayfly.batch.program import Site
from mayfly.batch.slurm.programs import NAMES
from mayfly.batch.systems import Plan, Where
from mayfly.batch.wish import OPTIONS
from mayfly.command import run
from mayfly.errors import Failed, MayflyError, Missing
from mayfly.model import Finding

CONF = Path("/etc/slurm/slurm.conf")
PROGRAMS = Path("/usr/local/libexec/mayfly/slurm")
PLUGIN = "mayfly_spank.so"
SOURCE = Path(__file__).with_name("mayfly_spank.c")
LUA_SOURCE = Path(__file__).with_name("job_submit.lua")
LUA_PLUGINS = ("lib*/slurm*", "lib/*/slurm*", "local/lib*/slurm*")
"""Beneath /usr: where Slurm's own plugins are."""
PID_FILE = "/var/run/slurmctld.pid"
_SHOWN = {
    "state": "state",
    "reason": "reason",
    "queue": "partition",
    "hosts": "nodelist",
    "user": "username",
    "restarts": "restartcnt",
    "comment": "comment",
    "note": "admin_comment",
}
"""What is shown of a job, and Slurm's name for it."""
_FORMAT = ",".join(f"{name}:\x1f" for name in _SHOWN.values())
COMPILE_LIMIT_S = 120.0
ASK_LIMIT_S = 20.0


class Slurm:
    """Slurm as ``mayfly batch`` sees it."""

    def plan(self, where: Where) -> Plan:
        """Compile the plugin, and say which files are to be how."""
        conf = conf_of(where)
        text = read_conf(conf)
        programs = where.programs or PROGRAMS
        site = Site(cluster=setting(text, "ClusterName") or "slurm", config=where.config)
        changes = [Change(path=programs / PLUGIN, content=compile_plugin(), mode=0o755)]
        changes += programs_of("slurm", NAMES, where, programs, site)
        stack = Path(setting(text, "PlugStackConfig") or conf.with_name("plugstack.conf"))
        epilog, notes = _epilog(text, programs)
        line = f"required {programs / PLUGIN} programs={programs} policy={where.policy}"
        line += " epilog=yes" if epilog else ""
        changes.append(Change(path=stack, content=with_block(_text(stack), [line]).encode()))
        lua, more = _lua(text)
        if lua is not None:
            changes.append(_submit_script(conf))
        lines = [*epilog, *(lua or [])]
        if lines:
            changes.append(Change(path=conf, content=with_block(text, lines).encode()))
        return Plan(changes=changes, notes=[*notes, *more])

    def journal(self, where: Where) -> Path:
        """Give where it is written down what was changed."""
        return (where.programs or PROGRAMS) / "installed.json"

    def installed(self, where: Where) -> None:
        """Let running daemons read the configuration, if there are any."""
        _reconfigure(where)

    @contextmanager
    def uninstalling(self, where: Where) -> Iterator[None]:
        """Let running daemons read the configuration again, when the files are as they were."""
        yield
        _reconfigure(where)

    def check(self, where: Where) -> list[Finding]:
        """Say what works on this host and what does not."""
        try:
            conf = conf_of(where)
            text = read_conf(conf)
        except MayflyError as error:
            return [Finding(name="slurm.conf", ok=False, detail=error.message)]
        programs = where.programs or PROGRAMS
        stack = Path(setting(text, "PlugStackConfig") or conf.with_name("plugstack.conf"))
        return [
            Finding(name="slurm.conf", ok=True, detail=f"{conf}, {version()}"),
            _there(programs / PLUGIN, "the plugin"),
            *(_there(programs / name, f"program {name}") for name in NAMES),
            _plugin_line(stack, programs / PLUGIN),
            _epilog_finding(text, programs),
            _cgroups(text),
        ]

    def options(self) -> list[tuple[str, str]]:
        """Give what a user writes for each option, and what it means."""
        plain = ("root", "keep")
        return [
            (f"--vm-{name}" + ("" if name in plain else f"={values}"), meaning)
            for name, (values, meaning) in OPTIONS.items()
        ]

    def describe(self, job: str) -> dict[str, str]:
        """Give what Slurm says of a job; nothing where it is not there, or knows none."""
        try:
            argv = ["squeue", "--noheader", "--states=all", f"--jobs={job}", "--Format"]
            text = run([*argv, _FORMAT], timeout_s=ASK_LIMIT_S).text()
        except Failed:
            return {}
        return described(text)


def described(text: str) -> dict[str, str]:
    """Read what squeue says of one job; of an array's, of the first."""
    words = text.split("\n", maxsplit=1)[0].split("\x1f")
    if len(words) < len(_SHOWN):
        return {}
    named = zip(_SHOWN, (word.strip() for word in words), strict=False)
    return {name: word for name, word in named if word not in ("", "(null)")}


SYSTEM = Slurm()


# --- the site's files ----------------------------------------------------------------------------


def conf_of(where: Where) -> Path:
    """Give slurm.conf: the one that was named, or the one of ``SLURM_CONF``, or the usual one."""
    named = os.environ.get("SLURM_CONF")
    return where.conf or (Path(named) if named else CONF)


def read_conf(conf: Path) -> str:
    """Read slurm.conf; raises ``Missing``, ``Failed``."""
    try:
        return conf.read_text("utf-8", "surrogateescape")
    except FileNotFoundError as error:
        raise Missing(
            f"there is no Slurm configuration {conf}", hint="--conf names another slurm.conf"
        ) from error
    except OSError as error:
        raise Failed(f"cannot read {conf}: {error.strerror}") from error


def setting(text: str, name: str) -> str:
    """Give a setting of slurm.conf, ours left out; "" when it is not there."""
    found = re.findall(rf"(?im)^[ \t]*{name}[ \t]*=[ \t]*(\S+)", without_block(text))
    return str(found[-1]) if found else ""


def _text(path: Path) -> str:
    return path.read_text("utf-8", "surrogateescape") if path.exists() else ""


def _epilog(text: str, programs: Path) -> tuple[list[str], list[str]]:
    own = setting(text, "Epilog")
    if not own:
        return [f"Epilog={programs / 'epilog'}"], []
    note = (
        f"Slurm has an epilog already, {own}: have it call {programs / 'epilog'}, which takes "
        "back the rights of jobs whose end was not seen"
    )
    return [], [note]


def _lua(text: str) -> tuple[list[str] | None, list[str]]:
    """Give the lines for the script that looks at submissions; None: there is to be none."""
    here = socket.gethostname().split(".")[0]
    if not setting(text, "SlurmctldHost").startswith(here):
        return None, []
    own = setting(text, "JobSubmitPlugins")
    if "lua" in own.split(","):
        return [], []
    places = [place for each in LUA_PLUGINS for place in Path("/usr").glob(each)]
    there = any((place / "job_submit_lua.so").exists() for place in places)
    if own or not there:
        why = f"JobSubmitPlugins={own}" if own else "job_submit_lua.so is not installed"
        note = f"jobs that want GPUs and a machine are not refused at submission: {why}"
        return None, [note]
    return ["JobSubmitPlugins=lua"], []


def _submit_script(conf: Path) -> Change:
    script = conf.with_name("job_submit.lua")
    lines = LUA_SOURCE.read_text().splitlines()
    return Change(path=script, content=with_block(_text(script), lines, comment="--").encode())


# --- the plugin ----------------------------------------------------------------------------------


def compile_plugin() -> bytes:
    """Compile the plugin against the Slurm at hand; raises ``Missing`` or ``Failed``."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not Path("/usr/include/slurm/spank.h").exists():
        raise Missing(
            "the plugin cannot be compiled: no C compiler, or no slurm/spank.h",
            hint="apt-get install gcc libc6-dev libslurm-dev (dnf: gcc slurm-devel)",
        )
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / PLUGIN
        flags = ["-D_GNU_SOURCE", "-O2", "-Wall", "-shared", "-fPIC"]
        # Else the name of the directory would be in it, and each build another file.
        argv = [compiler, *flags, f"-ffile-prefix-map={SOURCE.parent}=.", "-o", str(target)]
        run([*argv, str(SOURCE)], timeout_s=COMPILE_LIMIT_S)
        return target.read_bytes()


def version() -> str:
    """Give the version of Slurm's programs."""
    try:
        return run(["sinfo", "--version"], timeout_s=ASK_LIMIT_S).text().strip()
    except Failed:
        return "slurm of unknown version"


def _reconfigure(where: Where) -> None:
    """Have the controller read its configuration, if this is its host: it tells the others."""
    conf = conf_of(where)
    pid = Path(setting(read_conf(conf), "SlurmctldPidFile") or PID_FILE)
    if pid.exists():
        env = {**os.environ, "SLURM_CONF": str(conf)}
        run(["scontrol", "reconfigure"], timeout_s=ASK_LIMIT_S, env=env, check=False)


# --- findings ------------------------------------------------------------------------------------


def _there(path: Path, name: str) -> Finding:
    ok = os.access(path, os.X_OK)
    return Finding(name=name, ok=ok, detail=str(path) if ok else f"{path} is not there")


def _plugin_line(stack: Path, plugin: Path) -> Finding:
    lines = [line.split("#")[0].split() for line in _text(stack).splitlines()]
    ok = any(str(plugin) in words for words in lines)
    return Finding(name="plugstack.conf", ok=ok, detail=f"{stack} {'has' if ok else 'lacks'} it")


def _epilog_finding(text: str, programs: Path) -> Finding:
    own, ours = setting(text, "Epilog"), str(programs / "epilog")
    if ours in text:
        return Finding(name="epilog", ok=True, detail=ours)
    detail = f"{own or 'there is none'}: see that {ours} is called at the end of each job"
    return Finding(name="epilog", ok=False, detail=detail, needed=False)


def _cgroups(text: str) -> Finding:
    track, flags = setting(text, "ProctrackType"), setting(text, "PrologFlags").lower()
    ok = track == "proctrack/cgroup" and "contain" in flags
    detail = (
        "machines run in the cgroup of their job"
        if ok
        else (
            f"ProctrackType={track or '?'}, PrologFlags={flags or '-'}: a machine's memory is "
            "limited by its size alone; proctrack/cgroup with Contain puts it under --mem"
        )
    )
    return Finding(name="cgroups", ok=ok, detail=detail, needed=False)
