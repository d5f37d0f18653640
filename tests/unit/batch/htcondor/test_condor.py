"""HTCondor: submit files and configuration read by its own code, ads evaluated by it."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mayfly.batch.htcondor.ads import ATTRIBUTES, options_of, parse_ad, quoted, whole
from mayfly.batch.htcondor.installation import described
from mayfly.batch.htcondor.programs import main
from mayfly.batch.htcondor.snippet import snippet
from mayfly.batch.htcondor.starting import read_ad, ticket_for
from mayfly.batch.job import Fault
from mayfly.batch.settings import BatchSettings
from mayfly.errors import Failed
from tests.unit.batch.sites import files, mayfly, stand_in

classad2 = pytest.importorskip("classad2")
htcondor2 = pytest.importorskip("htcondor2")

SUBMIT = """\
executable = a.out
arguments = "one 'two three'"
request_memory = 2GB
+VMImage = "debian-12"
+VMNetwork = "restricted"
+VMAllow = "www.example.org:443"
+VMShare = "/data,/soft:ro"
queue 2
"""
TEXT = snippet(Path("/usr/local/libexec/mayfly/htcondor"), executes=True, submits=True)
BASE = 'DAEMON_LIST = MASTER STARTD SCHEDD\nSTART = TARGET.Owner != "bad"\nRELEASE_DIR = /usr\n'


def asked(text: str) -> dict[str, str]:
    """Give the attributes of ours that a submit file sets, as HTCondor reads it."""
    submit = htcondor2.Submit(text)
    return {
        name.removeprefix("MY."): value
        for name, value in submit.items()
        if name.startswith("MY.VM")
    }


NAMES = re.findall(r"(?m)^([A-Za-z_]+) ?(?:=|@=)", TEXT)


@functools.cache
def configuration() -> dict[str, str]:
    """Give our configuration as HTCondor's own code reads it, macros replaced."""
    script = "import json, sys, htcondor2; "
    script += "print(json.dumps({n: htcondor2.param.get(n) for n in sys.argv[1:]}))"
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "condor_config"
        file.write_text(BASE + TEXT)
        done = subprocess.run(
            [sys.executable, "-c", script, *NAMES],
            env={**os.environ, "CONDOR_CONFIG": str(file)},
            capture_output=True,
            text=True,
            check=True,
        )
    return {name: str(value) for name, value in json.loads(done.stdout).items()}


def configured(*names: str) -> list[str]:
    """Give values of it."""
    return [configuration()[name] for name in names]


def job(**attributes: object) -> object:
    """A job's ad."""
    return classad2.ClassAd({"JobUniverse": 5, "Owner": "eve", **attributes})


def holds(expression: str, mine: object, target: object | None = None) -> object:
    """Evaluate an expression of one ad, seen by another."""
    tree = classad2.ExprTree(expression)
    return tree.eval(mine, target) if target is not None else tree.eval(mine)


# --- submit files ---------------------------------------------------------------------------------


def test_a_submit_file() -> None:
    found = asked(SUBMIT)
    ad = parse_ad("".join(f"{name} = {value}\n" for name, value in found.items()))
    assert options_of(ad) == {
        "image": "debian-12",
        "network": "restricted",
        "allow": "www.example.org:443",
        "share": "/data,/soft:ro",
    }
    assert set(found) <= set(ATTRIBUTES.values())


HOSTILE = ['a"b', "a\\", 'x\\"y', "$(id)", "`id`", "a\nb", "é\t", "", "x" * 5000, "];[", "\\\\"]


@pytest.mark.parametrize("text", HOSTILE)
def test_strings_are_read_as_htcondor_writes_them(text: str) -> None:
    written = str(classad2.ClassAd({"VMImage": text, "A": 1}))
    lines = written.strip("[] \n").replace("; ", "\n").replace(";\n", "\n").rstrip(";")
    if ";" not in text:
        assert parse_ad(lines)["vmimage"] == text
    plain = "".join(sign if sign.isprintable() else " " for sign in text)
    assert classad2.ExprTree(quoted(text)).eval() == plain


@pytest.mark.parametrize("text", ["", "=", "a", "1 = 2", "\0 = 1", "a = b = c", "x" * 100_000])
def test_nonsense_in_an_ad(text: str) -> None:
    ad = parse_ad(text)
    assert options_of(ad) == {}
    assert whole(ad, "a", 7) == 7


# --- configuration, read by HTCondor's own code ---------------------------------------------------


def test_the_configuration_adds_to_the_sites_own() -> None:
    daemons, start, wrapper, sensor = configured(
        "DAEMON_LIST", "START", "USER_JOB_WRAPPER", "STARTD_CRON_MAYFLY_EXECUTABLE"
    )
    assert daemons.split() == ["MASTER", "STARTD", "SCHEDD", "MAYFLY_REGISTRAR"]
    assert '(TARGET.Owner != "bad") &&' in start
    assert wrapper == "/usr/local/libexec/mayfly/htcondor/starter"
    assert sensor.endswith("/sensor")


@pytest.mark.parametrize(
    ("image", "mayfly_there", "owner", "starts"),
    [
        (None, None, "eve", True),
        ("none", None, "eve", True),
        ("el9", True, "eve", True),
        ("el9", False, "eve", False),
        ("el9", None, "eve", False),
        ("el9", True, "bad", False),
        (None, True, "bad", False),
    ],
)
def test_start(image: str | None, mayfly_there: bool | None, owner: str, starts: bool) -> None:
    (expression,) = configured("START")
    machine = {} if mayfly_there is None else {"HasMayfly": mayfly_there}
    wants = job(Owner=owner) if image is None else job(Owner=owner, VMImage=image)
    assert holds(expression, classad2.ClassAd(machine), wants) is starts


def requirement(name: str) -> tuple[str, str]:
    text, reason = configured(f"SUBMIT_REQUIREMENT_{name}", f"SUBMIT_REQUIREMENT_{name}_REASON")
    return text, reason


GOOD = [
    {},
    {"VMImage": "none"},
    {"VMImage": "debian-12"},
    {"VMImage": "el9@2024.1", "VMNetwork": "open"},
    {"VMImage": "el9", "VMNetwork": "restricted", "VMAllow": "a:80"},
    {"JobUniverse": 7},
]
BAD = [
    ({"VMImage": "../x"}, "MayflyImage"),
    ({"VMImage": "a b"}, "MayflyImage"),
    ({"VMImage": 'x" || "'}, "MayflyImage"),
    ({"VMImage": 9}, "MayflyImage"),
    ({"VMImage": ["el9"]}, "MayflyImage"),
    ({"VMImage": "list"}, "MayflyList"),
    ({"VMImage": "el9", "JobUniverse": 7}, "MayflyUniverse"),
    ({"VMImage": "el9", "VMNetwork": "wide"}, "MayflyNetwork"),
    ({"VMImage": "el9", "VMNetwork": 1}, "MayflyNetwork"),
    ({"VMImage": "el9", "VMAllow": "a:80"}, "MayflyAllow"),
]


def refused_by(attributes: dict[str, object]) -> list[str]:
    """Give the submit requirements that an ad does not fulfil."""
    (names,) = configured("SUBMIT_REQUIREMENT_NAMES")
    return [
        name
        for name in names.replace(",", " ").split()
        if name.startswith("Mayfly") and holds(requirement(name)[0], job(**attributes)) is not True
    ]


@pytest.mark.parametrize("attributes", GOOD)
def test_submissions_that_are_taken(attributes: dict[str, object]) -> None:
    assert refused_by(attributes) == []


@pytest.mark.parametrize(("attributes", "name"), BAD)
def test_submissions_that_are_refused(attributes: dict[str, object], name: str) -> None:
    assert name in refused_by(attributes)
    assert str(holds(requirement(name)[1], job(**attributes))).startswith("mayfly: ")


# --- the transform --------------------------------------------------------------------------------


def transformed(**own: str) -> dict[str, str]:
    """Give what the transform sets, for a job that has these expressions already."""
    (text,) = configured("JOB_TRANSFORM_Mayfly")
    lines = [line.strip() for line in TEXT.splitlines()]
    block = lines[lines.index("JOB_TRANSFORM_Mayfly @=end") + 1 : lines.index("@end")]
    assert "REQUIREMENTS" in text
    given = {}
    for line in block:
        verb, name, value = (*line.split(" ", 2), "")[:3]
        if verb == "SET":
            # As HTCondor does: the job's own expression, or what is behind the colon.
            given[name] = re.sub(
                r"\$\(MY\.(\w+)(?::([^)]*))?\)",
                lambda match: own.get(match[1], match[2] or ""),
                value,
            )
        else:
            given[verb] = line.split(" ", 1)[1]
    return given


def test_who_is_transformed() -> None:
    expression = transformed()["REQUIREMENTS"]
    for attributes, wants in (
        ({}, False),
        ({"VMImage": "none"}, False),
        ({"VMImage": ""}, False),
        ({"VMImage": "default"}, True),
        ({"VMImage": "el9"}, True),
    ):
        assert holds(expression, job(**attributes)) is wants


def test_jobs_go_where_their_image_is_hot() -> None:
    given = transformed(Requirements="TARGET.Memory >= 100", Rank="TARGET.Mips")
    wants = job(VMImage="el9")
    hot = classad2.ClassAd({"HasMayfly": True, "MayflyHot": "el7,el9", "Memory": 200, "Mips": 3})
    cold = classad2.ClassAd({"HasMayfly": True, "MayflyHot": "el7", "Memory": 200, "Mips": 3})
    small = classad2.ClassAd({"HasMayfly": True, "MayflyHot": "el9", "Memory": 50, "Mips": 3})
    plain = classad2.ClassAd({"Memory": 200, "Mips": 3})
    found = [holds(given["Requirements"], wants, each) for each in (hot, cold, small, plain)]
    assert found == [True, True, False, False]
    assert [holds(given["Rank"], wants, each) for each in (hot, cold)] == [1003, 3]
    both = classad2.ClassAd({"HasMayfly": True, "Memory": 200, "Requirements": True})
    ad = job(VMImage="el9")
    ad["Requirements"] = classad2.ExprTree(given["Requirements"])  # type: ignore[index]
    assert ad.symmetricMatch(both) is True  # type: ignore[attr-defined]


def test_jobs_without_a_machine_are_held() -> None:
    expression = transformed(OnExitHold="ExitCode == 3")["OnExitHold"]
    for ended, held in (
        ({"ExitBySignal": False, "ExitCode": 125}, True),
        ({"ExitBySignal": False, "ExitCode": 3}, True),
        ({"ExitBySignal": False, "ExitCode": 0}, False),
        ({"ExitBySignal": True, "ExitSignal": 9}, False),
    ):
        assert (holds(expression, job(**ended)) is True) is held
    assert holds(transformed()["OnExitHoldReason"], job()) != ""


# --- the sensor, the wrapper, installation --------------------------------------------------------


def test_the_sensor_says_an_ad(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "batch.toml"
    config.write_text(f'socket = "{tmp_path}/nobody"\n')
    with pytest.raises(SystemExit):
        main("sensor", cluster="c", config=str(config))
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "-"
    ad = classad2.parseOne(out.rpartition("-\n")[0])
    assert (ad["HasMayfly"], ad["MayflyHot"]) == (False, "")


def test_without_root_s_program(tmp_path: Path) -> None:
    settings = BatchSettings(socket=tmp_path / "host.sock")
    plain = ticket_for({}, settings)
    assert (plain.fault, plain.image) == (None, "")
    wants = ticket_for(parse_ad('VMImage = "el9"\nNumShadowStarts = 3'), settings)
    assert (wants.fault, wants.restart) == (Fault.MAYFLY, 2)
    wrong = ticket_for(parse_ad('VMImage = "../x"'), settings)
    assert wrong.fault is Fault.JOB
    assert read_ad({}) == {}
    with pytest.raises(Failed):
        read_ad({"_CONDOR_JOB_AD": str(tmp_path / "no")})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes a batch system")
def test_there_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = tmp_path / "config.d"
    conf.mkdir()
    (conf / "00-site").write_text("X = 1\n")
    body = "import sys\nprint({'DAEMON_LIST': 'MASTER, STARTD', 'STARTER': '/usr/bin/x', "
    body += "'USER_JOB_WRAPPER': '/site/wrapper'}[sys.argv[1]])\n"
    stand_in(tmp_path, "condor_config_val", body, monkeypatch)
    before = files(tmp_path)
    done = mayfly(tmp_path, "htcondor", conf, "install", "--dry-run")
    assert done.exit_code == 0, done.output
    assert files(tmp_path) == before
    done = mayfly(tmp_path, "htcondor", conf, "install")
    assert done.exit_code == 0, done.output
    assert "a wrapper of jobs already, /site/wrapper" in done.output
    text = (conf / "60-mayfly.conf").read_text()
    assert "USER_JOB_WRAPPER" in text
    assert "JOB_TRANSFORM" not in text
    assert "/usr/bin/x" in (tmp_path / "lib/programs/registrar").read_text()
    checked = mayfly(tmp_path, "htcondor", conf, "check")
    assert "note  tested: recorded" in checked.output
    done = mayfly(tmp_path, "htcondor", conf, "uninstall", "--yes")
    assert done.exit_code == 0, done.output
    assert files(tmp_path) == before
    assert "there is no HTCondor" in str(
        mayfly(tmp_path, "htcondor", tmp_path / "no", "install").exception
    )


def test_what_is_shown_of_a_job() -> None:
    text = 'Owner = "eve"\nVMImage = "el9"\nHoldReason = "mayfly: no \\"x\\""\nJobStatus = 5\n'
    assert described(text) == {
        "user": "eve",
        "state": "5",
        "image": "el9",
        "comment": 'mayfly: no "x"',
    }
