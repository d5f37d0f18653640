"""LSF: jobs, submissions and queues, hand-made after its manual."""

from __future__ import annotations

import json
import os
import pwd
import shlex
import subprocess
from pathlib import Path

import pytest

from mayfly.batch.job import Fault
from mayfly.batch.lsf.job import (
    VARIABLE,
    check_one_host,
    job_of,
    memory_of,
    minutes_of,
    name_of,
    parse_shown,
    read_options,
    words_to_options,
    write_options,
)
from mayfly.batch.lsf.queues import parse_queues, with_settings
from mayfly.batch.lsf.starting import payload_of, ticket_for
from mayfly.batch.settings import BatchSettings
from mayfly.batch.wish import parse_wish
from mayfly.errors import Failed, Invalid, Unavailable
from tests.unit.batch.sites import files, mayfly

ME = pwd.getpwuid(os.getuid()).pw_name
QUEUES = """\
# the site's

Begin Queue
QUEUE_NAME   = normal
PRIORITY     = 30   # middling
End Queue
Begin Queue
QUEUE_NAME   = virt
JOB_STARTER  = /site/starter
DESCRIPTION  = a = b
End Queue"""
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes a batch system")


def test_a_job_as_lsf_shows_it() -> None:
    shown = parse_shown(f"{ME}|virt|2|2*node1|2 G|90.0/node1\n")
    job = job_of("12[3]", shown, "lab")
    assert (job.key, job.uid, job.cpus, job.queue) == ("lab/12[3]/0", os.getuid(), 2, "virt")
    assert (job.memory_mib, job.wall_s) == (2048, 5400.0)
    check_one_host(shown)
    plain = job_of("12", parse_shown(f"{ME}|normal|-|node1|-|-\n"), "lab")
    assert (plain.cpus, plain.memory_mib, plain.wall_s) == (1, 512 + 128, 0.0)


@pytest.mark.parametrize("text", ["", "x", "Job <1> is not found", "|a|1|h|-|-", "a|b|c"])
def test_jobs_that_are_not_known(text: str) -> None:
    with pytest.raises(Unavailable):
        parse_shown(text)


def test_what_a_job_may_not_be() -> None:
    with pytest.raises(Failed, match="nobody on this host"):
        job_of("1", parse_shown("no-such-user|q|1|h|-|-"), "lab")
    with pytest.raises(Invalid, match="2 hosts"):
        check_one_host(parse_shown(f"{ME}|q|6|4*a:2*b|-|-"))
    with pytest.raises(Invalid, match="not understood"):
        memory_of("lots", 1)


@pytest.mark.parametrize(
    ("text", "mib"), [("1048576", 1024), ("500 M", 500), ("1.5G", 1536), ("512 Mbytes", 512)]
)
def test_memory(text: str, mib: int) -> None:
    assert memory_of(text, 1) == mib


@pytest.mark.parametrize(("text", "minutes"), [("60.0", 60), ("1:30", 90), ("", 0), ("x", 0)])
def test_minutes(text: str, minutes: float) -> None:
    assert minutes_of(text) == minutes


def test_names() -> None:
    assert name_of({"LSB_JOBID": "7", "LSB_JOBINDEX": "0"}) == "7"
    assert name_of({"LSB_JOBID": "7", "LSB_JOBINDEX": "2"}) == "7[2]"
    for wrong in ({}, {"LSB_JOBID": "../x"}, {"LSB_JOBID": "1", "LSB_JOBINDEX": "x"}):
        with pytest.raises(Failed):
            name_of(wrong)


# --- at submission -------------------------------------------------------------------------------


def test_what_is_asked_for() -> None:
    words = ["image=el9", " network=open", "vm_share=/a;/b:ro"]
    options = words_to_options(words)
    assert options == {"image": "el9", "network": "open", "share": "/a,/b:ro"}
    assert read_options(write_options(options)) == options
    assert words_to_options(["el9"]) == {"image": "el9"}
    assert read_options("") == words_to_options([]) == {}
    with pytest.raises(Invalid, match="no option 'x'"):
        words_to_options(["x=1"])
    for wrong in ("nonsense", "a" * 10_000, ";;;"):
        with pytest.raises(Invalid):
            parse_wish(read_options(wrong))


@pytest.mark.parametrize("value", ['a"b', "a\nB=1", "$(id)", "`id`", "a\\", "'", "a b"])
def test_what_is_handed_on_means_nothing_to_a_shell(value: str) -> None:
    text = write_options({"image": value})
    line = f'{VARIABLE}="{text}"'
    assert shlex.split(line) == [f"{VARIABLE}={text}"]
    assert not set(text) & set("\"'`$\\ \n;")
    assert read_options(text) == {"image": value}


@root_only
def test_the_esub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "server").mkdir()
    monkeypatch.setenv("LSF_SERVERDIR", str(tmp_path / "server"))
    monkeypatch.setenv("MAYFLY_HOME", str(tmp_path / "home"))
    (tmp_path / "home/state/images").mkdir(parents=True)
    conf = tmp_path / "lsb.queues"
    conf.write_text(QUEUES)
    mayfly(tmp_path, "lsf", conf, "install")
    target = tmp_path / "env"
    env = {"LSB_SUB_MODIFY_ENVFILE": str(target), "LSB_SUB_ABORT_VALUE": "96"}

    def submit(*words: str) -> tuple[int, str]:
        argv = [str(tmp_path / "server/esub.mayfly"), *words]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    assert submit("image=none", "network=open") == (0, "")
    assert target.read_text() == 'MAYFLY_JOB="image=none&network=open"\n'
    code, said = submit("el5")
    assert (code, "there is no image 'el5'" in said) == (96, True)
    code, said = submit("image=../x")
    assert (code, said.count("\n")) == (96, 1)
    assert target.read_text().count("\n") == 1


# --- what LSF would have run ----------------------------------------------------------------------


def test_the_payload(tmp_path: Path) -> None:
    environ = {"LSF_LIBDIR": "/x", "LS_SUBCWD": "/y", "LSB_JOBID": "1", "A": "b"}
    text = payload_of(["echo a; b | c"], environ)
    assert text.argv == ("/bin/sh", "-c", "echo a; b | c")
    assert text.environ == {"LSB_JOBID": "1", "A": "b"}
    assert payload_of(["a.out", "x y"], environ).argv == ("a.out", "x y")
    spool = tmp_path / ".lsbatch"
    spool.mkdir()
    script = spool / "1700.1.shell"
    script.write_text("#!/bin/bash\n")
    found = payload_of([str(script)], environ)
    assert (found.script, found.interpreter) == (script, ())
    script.write_text("echo\n")
    assert payload_of([str(script)], environ).interpreter == ("/bin/sh",)
    program = tmp_path / "a.out"
    program.write_bytes(b"\x7fELF\0")
    assert payload_of([str(program)], environ).script is None


def test_without_a_ticket(tmp_path: Path) -> None:
    settings = BatchSettings(socket=tmp_path / "host.sock")
    plain = ticket_for("1", {}, settings)
    assert (plain.image, plain.fault) == ("", None)
    wants = ticket_for("1", {VARIABLE: "image=el9"}, settings)
    assert wants.fault is Fault.MAYFLY
    assert "not our PRE_EXEC" in wants.reason
    assert ticket_for("1", {VARIABLE: "image=.."}, settings).fault is Fault.JOB


# --- queues --------------------------------------------------------------------------------------


def test_queues() -> None:
    found = {queue.name: queue for queue in parse_queues(QUEUES)}
    assert list(found) == ["normal", "virt"]
    assert found["normal"].settings["PRIORITY"] == "30"
    assert found["virt"].settings["DESCRIPTION"] == "a = b"
    changed = with_settings(QUEUES, {"normal": ["A = 1"], "virt": ["B = 2"]})
    again = with_settings(changed, {"normal": ["A = 1"], "virt": ["B = 2"]})
    assert again == changed
    assert {q.name: q.settings.get("A") for q in parse_queues(changed)} == {
        "normal": "1",
        "virt": None,
    }
    assert with_settings(changed, {}) == QUEUES


@pytest.mark.parametrize("text", ["", "End Queue", "Begin Queue", "Begin Queue\nBegin Queue\n=\n"])
def test_queues_that_are_none(text: str) -> None:
    assert parse_queues(text) == []


@root_only
def test_there_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "server").mkdir()
    monkeypatch.setenv("LSF_SERVERDIR", str(tmp_path / "server"))
    monkeypatch.setenv("LSF_ENVDIR", str(tmp_path))
    conf = tmp_path / "lsbatch/lab/configdir/lsb.queues"
    conf.parent.mkdir(parents=True)
    conf.write_text(QUEUES)
    before = files(tmp_path)
    assert mayfly(tmp_path, "lsf", conf, "install", "--dry-run").exit_code == 0
    assert files(tmp_path) == before
    done = mayfly(tmp_path, "lsf", conf, "install")
    assert done.exit_code == 0, done.output
    assert "queue virt has JOB_STARTER = /site/starter" in done.output
    normal, virt = parse_queues(conf.read_text())
    programs = tmp_path / "lib/programs"
    assert normal.settings["JOB_STARTER"] == f'{programs}/starter "%USRCMD"'
    assert normal.settings["REQUEUE_EXIT_VALUES"] == "EXCLUDE(99)"
    assert virt.settings["JOB_STARTER"] == "/site/starter"
    assert "cluster='lab'" in (programs / "register").read_text()
    found = json.loads(mayfly(tmp_path, "lsf", conf, "check", "--json").output)
    assert next(one["detail"] for one in found if one["name"] == "queues") == "normal"
    done = mayfly(tmp_path, "lsf", conf, "uninstall", "--yes")
    assert done.exit_code == 0, done.output
    assert files(tmp_path) == before
    assert "there is no queue x" in str(
        mayfly(tmp_path, "lsf", conf, "install", "--queue", "x").exception
    )
    assert "there is no" in str(mayfly(tmp_path, "lsf", tmp_path, "install").exception)
