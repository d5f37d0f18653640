"""The key of a registry is removed while machines of its images run: real commands and machines."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mayfly.images.cosign.keys import Signed
from mayfly.images.lists.store import TrustStore
from tests.conftest import Cli
from tests.integration.cosigning import make_key
from tests.integration.host import ALICE, IMAGE, MARKS, Host, User, host_of
from tests.integration.waiting import wait_until

pytestmark = MARKS

REGISTRY = "registry.example.org/lab"
ALICE_IS = User(uid=ALICE)
LIMIT_S = 30


def policy(revoked: str) -> str:
    return (
        f'[policy]\nrevoked = "{revoked}"\n\n'
        f'[[policy.allow]]\nwho = ["*"]\nimages = ["{IMAGE}"]\nlists = ["lab"]\n'
    )


def believe(cli: Cli, place: Path) -> None:
    """Believe a key, as the admin does; the image had come in with its signature."""
    key = make_key(place)
    cli("trust", "registry", REGISTRY, "--key", str(key.public), "--name", "lab", check=True)
    (known,) = json.loads(cli("trust", "show", "--json", check=True).stdout)["registries"]
    image = json.loads(cli("image", "show", IMAGE, "--json", check=True).stdout)
    TrustStore(directory=cli.home / "state/trust").note_signed(
        image["sha512"],
        Signed(
            repository=f"{REGISTRY}/tools",
            digest=f"sha256:{'a' * 64}",
            fingerprint=known["fingerprint"],
            at=datetime.now(UTC),
        ),
    )


def start(host: Host) -> str:
    code, name, said = host.run("run", IMAGE, "--no-workdir", "--detach", user=ALICE_IS)
    assert code == 0, said
    return name.strip()


def job_in(host: Host, name: str) -> tuple[int, str]:
    code, _, said = host.run("machine", "ssh", name, "--", "true", user=ALICE_IS)
    return code, said


@pytest.mark.parametrize("revoked", ["mark", "drain", "kill"])
def test_machines_of_a_key_that_is_removed_go_by_the_policy(
    revoked: str, own_cli: Cli, tmp_path: Path
) -> None:
    believe(own_cli, tmp_path)
    (own_cli.home / "policy.toml").write_text(policy(revoked))
    standby = f'[[standby]]\nimage = "{IMAGE}"\nleast = 1\nmost = 1\n'
    with host_of(own_cli.home, standby) as host:
        host.refilled()
        name = start(host)
        assert job_in(host, name)[0] == 0
        host.refilled()
        own_cli("trust", "remove", "lab", "--yes", check=True)
        # Nobody tells the service: it sees that the files have changed.
        wait_until(lambda: host.standbys() == [], "the standby's end", limit_s=LIMIT_S)
        if revoked == "kill":
            wait_until(lambda: not host.machines(), "the machine's end", limit_s=LIMIT_S)
            assert host.said(f"machine {name} ended: image '{IMAGE}' is refused")
        else:
            wait_until(lambda: host.said(f"machine {name}: image"), "the mark", limit_s=LIMIT_S)
            (machine,) = host.machines()
            assert (machine["id"], machine["state"]) == (name, "running")
            code, said = job_in(host, name)
            assert (code == 0) is (revoked == "mark"), said
            assert revoked == "mark" or f"nothing new begins in machine '{name}'" in said
        code, _, said = host.run("run", IMAGE, "--no-workdir", "--", "true", user=ALICE_IS)
        assert code == 125
        assert "rule 'unendorsed'" in said
