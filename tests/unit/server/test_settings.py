"""The server's settings, and what 'mayfly server check' says of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from mayfly.cli.server import server
from mayfly.errors import Invalid, Missing
from mayfly.server.settings import load_server_settings


def test_without_a_file_all_is_usual() -> None:
    settings = load_server_settings(None)
    assert settings.leases.ladder().default_s == 30 * 86_400
    assert settings.quota.quotas().user.machines == 20


def test_what_may_be_set(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text(
        '[leases]\ndefault = "8h"\nremind = ["1h", "2h"]\n[quota.group]\nmemory = "4G"\n'
        '[roles]\nmanagers = { physics = ["alice"] }\n'
        '[[issuer]]\nurl = "https://i"\naudience = "a"\nkeys = "/k.json"\n'
    )
    settings = load_server_settings(file)
    assert settings.leases.ladder().remind_s == (7200, 3600)
    assert settings.quota.quotas().group.memory_mib == 4096
    assert settings.issuer[0].keys == Path("/k.json")


@pytest.mark.parametrize(
    "text",
    [
        "databse = 'x'",
        "interval = 5",
        "interval = 'soon'",
        "place = 'cloud'",
        "[quota.user]\nmachines = -1",
        "[quota.user]\nmachines = '5'",
        "[quota.user]\nmemory = 5",
        "[leases]\ngrace = true",
        "[[issuer]]\nurl = 'x'",
        "listen = [",
        "[web]\nurl = 'site.test'",
        "[web]\nurl = 'https://site.test/page'",
        "[web]\nurl = 'https://user@site.test'",
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "server.toml"
    file.write_text(text)
    with pytest.raises(Invalid, match=r"server\.toml"):
        load_server_settings(file)


def test_where_browsers_find_the_page(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    assert load_server_settings(None).page_url() == ""
    file.write_text('listen = "127.0.0.1:8080"')
    assert load_server_settings(file).page_url() == "http://127.0.0.1:8080"
    file.write_text('[web]\nurl = "https://site.test:8443"')
    assert load_server_settings(file).page_url() == "https://site.test:8443"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Missing):
        load_server_settings(tmp_path / "server.toml")


def test_check_before_and_after_the_database_is_made(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text(
        f'database = "sqlite:///{tmp_path}/s.db"\nplace = "fake"\n'
        f'fake_directory = "{tmp_path}/fake"\n'
    )
    run = CliRunner()
    before = run.invoke(server, ["check", "--config", str(file)])
    assert (before.exit_code, "FAIL  database" in before.output) == (1, True)
    assert run.invoke(server, ["migrate", "--config", str(file)]).exit_code == 0
    after = run.invoke(server, ["check", "--config", str(file)])
    assert after.exit_code == 0, after.output
    assert "images: alma-9, debian-12" in after.output
