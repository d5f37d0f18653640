"""Five ways in which a site can give machines to jobs, each a few lines of configuration."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.integration import gridengine
from tests.integration.gridengine import MARKS, QUEUE
from tests.integration.gridengine_site import POLICY, VM, Site, made, nothing_left, site
from tests.integration.host import IMAGE
from tests.integration.people import somebody
from tests.integration.waiting import wait_until

__all__ = ["made", "site"]

pytestmark = MARKS

BACKFILL = "backfill"
HEAD = '[policy]\nendorsed = "optional"\n'
ALL = f'[[policy.allow]]\nwho = ["*"]\nimages = ["{IMAGE}"]\n'
NONE_OF_IT = ("-ac", "vm_image=none")
WAITS = "hostname; touch up; while [ ! -e go ]; do sleep 0.1; done\n"


@pytest.fixture
def ruled(site: Site) -> Iterator[Site]:
    """That site; its policy is as before afterwards."""
    yield site
    rule(site, POLICY)


def rule(site: Site, policy: str) -> None:
    """Give the site a policy; services and verifier see it at the next job."""
    fresh = site.host.home / "policy.new"
    fresh.write_text(policy)
    fresh.replace(site.host.home / "policy.toml")


def default(who: str, mode: str) -> str:
    """Give the table of a default."""
    return f'[[policy.default]]\nwho = ["{who}"]\nmode = "{mode}"\nimage = "{IMAGE}"\n'


def test_a_host_that_is_a_worker_of_one_system(ruled: Site) -> None:
    rule(ruled, HEAD + ALL + default(f"queue:{QUEUE}", "force"))
    code, out, err = ruled.qsub("-b", "y", "hostname")
    assert (code, out.strip() != os.uname().nodename) == (0, True), err
    code, _, err = ruled.qsub(*NONE_OF_IT, stdin="true\n")
    assert (code != 0, "mayfly" in err) == (True, True)


def backfill_queue(site: Site) -> None:
    """Make a queue whose jobs stand still while the first one has any."""
    ask = site.cell.ask
    values = gridengine.parse_config(ask("qconf", "-sq", QUEUE))
    ask("qconf", "-Aq", site.cell.file({**values, "qname": BACKFILL}))
    ask("qconf", "-rattr", "queue", "subordinate_list", f"{BACKFILL}=1", QUEUE)


def test_one_system_fills_what_another_leaves_idle(ruled: Site) -> None:
    backfill_queue(ruled)
    try:
        both = [f"queue:{QUEUE}", f"queue:{BACKFILL}"]
        rule(ruled, HEAD + ALL + "".join(default(who, "default") for who in both))
        given = ("-q", BACKFILL, "-cwd", "-j", "y", "-o", "low")
        low = ruled.cell.submit(
            *given, user=ruled.user.name, cwd=ruled.work, stdin=WAITS.replace("up", "low-up")
        )
        wait_until((ruled.work / "low-up").exists, "the one that fills", limit_s=60)
        high = ruled.cell.submit(
            *("-q", QUEUE, "-cwd", "-j", "y", "-o", "high"),
            user=ruled.user.name,
            cwd=ruled.work,
            stdin=WAITS.replace("up", "high-up").replace("-e go", "-e high-go"),
        )
        wait_until((ruled.work / "high-up").exists, "the other", limit_s=60)
        wait_until(lambda: states(ruled) == ["paused", "running"], "the first to stand still")
        (ruled.work / "go").touch()
        assert ruled.cell.states(low) == ["S"]
        (ruled.work / "high-go").touch()
        ruled.cell.ended(high)
        ruled.cell.ended(low)
        assert ruled.cell.account(low)["exit_status"] == "0"
    finally:
        ruled.cell.run("qdel", "-f", "-u", "*")
        wait_until(lambda: nothing_left(ruled), "the jobs to go", limit_s=60)
        ruled.cell.ask("qconf", "-rattr", "queue", "subordinate_list", "NONE", QUEUE)
        ruled.cell.ask("qconf", "-dq", BACKFILL)


def states(site: Site) -> list[str]:
    """Give the states of the machines that jobs have."""
    return sorted(str(one["state"]) for one in site.host.machines())


def test_a_fresh_machine_for_each_job(ruled: Site) -> None:
    rule(ruled, HEAD + ALL + default(f"queue:{QUEUE}", "default"))
    left = "ls /var/tmp/left 2>/dev/null; hostname; touch /var/tmp/left\n"
    runs = [ruled.qsub(stdin=left)[1].split() for _ in range(2)]
    assert all(len(words) == 1 for words in runs), runs
    assert runs[0] != runs[1]


def test_users_choose_from_a_library(ruled: Site) -> None:
    rule(ruled, HEAD + ALL + default("*", "offer"))
    assert IMAGE in ruled.qsub("-ac", "vm_image=list", stdin="true\n")[2]
    assert ruled.qsub(*VM, "-b", "y", "hostname")[1].strip() != os.uname().nodename
    assert ruled.qsub("-b", "y", "hostname")[1].strip() == os.uname().nodename
    assert "no image 'el5'" in ruled.qsub("-l", "vm_image=el5", stdin="true\n")[2]


def test_an_image_that_is_one_users_own(ruled: Site) -> None:
    own = f'[[policy.allow]]\nwho = ["user:{ruled.user.name}"]\nimages = ["{IMAGE}"]\n'
    rule(ruled, HEAD + own + "shares = false\n")
    code, out, err = ruled.qsub(*VM, stdin="hostname; ls -A $HOME\n")
    assert (code, len(out.splitlines())) == (0, 1), (out, err)
    with somebody("mayfly-hal") as other:
        done = ruled.cell.run("qsub", *VM, user=other.name, stdin="true\n")
    assert (done.returncode != 0, "mayfly" in done.stdout + done.stderr) == (True, True)
