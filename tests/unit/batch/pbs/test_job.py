"""Jobs of PBS: hand-made after the manuals of Torque and OpenPBS."""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path

import pytest

from mayfly.batch.pbs.installation import described
from mayfly.batch.pbs.job import (
    bytes_of,
    check_one_host,
    job_of,
    number_of,
    options_of,
    parse_attributes,
    parse_variables,
    seconds_of,
    shown_of,
)
from mayfly.batch.pbs.programs import check_select, read_shown
from mayfly.batch.pbs.starting import Script, payload_of, script_of
from mayfly.batch.pbs.submission import check_script, directives
from mayfly.batch.refusal import person_called
from mayfly.batch.settings import BatchSettings
from mayfly.errors import Failed, Invalid, MayflyError

ME = pwd.getpwuid(os.getuid()).pw_name
QSTAT = f"""\
Job Id: 179.host.example.org
    Job_Name = STDIN
    Job_Owner = {ME}@login.example.org
    job_state = R
    queue = virt
    exec_host = node1/0+node1/1
    Resource_List.nodes = 1:ppn=2
    Resource_List.mem = 2gb
    Resource_List.walltime = 01:00:00
    Variable_List = PBS_O_HOME=/home/eve,vm_image=el9,
\tPBS_O_PATH=/usr/bin:/bin,vm_share=/data;/soft:ro,A=1\\,2
    x = vm_network:open;QOS:high
    start_count = 3

Job Id: 180.host.example.org
    queue = other
"""


def test_a_job_as_torque_shows_it() -> None:
    shown = shown_of("179.host.example.org", parse_attributes(QSTAT))
    assert options_of(shown) == {
        "image": "el9",
        "share": "/data,/soft:ro",
        "network": "open",
    }
    job = job_of(shown, "host")
    assert (job.key, job.uid, job.cpus, job.queue) == ("host/179/2", os.getuid(), 2, "virt")
    assert (job.memory_mib, job.wall_s, job.restart) == (2048, 3600.0, 2)
    assert shown.variables["A"] == "1,2"
    assert described(QSTAT)["hosts"] == "node1/0+node1/1"


def test_what_is_asked_as_a_resource_goes_first() -> None:
    text = json.dumps(
        {
            "job": "12[3].srv",
            "user": ME,
            "resources": {"vm_image": "el9", "ncpus": "4"},
            "variables": "vm_image=el7,vm_keep=yes",
        }
    )
    shown = read_shown(text)
    assert options_of(shown) == {"image": "el9", "keep": "yes"}
    job = job_of(shown, "srv")
    assert (job.key, job.cpus, job.memory_mib) == ("srv/12[3]/0", 4, 4 * 512 + 128)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"job": 3}',
        '{"job": "../x"}',
        '{"job": "1", "resources": ["x"]}',
        '{"job": "1", "resources": {"mem": 2}}',
        '{"job": "1", "begun": "x"}',
        "[" * 100_000,
    ],
)
def test_nonsense_of_a_hook(text: str) -> None:
    with pytest.raises(Failed):
        read_shown(text)


@pytest.mark.parametrize("name", ["", "x", "1/2", "../1", "9" * 30, "1[x]"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(Failed):
        number_of(name)


@pytest.mark.parametrize(
    ("text", "value"),
    [("2gb", 2 << 30), ("512MB", 512 << 20), ("1kw", 8192), ("100", 100), ("1b", 1)],
)
def test_sizes(text: str, value: int) -> None:
    assert bytes_of(text) == value


@pytest.mark.parametrize("text", ["", "-1", "2 gb", "gb", "9" * 40, "1gbx"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(Invalid):
        bytes_of(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("60", 60), ("1:00", 60), ("01:00:00", 3600), ("1:0:0:0", 86400), ("x", 0), ("", 0)],
)
def test_times(text: str, value: int) -> None:
    assert seconds_of(text) == value


def test_several_hosts_are_refused() -> None:
    check_one_host(shown_of("1", {"exec_host": "a/0*2+a/1"}))
    with pytest.raises(Invalid, match="2 hosts"):
        check_one_host(shown_of("1", {"exec_host": "a/0*2+b/1"}))
    check_select({"select": "2:ncpus=1", "place": "pack:excl"})
    check_select({"select": "1:ncpus=8"})
    for select in ("2:ncpus=1", "1:ncpus=1+1:ncpus=2"):
        with pytest.raises(Invalid, match="one host"):
            check_select({"select": select})


def test_a_user_who_is_nobody() -> None:
    with pytest.raises(Failed, match="nobody on this host"):
        job_of(shown_of("1", {"Job_Owner": "no-such-user@x"}), "c")


def test_variables() -> None:
    assert parse_variables("A=1,B,C=a=b") == {"A": "1", "C": "a=b"}
    assert parse_variables("") == {}


# --- at submission -------------------------------------------------------------------------------

SCRIPT = b"""#!/bin/sh
#PBS -l nodes=1 -v vm_image=el5
#PBS -N 'a "name'
#PBS -q "unclosed
# more

echo
#PBS -v vm_image=late
"""


def test_directives() -> None:
    words = directives(SCRIPT)
    assert words == ["-l", "nodes=1", "-v", "vm_image=el5", "-N", 'a "name']


def test_what_no_host_would_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAYFLY_HOME", str(tmp_path))
    (tmp_path / "state/images").mkdir(parents=True)
    person = person_called(ME)
    with pytest.raises(MayflyError, match="el5"):
        check_script([], SCRIPT, person, BatchSettings())
    check_script(["-vvm_image=none"], SCRIPT, person, BatchSettings())
    check_script(["-v", "vm_image=none"], SCRIPT, person, BatchSettings())
    for wrong in (["-W", "x=vm_image:../x"], ["-v", "vm_network=wide,vm_image=none"]):
        with pytest.raises(Invalid):
            check_script(wrong, b"\xff\0", person, BatchSettings())
    with pytest.raises(Invalid, match="images that you may use: none"):
        check_script(["-v", "vm_image=list"], b"", person, BatchSettings())
    with pytest.raises(MayflyError, match="switched off"):
        check_script([], SCRIPT, person, BatchSettings(enabled=False))


# --- what PBS would have run ---------------------------------------------------------------------


def test_the_payload(tmp_path: Path) -> None:
    environ = {"PBS_JOBID": "1.srv", "PBS_NODEFILE": "/x", "TMPDIR": "/tmp/1.srv", "A": "b"}
    bash = payload_of(["/bin/bash"], environ, Script(path=tmp_path / "1.SC", named=False))
    assert bash.interpreter == ("/bin/bash", "-l", "-c", '"$0" "$@"')
    assert bash.environ == {"PBS_JOBID": "1.srv", "TMPDIR": "/tmp", "A": "b"}
    for named, reader in ((True, ()), (False, ("/bin/csh",))):
        script = Script(path=tmp_path / "1.SC", named=named)
        assert payload_of(["/bin/csh"], environ, script).interpreter == reader
    shell = payload_of(["/bin/bash", "-bash"], environ, None)
    assert (shell.argv, shell.tty) == (("/bin/bash", "-l"), None)


@pytest.mark.parametrize("form", ["path", "content", "argument"])
def test_a_script_is_found_however_it_comes(tmp_path: Path, form: str) -> None:
    script = tmp_path / "7.srv.SC"
    script.write_bytes(b"#!/bin/sh\necho 1\n")
    given = {"path": f"{script}\n".encode(), "content": script.read_bytes(), "argument": b""}
    words = ["/bin/sh", str(script)] if form == "argument" else ["/bin/sh"]
    own = os.dup(0)
    end, begin = os.pipe()
    try:
        os.write(begin, given[form])
        os.close(begin)
        os.dup2(end, 0)
        found = script_of(words, "7")
        assert found is not None
        assert found.named
        assert found.path.read_bytes() == script.read_bytes()
        assert os.read(0, 1) == b""
    finally:
        os.dup2(own, 0)
        os.close(own)
        os.close(end)
