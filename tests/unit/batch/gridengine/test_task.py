"""What root's hooks and the starter make of Grid Engine's own files."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from mayfly.batch.gridengine.configuration import Setting, parse, read_journal, write_journal
from mayfly.batch.gridengine.programs import REASON_LONGEST, read_reason
from mayfly.batch.gridengine.request import Request
from mayfly.batch.gridengine.sensor import report, values_of
from mayfly.batch.gridengine.starting import interpreter_of, payload_of
from mayfly.batch.gridengine.task import (
    check_one_host,
    context_value,
    job_of,
    key_of,
    parse_config,
    parse_context,
    tries_of,
)
from mayfly.errors import Failed, Invalid, Missing

ME = pwd.getpwuid(os.getuid()).pw_name
CONFIG = f"""\
job_owner={ME}
job_id=17
ja_task_id=3
pe=smp
host_slots=2
queue=virt
submission_time=1796079092
tmpdir=/tmp/17.3.virt
script_file=/spool/job_scripts/17
handle_as_binary=0
"""


def test_job() -> None:
    job = job_of(parse_config(CONFIG), "default", Request(options={}, guest_mib=512, wall_s=60))
    assert (job.key, job.uid, job.cpus, job.queue) == ("default/17/3", os.getuid(), 2, "virt")
    assert (job.memory_mib, job.wall_s) == (1024 + 128, 60.0)
    assert key_of(parse_config(CONFIG), "default") == job.key


@pytest.mark.parametrize(
    "change", ["job_id=", "job_id=1/2", "ja_task_id=x", "job_owner=no-such-user"]
)
def test_nonsense_in_the_config(change: str) -> None:
    with pytest.raises(Failed):
        job_of(parse_config(f"{CONFIG}{change}\n"), "default", Request(options={}))


def test_several_hosts_are_refused() -> None:
    check_one_host({}, "a 2 virt@a UNDEFINED\na 1 other@a UNDEFINED\n")
    with pytest.raises(Invalid, match="2 hosts"):
        check_one_host({"pe": "mpi"}, "a 2 virt@a UNDEFINED\nb 2 virt@b UNDEFINED\n")


def test_context() -> None:
    text = "job_number: 5\ncontext:                    vm_tries_1=2,a=b\n"
    assert tries_of(parse_context(text), "1") == 2
    assert tries_of(parse_context(text), "2") == 0
    assert tries_of({"vm_tries_1": "-1"}, "1") == 0
    assert context_value('no\n  hint: a=b, "c"; $(d)') == "no -- a:b c (d)"
    assert len(context_value("x" * 999)) == 300


ENVIRON = {
    "SGE_STARTER_SHELL_PATH": "/bin/bash",
    "SGE_STARTER_USE_LOGIN_SHELL": "true",
    "TMPDIR": "/tmp/17.3.virt",
    "TMP": "/elsewhere",
    "PATH": "/tmp/17.3.virt:/bin",
    "PE_HOSTFILE": "/spool/pe",
}


def test_payload_of_a_script() -> None:
    words = ("/spool/job_scripts/17", "a b")
    payload = payload_of(words, ENVIRON, parse_config(CONFIG), bare=False)
    assert (payload.argv, payload.interpreter) == (words, ("/bin/bash", "-l"))
    assert payload.environ["PATH"] == "/bin"
    assert (payload.environ["TMPDIR"], payload.environ["TMP"]) == ("/tmp", "/elsewhere")
    assert "PE_HOSTFILE" not in payload.environ
    bare = payload_of(words, ENVIRON, parse_config(CONFIG), bare=True)
    assert bare.argv == ("/bin/bash", "-l", *words)
    assert bare.environ == ENVIRON
    stdin = payload_of(("-s", "x"), ENVIRON, parse_config(CONFIG), bare=False)
    assert stdin.argv == ("/spool/job_scripts/17", "x")


def test_payload_of_a_command() -> None:
    config = {**parse_config(CONFIG), "handle_as_binary": "1"}
    assert payload_of(("echo", "a b"), ENVIRON, config, bare=False).argv == ("echo", "a b")
    with pytest.raises(Failed):
        payload_of((), ENVIRON, config, bare=False)


def test_interpreter() -> None:
    assert interpreter_of({}) == ()
    assert interpreter_of({**ENVIRON, "SGE_STARTER_SHELL_START_MODE": "unix_behavior"}) == ()
    assert interpreter_of({**ENVIRON, "SGE_STARTER_SHELL_PATH": "/bin/csh"}) == ("/bin/csh",)


def test_reason_is_read_from_a_plain_file_only(tmp_path: Path) -> None:
    file = tmp_path / "reason"
    assert read_reason(file) == ""
    file.write_bytes(b"\xff" * 9999)
    assert len(read_reason(file)) == REASON_LONGEST
    link = tmp_path / "link"
    link.symlink_to("/etc/passwd")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert (read_reason(link), read_reason(fifo), read_reason(tmp_path)) == ("", "", "")


def test_sensor() -> None:
    said: list[str] = []
    status = {
        "draining": False,
        "standby": [{"image": "el9", "ready": 1}, {"image": "x", "ready": 0}],
    }
    report("h", ["\n", "quit\n", "\n"], said.append, lambda: values_of(status))
    assert said == ["begin", "h:vm_ready:TRUE", "h:vm_hot:el9", "end"]
    for sick in (None, {**status, "draining": True}, {**status, "trouble": "no room"}):
        assert values_of(sick) == {"vm_ready": "FALSE", "vm_hot": "-"}


def test_attributes_are_read_over_several_lines() -> None:
    assert parse("# c\na  1 2\nb x,\\\n   y\n") == {"a": "1 2", "b": "x, y"}


def test_journal_keeps_what_was_first(tmp_path: Path) -> None:
    file = tmp_path / "new/settings.json"
    with pytest.raises(Missing):
        read_journal(file)
    one = Setting(kind="queue", name="q", attribute="prolog", before="NONE", after="a")
    write_journal(file, [one])
    write_journal(
        file, [Setting(kind="queue", name="q", attribute="prolog", before="a", after="b")]
    )
    assert [(each.before, each.after) for each in read_journal(file)] == [("NONE", "b")]
    file.write_text("[]")
    with pytest.raises(Failed):
        read_journal(file)
