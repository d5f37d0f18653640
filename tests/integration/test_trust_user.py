"""What an ordinary user is shown of what the site trusts: a real user, in a root of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.host import ALICE, MARKS
from tests.unit.cli.endorsing import admit, command, subscribed

pytestmark = MARKS

# What the site has is laid over /var/lib, for this one process and its children.
ENTER = """\
set -e
mount -t tmpfs -o mode=0755 none /var/lib
mkdir /var/lib/mayfly
mount --bind "$1" /var/lib/mayfly
shift
exec "$@"
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a site that follows a list with the image el9 in it."""
    home = tmp_path / "site"
    home.mkdir()
    monkeypatch.setenv("MAYFLY_HOME", str(home))
    admit(home, "el9")
    command("endorse", "key", "create", "--subject", "/O=A test/CN=Jo Doe")
    subscribed(home, "el9")
    (home / "state").chmod(0o755)
    return home


@pytest.fixture
def alice(tmp_path: Path) -> Path:
    """The home of a user."""
    tmp_path.parent.chmod(0o711)
    tmp_path.parent.parent.chmod(0o711)
    tmp_path.chmod(0o711)
    home = tmp_path / "alice"
    home.mkdir()
    os.chown(home, ALICE, ALICE)
    return home


def as_alice(site: Path, alice: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("MAYFLY")}
    env |= {f"XDG_{kind}_HOME": str(alice / kind) for kind in ("STATE", "CACHE", "CONFIG")}
    user = ["setpriv", f"--reuid={ALICE}", f"--regid={ALICE}", "--clear-groups"]
    program = [sys.executable, "-I", "-m", "mayfly.cli.main", *words]
    argv = ["unshare", "--mount", "sh", "-c", ENTER, "sh", str(site / "state"), *user, *program]
    return subprocess.run(
        argv,
        check=False,
        capture_output=True,
        text=True,
        env={**env, "HOME": str(alice)},
        cwd="/",
        timeout=60,
    )


def shown(site: Path, alice: Path, *words: str) -> dict[str, Any]:
    done = as_alice(site, alice, "trust", "show", *words, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_sites_image_is_judged_by_what_the_site_trusts(site: Path, alice: Path) -> None:
    digest = command("image", "show", "el9", "--json").stdout
    for name in ("el9", json.loads(digest)["sha512"]):
        assert shown(site, alice, name)["trusted"], name
    done = as_alice(site, alice, "trust", "show", "el9")
    assert "trusted: list 'Ours'" in done.stdout
    command("trust", "block", "el9", "--reason", "a hole")
    assert shown(site, alice, "el9")["rule"] == "blocked"


def test_an_image_that_only_a_list_of_the_sites_has_is_found(site: Path, alice: Path) -> None:
    command("image", "remove", "el9", "--yes")
    assert shown(site, alice, "el9")["trusted"]


def test_whom_the_site_believes_is_listed_apart(site: Path, alice: Path) -> None:
    found = shown(site, alice)
    assert found["lists"] == []
    assert [each["title"] for each in found["site"]["lists"]] == ["Ours"]
    text = as_alice(site, alice, "trust", "show").stdout
    own, _, of_site = text.partition("of the site:\n")
    assert "nobody is believed here" in own
    assert "  list 'Ours': " in of_site
    # For root there is one store: what is his is the site's.
    assert json.loads(command("trust", "show", "--json").stdout)["site"] is None


def test_what_may_not_be_read_is_said_to_be_so(site: Path, alice: Path) -> None:
    (site / "state/trust/subscriptions").chmod(0o700)
    assert "ermission" in shown(site, alice)["site"]["trouble"]
    assert "cannot be read" in as_alice(site, alice, "trust", "show").stdout
    done = as_alice(site, alice, "trust", "show", "el9")
    assert done.returncode != 0
    assert "cannot see which image lists are trusted" in done.stderr
