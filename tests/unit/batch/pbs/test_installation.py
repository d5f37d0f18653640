"""Mayfly put into the files of a Torque and of an OpenPBS, and taken out again."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from mayfly.batch.pbs.installation import HOOK_SOURCE
from mayfly.batch.pbs.qmgr import RESOURCES
from tests.unit.batch.pbs.fake import Outcome, launch
from tests.unit.batch.sites import files, mayfly, stand_in

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes a batch system")
QMGR = """\
import json, pathlib, sys
file = pathlib.Path(__file__).with_name("server.json")
known = json.loads(file.read_text()) if file.exists() else {}
word = sys.argv[sys.argv.index("-c") + 1]
verb, kind, name = word.split(" ", 3)[:3]
place = kind + " " + name
if verb == "create" and place not in known:
    known[place] = [word]
elif verb in ("set", "import") and place in known:
    known[place].append(word)
elif verb == "delete" and place in known:
    del known[place]
elif not (verb == "list" and place in known):
    sys.exit("qmgr obj=" + name + ": Unknown or in use")
file.write_text(json.dumps(known))
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of a site's."""
    monkeypatch.setenv("MAYFLY_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture
def torque(site: Path) -> Path:
    """The home directory of a Torque."""
    home = site / "torque"
    (home / "mom_priv").mkdir(parents=True)
    (home / "server_name").write_text("srv.example.org\n")
    (home / "mom_priv/config").write_bytes(b"$logevent 255\n$usecp *:/home /home")
    return home


@pytest.fixture
def openpbs(site: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration of an OpenPBS whose server is here."""
    stand_in(site, "qmgr", QMGR, monkeypatch)
    conf = site / "pbs.conf"
    conf.write_text(f"PBS_SERVER=srv\nPBS_START_SERVER=1\nPBS_HOME={site}/spool\n")
    return conf


def server(site: Path) -> dict[str, list[str]]:
    """Give what the stand-in for the server was told."""
    told: dict[str, list[str]] = json.loads((site / ".tools/server.json").read_text())
    return told


def test_torque_there_and_back(site: Path, torque: Path) -> None:
    before = files(site)
    assert mayfly(site, "pbs", torque, "install", "--dry-run").exit_code == 0
    assert files(site) == before
    done = mayfly(site, "pbs", torque, "install")
    assert done.exit_code == 0, done.output
    config = (torque / "mom_priv/config").read_text()
    assert f"$job_starter {site}/lib/programs/starter\n" in config
    for name in ("prologue", "epilogue"):
        assert (torque / "mom_priv" / name).stat().st_mode & 0o777 == 0o500
    assert "automatic_requeue_exit_code = 99" in done.output
    found = json.loads(mayfly(site, "pbs", torque, "check", "--json").output)
    wrong = [one["name"] for one in found if not one["ok"]]
    assert wrong == ["host service", "tested"]
    assert mayfly(site, "pbs", torque, "install").exit_code == 0
    done = mayfly(site, "pbs", torque, "uninstall", "--yes")
    assert done.exit_code == 0, done.output
    assert files(site) == before
    assert not (site / "lib").exists()


def test_what_the_site_has_itself_stays(site: Path, torque: Path) -> None:
    (torque / "mom_priv/prologue").write_text("#!/bin/sh\nexit 0\n")
    (torque / "mom_priv/config").write_text("$job_starter /site/starter\n")
    before = files(torque)
    done = mayfly(site, "pbs", torque, "install")
    assert "prologue is there already" in done.output
    assert "a job starter already, /site/starter" in done.output
    assert files(torque).items() >= before.items()
    failed = mayfly(site, "pbs", torque, "check")
    assert failed.exit_code == 1
    assert "FAIL  prologue" in failed.output


def test_openpbs_there_and_back(site: Path, openpbs: Path) -> None:
    before = files(site)
    done = mayfly(site, "pbs", openpbs, "install", "--dry-run")
    assert "qmgr -c 'create hook mayfly'" in done.output
    assert not (site / ".tools/server.json").exists()
    done = mayfly(site, "pbs", openpbs, "install")
    assert done.exit_code == 0, done.output
    told = server(site)
    assert set(told) == {"hook mayfly", *(f"resource {name}" for name in RESOURCES)}
    assert told["hook mayfly"][1].endswith('"queuejob,execjob_launch,execjob_epilogue"')
    assert mayfly(site, "pbs", openpbs, "install").exit_code == 0
    found = json.loads(mayfly(site, "pbs", openpbs, "check", "--json").output)
    assert [one["name"] for one in found if not one["ok"]] == ["host service", "tested"]
    done = mayfly(site, "pbs", openpbs, "uninstall", "--yes")
    assert (done.exit_code, server(site)) == (0, {}), done.output
    assert files(site) == before


def test_what_the_server_had_before_stays(site: Path, openpbs: Path) -> None:
    subprocess.run(["qmgr", "-c", "create resource vm_image type=string"], check=True)
    mayfly(site, "pbs", openpbs, "install")
    mayfly(site, "pbs", openpbs, "uninstall", "--yes")
    assert set(server(site)) == {"resource vm_image"}


def test_an_epilogue_of_the_sites_goes_before_ours(site: Path, openpbs: Path) -> None:
    (site / "spool/mom_priv").mkdir(parents=True)
    (site / "spool/mom_priv/epilogue").write_text("#!/bin/sh\n")
    done = mayfly(site, "pbs", openpbs, "install")
    assert "which PBS would not call" in done.output
    assert server(site)["hook mayfly"][1].endswith('"queuejob,execjob_launch,execjob_end"')


def test_a_server_that_refuses_is_named(site: Path, openpbs: Path) -> None:
    (site / ".tools/qmgr").write_text("#!/bin/sh\necho 'Unauthorized Request' >&2\nexit 1\n")
    done = mayfly(site, "pbs", openpbs, "install")
    assert "Unauthorized Request" in str(done.exception)
    assert mayfly(site, "pbs", openpbs, "uninstall", "--yes").exit_code == 0
    assert not (site / "lib").exists()


def test_without_pbs_it_is_said(site: Path) -> None:
    done = mayfly(site, "pbs", site / "nowhere", "install")
    assert "there is no" in str(done.exception)


# --- the hook, in a Python that has a stand-in for the module of PBS ----------------------------

ANSWER = "#!/bin/sh\ncat >$0.told\ncat $0.answer\n"


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """Stand-ins for the programs that the hook asks."""
    for name in ("register", "release", "verify"):
        (tmp_path / name).write_text(ANSWER)
        (tmp_path / name).chmod(0o755)
    source = HOOK_SOURCE.read_text().replace("@PROGRAMS@", str(tmp_path))
    (tmp_path / "hook.py").write_text(source)
    return tmp_path


def play(programs: Path, event: str, name: str, answer: str, **asked: str) -> Outcome:
    """Let the hook see an event, in which the program gives this answer."""
    (programs / f"{name}.answer").write_text(answer)
    return launch(programs / "hook.py", event, resources=asked)


def test_the_hook_puts_the_starter_before_the_shell(programs: Path) -> None:
    done = play(programs, "EXECJOB_LAUNCH", "register", '{"machine": true}', vm_image="el9")
    assert done.argv == [f"{programs}/starter", "/bin/bash"]
    assert done.progname == f"{programs}/starter"
    assert (done.accepted, done.rerun) == (True, False)
    told = json.loads((programs / "register.told").read_text())
    assert (told["job"], told["user"], told["begun"]) == ("7.srv", "eve", 2)
    assert told["resources"] == {"vm_image": "el9"}


def test_other_jobs_stay_as_they_are(programs: Path) -> None:
    for answer in ('{"machine": false}', "", "nonsense", "[]"):
        done = play(programs, "EXECJOB_LAUNCH", "register", answer)
        assert (done.argv, done.progname, done.accepted) == (["-bash"], "/bin/bash", True)


def test_a_job_that_cannot_be_registered_goes_elsewhere(programs: Path) -> None:
    answer = '{"reason": "no room for the ticket"}'
    done = play(programs, "EXECJOB_LAUNCH", "register", answer, vm_image="el9")
    assert (done.accepted, done.rerun) == (False, True)
    assert "no room" in done.message
    (programs / "register").unlink()
    done = play(programs, "EXECJOB_LAUNCH", "register", "", vm_image="el9")
    assert (done.accepted, done.rerun) == (False, True)
    assert play(programs, "EXECJOB_LAUNCH", "register", "").accepted
    assert play(programs, "EXECJOB_LAUNCH", "register", "", vm_image="none").accepted


def test_submissions_are_refused_in_words(programs: Path) -> None:
    done = play(programs, "QUEUEJOB", "verify", '{"reason": "mayfly: no"}', vm_image="el5")
    assert (done.accepted, done.message) == (False, "mayfly: no")
    assert play(programs, "QUEUEJOB", "verify", '{"image": "el9"}', vm_image="el9").accepted


def test_what_mayfly_failed_is_begun_again(programs: Path) -> None:
    done = play(programs, "EXECJOB_EPILOGUE", "release", '{"again": "no host service"}')
    assert (done.accepted, done.rerun) == (True, True)
    assert not play(programs, "EXECJOB_EPILOGUE", "release", '{"again": ""}').rerun
    assert not play(programs, "EXECJOB_END", "release", '{"again": "x"}').rerun
