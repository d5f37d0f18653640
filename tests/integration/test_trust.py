"""An image is endorsed, subscribed, run, and taken back: real commands, a real server, machines."""

from __future__ import annotations

import functools
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.conftest import Cli
from tests.integration.host import ALICE, IMAGE, MARKS, Host, User, host_of
from tests.integration.waiting import wait_until

pytestmark = MARKS

JO = "/O=A test/CN=Jo Doe"
POLICY = f"""
[policy]
revoked = "kill"

[[policy.allow]]
who = ["*"]
images = ["{IMAGE}"]
lists = ["Ours"]
endorsers = ["{JO}"]
"""
UPDATES = 'trust_update = "1s"\n'
STANDBY = f'[[standby]]\nimage = "{IMAGE}"\nleast = 1\nmost = 1\n'
UPDATE_LIMIT_S = 30


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def www(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A web server on this host: its directory and its URL."""
    place = tmp_path / "www"
    place.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(place)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield place, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def publish(cli: Cli, place: Path) -> None:
    cli("endorse", "list", "sign", "ours", check=True)
    cli("endorse", "list", "publish", "ours", str(place / "ours.list"), check=True)


def endorse(cli: Cli, place: Path, url: str) -> None:
    """Do as an endorser does."""
    cli("endorse", "key", "create", "--subject", JO, check=True)
    cli("endorse", "image", IMAGE, check=True)
    cli("endorse", "list", "create", "ours", "--title", "Ours", "--uri", f"{url}/l", check=True)
    cli("endorse", "list", "add", "ours", IMAGE, check=True)
    publish(cli, place)


def believe(cli: Cli, url: str) -> None:
    """Do as a site's admin does."""
    (cli.home / "config.toml").write_text("trust_local_urls = true\n")
    cli("trust", "add", str(cli.home / "state/endorse/cert.pem"), check=True)
    cli("trust", "subscribe", f"{url}/ours.list", "--endorser", JO, check=True)
    (cli.home / "policy.toml").write_text(POLICY)


def run_alone(cli: Cli, *words: str) -> subprocess.CompletedProcess[bytes]:
    return cli("run", IMAGE, "--no-workdir", *words, "--", "id", "-u")


def test_from_a_key_to_an_image_that_nobody_can_run_any_more(
    own_cli: Cli, www: tuple[Path, str]
) -> None:
    place, url = www
    alice = User(uid=ALICE)
    (own_cli.home / "policy.toml").write_text(POLICY)
    assert b"rule 'unendorsed'" in run_alone(own_cli).stderr
    endorse(own_cli, place, url)
    believe(own_cli, url)
    assert run_alone(own_cli).stdout == b"0\n"
    with host_of(own_cli.home, UPDATES + STANDBY) as host:
        host.refilled()
        code, output, said = host.run("run", IMAGE, "--no-workdir", "--", "id", "-u", user=alice)
        assert (code, output) == (0, f"{ALICE}\n"), said
        _refuse_more(host, alice)
        code, name, said = host.run("run", IMAGE, "--no-workdir", "--detach", user=alice)
        assert code == 0, said
        own_cli("endorse", "revoke", IMAGE, "--reason", "a root kit", check=True)
        publish(own_cli, place)
        # Nobody tells the service: it asks by itself.
        wait_until(lambda: not host.machines(), "the machine's end", limit_s=UPDATE_LIMIT_S)
        assert host.said(f"machine {name.strip()} ended: image '{IMAGE}' is refused")
        wait_until(lambda: host.standbys() == [], "the standby's end", limit_s=UPDATE_LIMIT_S)
        code, _, said = host.run("run", IMAGE, "--no-workdir", "--", "true", user=alice)
        assert code == 125
        assert "took it back" in said
        assert "a root kit (rule 'image-revoked'" in said
        assert f"{own_cli.home}/policy.toml:" in said
    done = run_alone(own_cli)
    assert done.returncode == 125
    assert b"rule 'image-revoked'" in done.stderr


def _refuse_more(host: Host, user: User) -> None:
    """See that what the policy does not give is not to be had, neither by asking nor inside."""
    for option in (("--root",), ("--network", "open")):
        code, _, said = host.run("run", IMAGE, "--no-workdir", *option, "--", "id", user=user)
        assert code == 125
        assert "policy.toml:5: " in said
    code, name, _ = host.run("run", IMAGE, "--no-workdir", "--detach", user=user)
    assert code == 0
    code, output, said = host.run("machine", "ssh", name.strip(), "--root", "--", "id", user=user)
    assert code != 0, output
    assert "root" in said
    assert host.run("machine", "delete", name.strip(), user=user)[0] == 0
