"""What QEMU can do, asked of a program that answers as QEMU does, and of the real one."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mayfly.config import Settings
from mayfly.engine import probe
from mayfly.engine.probe import (
    NEEDED_TYPES,
    find_qemu,
    identity_of,
    newest_q35,
    probe_qemu,
)
from mayfly.errors import Failed, MayflyError, Missing, Unavailable

# --- finding it ----------------------------------------------------------------------------------


def executable(file: Path, text: str = "#!/bin/sh\n") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)
    return file


def test_qemu_is_found_in_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = executable(tmp_path / "bin/qemu-system-x86_64")
    monkeypatch.setenv("PATH", str(program.parent))
    assert find_qemu(Settings()) == (str(program), "")


def test_a_setting_says_which_qemu(tmp_path: Path) -> None:
    program = executable(tmp_path / "own/qemu")
    assert find_qemu(Settings(qemu=str(program))) == (str(program), "")


def test_a_setting_may_name_a_tree(tmp_path: Path) -> None:
    executable(tmp_path / "tree/usr/bin/qemu")
    wanted = f"{tmp_path / 'tree'}:/usr/bin/qemu"
    assert find_qemu(Settings(qemu=wanted)) == ("/usr/bin/qemu", str(tmp_path / "tree"))


@pytest.mark.parametrize("what", ["nothing", "plain", "directory", "tree"])
def test_what_cannot_be_run_is_missing(tmp_path: Path, what: str) -> None:
    file = tmp_path / "qemu"
    if what == "plain":
        file.write_text("x")
    elif what == "directory":
        file.mkdir()
    setting = f"{tmp_path}:/usr/bin/qemu" if what == "tree" else str(file)
    with pytest.raises(Missing, match=str(tmp_path)) as caught:
        find_qemu(Settings(qemu=setting))
    assert "apt-get install" in caught.value.hint


def test_a_replaced_program_has_another_identity(tmp_path: Path) -> None:
    program = executable(tmp_path / "qemu")
    first = identity_of(str(program))
    link = tmp_path / "link"
    link.symlink_to(program)
    assert identity_of(str(program)) == identity_of(str(link)) == first
    os.utime(program, ns=(1, 1))
    second = identity_of(str(program))
    program.write_text("#!/bin/sh\n#\n")
    os.utime(program, ns=(1, 1))
    assert len({first, second, identity_of(str(program))}) == 3


@pytest.mark.parametrize(
    ("names", "newest"),
    [
        ([], ""),
        (["q35", "pc", "microvm", "pc-i440fx-9.0", "none"], ""),
        (["pc-q35-7.2", "pc-q35-7.1", "q35"], "pc-q35-7.2"),
        (["pc-q35-9.2", "pc-q35-10.0", "pc-q35-2.12"], "pc-q35-10.0"),
        (["pc-q35-rhel9.4.0", "pc-q35-rhel8.6.0", "pc-i440fx-rhel7.6.0"], "pc-q35-rhel9.4.0"),
        (["pc-q35-noble", "pc-q35-8.2"], "pc-q35-8.2"),
        (["pc-q35-", "pc-q35-.", "pc-q35-7."], ""),
    ],
)
def test_the_newest_q35(names: list[str], newest: str) -> None:
    assert newest_q35(names) == newest


# --- asking it -----------------------------------------------------------------------------------

SCRIPT = """#!{python} -IS
import json, re, socket, sys
words = " ".join(sys.argv)
open({log!r}, "a").write(words + "\\n")
port = socket.socket(fileno=int(re.search(r"fd=(\\d+)", words)[1]))
answers = json.load(open({answers!r}))
port.sendall(b'{{"QMP": {{}}}}\\n')
for line in port.makefile("rb"):
    request = json.loads(line)
    name = request["execute"]
    known = name in answers
    reply = {{"return": answers[name]}} if known else {{"error": {{"desc": "no " + name}}}}
    port.sendall(json.dumps({{**reply, "id": request.get("id")}}).encode() + b"\\n")
"""


@dataclass
class Pretender:
    """A program that answers as QEMU does."""

    folder: Path
    types: list[str]

    @property
    def settings(self) -> Settings:
        return Settings(qemu=str(self.folder / "qemu"))

    def write(self, **changes: object) -> None:
        answers: dict[str, object] = {
            "qmp_capabilities": {},
            "query-version": {"qemu": {"major": 7, "minor": 2, "micro": 22}},
            "query-machines": [{"name": "pc-q35-7.2"}, {"name": "q35"}],
            "qom-list-types": [{"name": name} for name in self.types],
            "query-migrate-capabilities": [{"capability": "x-ignore-shared"}],
            "query-command-line-options": [{"option": "sandbox"}],
            "qom-list-properties": [{"name": "share"}],
            **changes,
        }
        (self.folder / "answers").write_text(json.dumps(answers))
        log, answers_file = str(self.folder / "log"), str(self.folder / "answers")
        text = SCRIPT.format(python=sys.executable, log=log, answers=answers_file)
        executable(self.folder / "qemu", text)

    def asked(self) -> int:
        log = self.folder / "log"
        return log.read_text().count("\n") if log.exists() else 0


@pytest.fixture
def pretender(tmp_path: Path) -> Pretender:
    found = Pretender(tmp_path, [*NEEDED_TYPES, "kvm-accel", "tcg-accel", "vmgenid"])
    found.write()
    return found


def test_what_qemu_says_is_given(pretender: Pretender, tmp_path: Path) -> None:
    qemu = probe_qemu(pretender.settings, tmp_path / "cache")
    assert (qemu.path, qemu.root) == (str(tmp_path / "qemu"), "")
    assert (qemu.version, qemu.machine_type) == ("7.2.22", "pc-q35-7.2")
    abilities = (qemu.has_kvm, qemu.has_tcg, qemu.has_sandbox, qemu.has_ignore_shared)
    assert abilities == (True, True, True, True)
    assert (qemu.has_rom_option, qemu.has_vmgenid, qemu.missing) == (False, True, ())


def test_what_qemu_lacks_is_told(pretender: Pretender, tmp_path: Path) -> None:
    pretender.types = ["tcg-accel", *NEEDED_TYPES[2:]]
    pretender.write(
        **{
            "query-machines": [{"name": "q35"}],
            "query-migrate-capabilities": [{"capability": "events"}],
            "query-command-line-options": [],
            "qom-list-properties": [{"name": "rom"}],
        }
    )
    qemu = probe_qemu(pretender.settings, tmp_path / "cache")
    abilities = (qemu.has_kvm, qemu.has_tcg, qemu.has_sandbox, qemu.has_ignore_shared)
    assert abilities == (False, True, False, False)
    assert (qemu.machine_type, qemu.has_rom_option, qemu.has_vmgenid) == ("", True, False)
    assert qemu.missing == NEEDED_TYPES[:2]


def test_it_is_asked_once(pretender: Pretender, tmp_path: Path) -> None:
    first = probe_qemu(pretender.settings, tmp_path / "cache")
    assert probe_qemu(pretender.settings, tmp_path / "cache") == first
    assert pretender.asked() == 1
    os.utime(tmp_path / "qemu", ns=(1, 1))
    again = probe_qemu(pretender.settings, tmp_path / "cache")
    assert again == replace(first, identity=again.identity)
    assert again.identity != first.identity
    assert pretender.asked() == 2


@pytest.mark.parametrize("text", ["", "null", "[]", "7", '"x"', "{}", '{"format": 1}', "later"])
def test_a_spoilt_memory_is_asked_again(pretender: Pretender, tmp_path: Path, text: str) -> None:
    first = probe_qemu(pretender.settings, tmp_path / "cache")
    (file,) = (tmp_path / "cache/probe").iterdir()
    stored = json.loads(file.read_text())
    file.write_text(json.dumps({**stored, "format": 99}) if text == "later" else text)
    assert probe_qemu(pretender.settings, tmp_path / "cache") == first
    assert pretender.asked() == 2


def test_a_question_that_qemu_does_not_know_is_told(pretender: Pretender, tmp_path: Path) -> None:
    answers = json.loads((tmp_path / "answers").read_text())
    del answers["query-machines"]
    (tmp_path / "answers").write_text(json.dumps(answers))
    with pytest.raises(Failed, match=f"{tmp_path}/qemu does not run: .*query-machines"):
        probe_qemu(pretender.settings, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("#!/bin/sh\necho 'no such option' >&2\nexit 1\n", "no such option"),
        ("#!/nowhere/interpreter\n", "does not run"),
        ("no program at all", "does not run"),
    ],
)
def test_what_does_not_run_says_why(tmp_path: Path, text: str, said: str) -> None:
    program = executable(tmp_path / "qemu", text)
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(Failed, match=f"{program} does not run") as caught:
        probe_qemu(Settings(qemu=str(program)), tmp_path / "cache")
    assert said in caught.value.message
    assert set(os.listdir("/proc/self/fd")) == before


def test_what_says_nothing_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "PROBE_TIMEOUT_S", 0.1)
    program = executable(tmp_path / "qemu", "#!/bin/sh\nexec /usr/bin/sleep 600\n")
    with pytest.raises(MayflyError) as caught:
        probe_qemu(Settings(qemu=str(program)), tmp_path / "cache")
    assert isinstance(caught.value, Unavailable)


@pytest.mark.integration
@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed")
def test_the_real_qemu(tmp_path: Path) -> None:
    qemu = probe_qemu(Settings(), tmp_path)
    major, minor, _ = map(int, qemu.version.split("."))
    assert (major, minor) >= (7, 2)
    assert qemu.machine_type.startswith("pc-q35-")
    assert qemu.has_tcg
    assert qemu.has_sandbox
    assert qemu.has_ignore_shared
    assert qemu.missing == ()
    assert probe_qemu(Settings(), tmp_path) == qemu
