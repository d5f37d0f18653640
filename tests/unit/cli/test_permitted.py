"""The site's rules for a machine that is made without the host service."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mayfly.cli.permitted import permitted
from mayfly.config import Paths
from mayfly.engine.jobs import Job
from mayfly.engine.session.job import JobRequest
from mayfly.errors import Denied, Missing, Untrusted
from mayfly.model import Account, MachineSpec, NetworkMode, Shape, ShareDir
from tests.unit.cli.endorsing import admit, command, published, subscribed

ACCOUNT = Account(name="ada", uid=1, gid=1, groups=(), home="/", shell="/bin/sh")
OPTIONAL = """\
[policy]
endorsed = "optional"
[[policy.allow]]
who = ["user:ada"]
images = ["el9"]
"""


def job(image: str = "el9", *, root: bool = False, limit_s: float | None = None) -> Job:
    spec = MachineSpec(
        image=image,
        shape=Shape(cpus=2, memory_mib=1024),
        disk_mib=None,
        network=NetworkMode.NONE,
    )
    request = JobRequest(
        argv=("true",),
        env={},
        cwd="/",
        umask=0o22,
        limits={},
        root=root,
        tty=None,
        workdir=None,
        time_limit_s=limit_s,
    )
    return Job(spec=spec, account=ACCOUNT, request=request)


@pytest.fixture
def site(home: Path) -> Paths:
    admit(home, "el9")
    (home / "policy.toml").write_text(OPTIONAL)
    return Paths.for_user()


def ask(site: Paths, wanted: Job, notes: list[str] | None = None, *, asked: bool = True) -> Job:
    heard: list[str] = [] if notes is None else notes
    return permitted(site, wanted, network_asked=asked, note=heard.append)


@pytest.mark.usefixtures("home")
def test_where_nothing_is_said_nobody_looks() -> None:
    assert not Paths.for_user().has_rules()


@pytest.mark.parametrize("place", ["policy.toml", "state/trust"])
def test_where_something_is_said_one_looks(home: Path, place: str) -> None:
    (home / place).mkdir(parents=True)
    assert Paths.for_user().has_rules()


def test_a_job_is_as_the_policy_has_it(site: Paths, home: Path) -> None:
    given = ask(site, job())
    assert (given.may_root, given.request.time_limit_s) == (False, None)
    (home / "policy.toml").write_text(OPTIONAL + 'root = true\ntime = "1h"\n')
    given = ask(site, job())
    assert (given.may_root, given.request.time_limit_s) == (True, 3600)
    assert ask(site, job(limit_s=60)).request.time_limit_s == 60


def test_a_network_that_was_only_set_is_left_out_and_told(site: Paths) -> None:
    spec = replace(job().spec, network=NetworkMode.RESTRICTED, allow=("a:1",))
    wanted = replace(job(), spec=spec)
    notes: list[str] = []
    given = ask(site, wanted, notes, asked=False)
    assert (given.spec.network, given.spec.allow) == (NetworkMode.NONE, ())
    assert any("network restricted is not allowed" in note for note in notes)
    with pytest.raises(Denied, match=r"policy\.toml:3"):
        ask(site, wanted)


@pytest.mark.parametrize(
    "wanted",
    [
        job(root=True),
        replace(job(), shares=(ShareDir(path=Path("/a")),)),
        replace(job(), account=replace(ACCOUNT, name="bob")),
        job(limit_s=9000),
    ],
)
def test_more_is_denied(site: Paths, home: Path, wanted: Job) -> None:
    (home / "policy.toml").write_text(OPTIONAL + 'shares = false\ntime = "1h"\n')
    with pytest.raises(Denied, match=r"policy\.toml:"):
        ask(site, wanted)


def test_an_image_that_is_not_here_is_missing(site: Paths) -> None:
    with pytest.raises(Missing):
        ask(site, job("nosuch"))


def test_an_image_that_was_taken_back_is_refused_without_a_policy(endorser: Path) -> None:
    subscribed(endorser)
    assert ask(Paths.for_user(), job()).may_root
    command("endorse", "revoke", "el9", "--reason", "a hole")
    published(endorser)
    command("trust", "update")
    with pytest.raises(Untrusted, match="image-revoked"):
        ask(Paths.for_user(), job())


def test_run_obeys_before_it_makes_anything(endorser: Path) -> None:
    command("trust", "block", "el9", "--reason", "see ticket 4711")
    done = command("run", "el9", "--no-workdir", "--", "true")
    assert done.exit_code == 125
    assert "rule 'blocked'" in done.stderr
    assert not any(endorser.glob("state/machines/*/*"))
