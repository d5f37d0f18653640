"""The aws command of Debian, as it comes, against a server process."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.ec2.live import Server, start_server

AWS = Path("/usr/bin/aws")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not AWS.exists(), reason="needs awscli")]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_server("alice") as started:
        yield started


class Refused(Exception):
    """What the command said when it failed."""


def aws(server: Server, *words: str) -> Any:
    access_key, secret = server.keys["alice"]
    done = subprocess.run(
        [AWS, "--endpoint-url", server.address, "--output", "json", "ec2", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={
            "AWS_ACCESS_KEY_ID": access_key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": "site",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_PAGER": "",
            "LC_ALL": "C.UTF-8",
            "PATH": "/usr/bin:/bin",
        },
    )
    if done.returncode:
        raise Refused(done.stderr)
    return json.loads(done.stdout) if done.stdout.strip() else None


def wait(server: Server, state: str, *ids: str) -> None:
    """Wait with the command; the site in memory goes on by a step at each look.

    Without a look of ours before, the command would find them under way and sleep for 15 seconds.
    """
    aws(server, "describe-instances")
    aws(server, "wait", state, "--instance-ids", *ids)


def test_a_working_day_of_the_aws_command(server: Server, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    public = f"fileb://{key}.pub"
    aws(server, "import-key-pair", "--key-name", "mine", "--public-key-material", public)
    images = aws(server, "describe-images", "--filters", "Name=name,Values=debian-*")["Images"]
    assert [each["ImageId"] for each in images] == ["debian-12", "debian-13"]
    made = aws(
        server,
        *("run-instances", "--image-id", "debian-12", "--instance-type", "m1.large"),
        *("--count", "2", "--key-name", "mine", "--user-data", "#!/bin/sh"),
        *("--tag-specifications", "ResourceType=instance,Tags=[{Key=Name,Value=build}]"),
    )["Instances"]
    ids = [each["InstanceId"] for each in made]
    wait(server, "instance-running", *ids)
    by_tag = ("--filters", "Name=tag:Name,Values=bui*", "Name=instance-state-name,Values=running")
    shown = aws(server, "describe-instances", *by_tag, "--page-size", "5")["Reservations"]
    assert [each["InstanceId"] for one in shown for each in one["Instances"]] == ids
    console = aws(server, "get-console-output", "--instance-id", ids[0])
    assert console["Output"] == f"{ids[0]} login: "
    aws(server, "stop-instances", "--instance-ids", ids[0])
    wait(server, "instance-stopped", ids[0])
    ended = aws(server, "terminate-instances", "--instance-ids", *ids)["TerminatingInstances"]
    assert {each["CurrentState"]["Name"] for each in ended} == {"shutting-down"}
    wait(server, "instance-terminated", *ids)


def test_the_aws_command_tells_what_was_refused(server: Server) -> None:
    with pytest.raises(Refused, match=r"\(InvalidAMIID.NotFound\).*'\[nothing\]' does not exist"):
        aws(server, "run-instances", "--image-id", "nothing")
    with pytest.raises(Refused, match=r"\(DryRunOperation\)"):
        aws(server, "run-instances", "--image-id", "el9", "--dry-run")
