"""Machines for people on one computer: the command line, the server, the host service, ssh."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mayfly.errors import Denied, Invalid, Missing
from mayfly.host import client
from tests.integration.host import Host, User, claim_fields, host_of
from tests.integration.people import Someone, somebody
from tests.integration.site import Server, server_of
from tests.integration.waiting import wait_until

pytestmark = pytest.mark.integration

STEP_LIMIT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A host service, a site server in front of it, and somebody who wants machines."""

    host: Host
    server: Server
    alice: Someone

    def run(self, *words: str, who: Someone | None = None, check: bool = True) -> str:
        """Run a command as a user; gives its output."""
        user = who or self.alice
        prefix = ["setpriv", f"--reuid={user.uid}", f"--regid={user.uid}", "--clear-groups"]
        done = subprocess.run(
            [*prefix, *words],
            check=False,
            capture_output=True,
            text=True,
            timeout=STEP_LIMIT_S,
            cwd="/",
            env={
                **os.environ,
                "HOME": str(user.home),
                "MAYFLY_SERVER": self.server.url,
                "MAYFLY_HOST_SOCKET": str(self.host.socket),
            },
        )
        if check:
            assert done.returncode == 0, (words, done.stdout, done.stderr, self.said())
        return done.stdout + ("" if check else done.stderr)

    def mayfly(self, *words: str, who: Someone | None = None, check: bool = True) -> str:
        """Run a command of ours as a user."""
        command = str(Path(sys.executable).with_name("mayfly"))
        return self.run(command, *words, who=who, check=check)

    def said(self) -> str:
        """Give what both services said."""
        return self.server.log.read_text()[-4000:] + self.host.log.read_text()[-4000:]

    def lease(self, name: str) -> dict[str, Any]:
        """Give a lease of Alice's."""
        found: dict[str, Any] = json.loads(self.mayfly("machine", "show", name, "--json"))
        return found

    def until(self, name: str, state: str) -> dict[str, Any]:
        """Wait until a lease of Alice's is in a state."""
        wait_until(lambda: self.lease(name)["state"] == state, state, limit_s=STEP_LIMIT_S)
        return self.lease(name)


LADDER = """
[leases]
most = "30d"
remind = ["10s"]
grace = "8s"
"""


@pytest.fixture(scope="module")
def setting(warm_home: Path) -> Iterator[Setting]:
    with (
        somebody("mayfly-site-t") as site,
        somebody("mayfly-alice-t") as alice,
        host_of(warm_home, f'site_user = "{site.name}"\n') as host,
        server_of(site, f'host_socket = "{host.socket}"\n{LADDER}') as server,
    ):
        yield Setting(host=host, server=server, alice=alice)


@pytest.fixture
def key(setting: Setting) -> Path:
    file = setting.alice.home / "id_ed25519"
    if not file.exists():
        setting.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file))
    return file


def test_a_machine_for_a_day(setting: Setting, key: Path) -> None:
    began = time.monotonic()
    setting.mayfly(
        *("machine", "create", "debian-12", "--cpus", "1", "--memory", "512M", "--for", "8h"),
        *("--name", "build1", "--ssh-key", f"{key}.pub"),
    )
    lease = setting.lease("build1")
    assert (lease["state"], lease["owner"]) == ("running", setting.alice.name)
    # Real ssh, with nothing but what is printed for its configuration.
    config = setting.alice.home / "ssh_config"
    config.write_text(setting.mayfly("machine", "ssh-config", "build1"))
    ssh = ("ssh", "-F", str(config), "-i", str(key), "-o", "IdentitiesOnly=yes")
    assert setting.run(*ssh, "build1", "id -un; hostname").startswith(setting.alice.name)
    print(f"first ssh command after {time.monotonic() - began:.1f} s")
    assert setting.run(*ssh, "-l", "root", "build1", "id -u") == "0\n"
    # Without the key there is no way in.
    bare = ("ssh", "-F", str(config), "-o", "IdentityFile=none", "-o", "BatchMode=yes")
    assert "Permission denied" in setting.run(*bare, "build1", "true", check=False)
    # The host knows whose it is; the site's user sees it, other machines it does not.
    (record,) = setting.host.machines()
    assert record["owner"] == setting.alice.uid
    assert record["lease"] == lease["id"]
    setting.mayfly("machine", "suspend", "build1")
    assert setting.host.machines()[0]["state"] == "suspended"
    setting.mayfly("machine", "resume", "build1")
    assert setting.run(*ssh, "build1", "id -un") == f"{setting.alice.name}\n"
    assert "build1" in setting.mayfly("machine", "list")
    setting.mayfly("machine", "extend", "build1", "--for", "2d")
    setting.mayfly("machine", "delete", "build1")
    wait_until(lambda: setting.host.machines() == [], "the machine's end", limit_s=STEP_LIMIT_S)


def test_its_time_is_over(setting: Setting) -> None:
    setting.mayfly("machine", "create", "debian-12", "--for", "25s", "--name", "short1")
    setting.until("short1", "suspended")
    lease = setting.lease("short1")
    assert "its time is over" in lease["reason"]
    assert "reminder: machine short1" in setting.server.log.read_text()
    wait_until(lambda: setting.host.machines() == [], "its end", limit_s=STEP_LIMIT_S)
    assert "short1" not in setting.mayfly("machine", "list")


def test_what_the_site_user_may_not(setting: Setting) -> None:
    site = User(uid=setting.server.user.uid)
    for op, fields in (("drain", {}), ("strip", {"machine": "23456789"}), ("check", {})):
        with pytest.raises(Denied):
            setting.host.ask(op, site, **fields)
    with pytest.raises(Missing):
        setting.host.ask("delete", site, machine="23456789")
    # It speaks for somebody, or not at all.
    for changes, kind in (
        ({}, Invalid),
        ({"user": "root", "lease": "a-lease"}, Denied),
        ({"user": "nobody-of-that-name", "lease": "a-lease"}, Missing),
    ):
        with closing(setting.host.connect(site)) as connection, pytest.raises(kind):
            client.call(connection, "claim", claim_fields(outlive=True, **changes))
