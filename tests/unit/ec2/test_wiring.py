"""The EC2 API put together from settings: keys, wrong settings, whom it refuses."""

from __future__ import annotations

import json
import os
import pwd
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from mayfly import ec2_wiring
from mayfly.cli.ec2 import ec2
from mayfly.ec2.credentials import Vault, read_key_file
from mayfly.errors import Denied, Invalid, Missing
from mayfly.model import State
from mayfly.server.ec2.machines import local_asker
from mayfly.server.ec2.notes import Notes
from mayfly.server.settings import load_server_settings
from mayfly.site_wiring import database_of, site_of
from mayfly.store import schema
from tests.unit.ec2.calls import Client, Clock, code

ME = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # The suite runs as root, which the program refuses to be.
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    file = tmp_path / "server.toml"
    file.write_text(
        f'database = "sqlite:///{tmp_path}/site.db"\nplace = "fake"\n'
        f'fake_directory = "{tmp_path}/fake"\n[ec2]\nkey_file = "{tmp_path}/ec2.key"\n'
    )
    schema.migrate(database_of(load_server_settings(file)))
    return file


def test_a_key_is_issued_used_and_revoked(config: Path) -> None:
    done = CliRunner().invoke(ec2, ["issue", ME, "--json", "--config", str(config)])
    assert done.exit_code == 0, done.output
    shown = json.loads(done.output)
    settings = load_server_settings(config)
    database = database_of(settings)
    stored = Notes(database).find_credential(shown["access_key"])
    assert stored
    assert Vault(read_key_file(settings.ec2.key_file)).open(stored) == shown["secret"]
    written = [file.read_bytes() for file in config.parent.glob("site.db*")]
    assert not any(shown["secret"].encode() in each for each in written)

    service = ec2_wiring.service_of(settings, site_of(settings, database))
    clock = Clock()
    clock.now = service.clock()
    issued = ec2_wiring.issue_key(config, ME)
    client = Client(service, issued, clock)
    made = client("RunInstances", ImageId="debian-12", MinCount=2, MaxCount=2)
    assert [each["InstanceType"] for each in made["Instances"]] == ["m1.small", "m1.small"]
    told = client("RunInstances", ImageId="debian-12", MinCount=1, MaxCount=1, UserData="YQ==")
    assert code(told) == "UnsupportedOperation"
    assert code(client("GetConsoleOutput", InstanceId=made["Instances"][0]["InstanceId"])) != ""

    gone = ["revoke", issued.credential.access_key, "--yes", "--config", str(config)]
    assert CliRunner().invoke(ec2, gone).exit_code == 0
    assert code(client("DescribeInstances")) == "AuthFailure"
    with pytest.raises(Missing, match="no EC2 key"):
        ec2_wiring.revoke_key(config, issued.credential.access_key)
    database.close()


def test_what_ended_is_forgotten_with_its_tags(config: Path) -> None:
    settings = load_server_settings(config)
    database = database_of(settings)
    clock = Clock()
    clock.now = datetime.now(UTC)
    site = replace(site_of(settings, database), clock=lambda: clock().timestamp())
    issued = ec2_wiring.issue_key(config, ME)
    client = Client(replace(ec2_wiring.service_of(settings, site), clock=clock), issued, clock)
    order: dict[str, str | int]
    order = {"ImageId": "debian-12", "MinCount": 1, "MaxCount": 1, "ClientToken": "t"}
    (made,) = client("RunInstances", **order)["Instances"]
    client("CreateTags", ResourceId__1=made["InstanceId"], Tag__1__Key="a")
    client("TerminateInstances", InstanceId__1=made["InstanceId"])
    with ThreadPoolExecutor(1) as pool:
        site.reconciler.round(pool)
    with ThreadPoolExecutor(1) as pool:
        site.reconciler.round(pool)
    (shown,) = client("DescribeInstances")["Reservations"][0]["Instances"]
    assert shown["State"]["Name"] == "terminated"
    assert len(client("DescribeTags")["Tags"]) == 1
    clock.move(3700)
    assert client("DescribeInstances")["Reservations"] == []
    assert client("DescribeTags")["Tags"] == []
    (fresh,) = client("RunInstances", **order)["Instances"]
    assert fresh["InstanceId"] != made["InstanceId"]
    database.close()


def test_a_failed_instance_can_be_terminated(config: Path) -> None:
    settings = load_server_settings(config)
    database = database_of(settings)
    site = site_of(settings, database)
    issued = ec2_wiring.issue_key(config, ME)
    clock = Clock()
    clock.now = datetime.now(UTC)
    client = Client(ec2_wiring.service_of(settings, site), issued, clock)
    order: dict[str, str | int]
    order = {"ImageId": "debian-12", "MinCount": 1, "MaxCount": 1}
    (made,) = client("RunInstances", **order)["Instances"]

    def rounds() -> None:
        for _ in range(2):
            with ThreadPoolExecutor(1) as pool:
                site.reconciler.round(pool)

    rounds()
    for file in settings.fake_directory.glob("*.machine"):
        file.unlink()
    rounds()
    (shown,) = client("DescribeInstances")["Reservations"][0]["Instances"]
    assert (shown["State"]["Name"], shown["StateReason"]["Message"]) == (
        "terminated",
        "its machine has ended",
    )
    assert site.find(local_asker(ME), made["InstanceId"]).state is State.FAILED
    assert code(client("TerminateInstances", InstanceId__1=made["InstanceId"])) == ""
    rounds()
    with pytest.raises(Missing):
        site.find(local_asker(ME), made["InstanceId"])
    assert code(client("TerminateInstances", InstanceId__1=made["InstanceId"])) == ""
    database.close()


def test_a_revocation_is_asked_for_first(config: Path) -> None:
    issued = ec2_wiring.issue_key(config, ME)
    words = ["revoke", issued.credential.access_key, "--config", str(config)]
    assert CliRunner().invoke(ec2, words, input="n\n").exit_code == 1
    notes = Notes(database_of(load_server_settings(config)))
    assert notes.find_credential(issued.credential.access_key) is not None


def test_nobody_gets_no_key(config: Path) -> None:
    with pytest.raises(Missing, match="knows no user"):
        ec2_wiring.issue_key(config, "nobody-of-that-name")
    with pytest.raises(Denied, match="no longer a user"):
        local_asker("nobody-of-that-name")


def test_it_does_not_run_as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(Denied, match="root"):
        ec2_wiring.serve(None)


@pytest.mark.parametrize(
    "line",
    ["colour = 1", "types = {}", 'types = { a = { cpus = 0, memory = "1G" } }', "listen = 1"],
)
def test_a_wrong_setting_is_named(config: Path, line: str) -> None:
    config.write_text(f"[ec2]\n{line}\n")
    with pytest.raises(Invalid, match="'ec2"):
        load_server_settings(config)
