"""Real machines by EC2's words: boto3, the EC2 API, the site server, the host service, ssh."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
from botocore.exceptions import ClientError, WaiterError  # type: ignore[import-untyped]

from tests.integration.host import Host, host_of
from tests.integration.people import Someone, somebody
from tests.integration.site import Server, server_of
from tests.integration.waiting import wait_until

pytestmark = pytest.mark.integration

QUICK = {"Delay": 1, "MaxAttempts": 150}
SETTINGS = """
[ec2]
listen = "127.0.0.1:0"
key_file = "{top}/ec2.key"
types = {{ small = {{ cpus = 1, memory = "512M" }} }}
"""


@contextlib.contextmanager
def api_of(server: Server, owner: str) -> Iterator[int]:
    """Run the EC2 API beside a server; gives its port. ``owner`` is who gets the first key."""
    with server.config.open("a") as file:
        file.write(SETTINGS.format(top=server.top))
    key_of(server, owner)
    log = server.top / "ec2.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            server.argv("ec2", "serve", "--config", str(server.config)),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
        )
    try:
        wait_until(lambda: "listens at" in log.read_text(), "the EC2 API", limit_s=60)
        found = re.search(r"listens at 127.0.0.1:(\d+)", log.read_text())
        assert found
        yield int(found[1])
    finally:
        process.terminate()
        assert process.wait(30) == 0, log.read_text()


def key_of(server: Server, owner: str) -> dict[str, str]:
    """Issue a key to a user; this makes the file that secrets are sealed with, too."""
    command = server.argv("ec2", "issue", owner, "--json", "--config", str(server.config))
    done = subprocess.run(command, check=True, capture_output=True, cwd="/")
    key: dict[str, str] = json.loads(done.stdout)
    return key


def client_of(server: Server, port: int, owner: str) -> Any:
    """Give boto3's client, with a fresh key of this user's."""
    key = key_of(server, owner)
    return boto3.client(
        "ec2",
        endpoint_url=f"http://127.0.0.1:{port}/ec2",
        region_name="us-east-1",
        aws_access_key_id=key["access_key"],
        aws_secret_access_key=key["secret"],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A host service, a site server, the EC2 API beside it, and somebody who wants machines."""

    host: Host
    server: Server
    alice: Someone
    port: int

    def client(self, owner: str) -> Any:
        """Give boto3's client, with a fresh key of this user's."""
        return client_of(self.server, self.port, owner)

    def wait(self, ec2: Any, what: str, instance: str) -> None:
        """Wait with one of boto3's waiters; says what everybody has said if it gives up."""
        try:
            ec2.get_waiter(what).wait(InstanceIds=[instance], WaiterConfig=QUICK)
        except WaiterError as error:
            answer = ec2.describe_instances(InstanceIds=[instance])["Reservations"]
            raise AssertionError((what, answer, self.said())) from error

    def said(self) -> str:
        """Give what both services said."""
        return self.server.log.read_text()[-4000:] + self.host.log.read_text()[-4000:]

    def run(self, *words: str) -> str:
        """Run a command as Alice; gives its output."""
        prefix = ["setpriv", f"--reuid={self.alice.uid}", f"--regid={self.alice.uid}"]
        done = subprocess.run(
            [*prefix, "--clear-groups", *words],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
            cwd="/",
            env={**os.environ, "HOME": str(self.alice.home), "MAYFLY_SERVER": self.server.url},
        )
        assert done.returncode == 0, (words, done.stderr, self.said())
        return done.stdout


@pytest.fixture(scope="module")
def setting(warm_home: Path) -> Iterator[Setting]:
    with (
        somebody("mayfly-site-t") as site,
        somebody("mayfly-alice-t") as alice,
        host_of(warm_home, f'site_user = "{site.name}"\n') as host,
        server_of(site, f'host_socket = "{host.socket}"\n') as server,
        api_of(server, alice.name) as port,
    ):
        yield Setting(host=host, server=server, alice=alice, port=port)


def test_a_machine_from_boto3_to_ssh(setting: Setting) -> None:
    ec2 = setting.client(setting.alice.name)
    key = setting.alice.home / "key"
    setting.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    public = key.with_suffix(".pub").read_bytes()
    ec2.import_key_pair(KeyName="mine", PublicKeyMaterial=public)
    assert "debian-12" in [each["ImageId"] for each in ec2.describe_images()["Images"]]

    order: dict[str, Any] = {"ImageId": "debian-12", "MinCount": 1, "MaxCount": 1}
    order |= {"KeyName": "mine", "ClientToken": "one"}
    tags = [{"Key": "mayfly:for", "Value": "8h"}]
    order["TagSpecifications"] = [{"ResourceType": "instance", "Tags": tags}]
    made = ec2.run_instances(**order)["Instances"][0]["InstanceId"]
    assert ec2.run_instances(**order)["Instances"][0]["InstanceId"] == made
    ids = [made]
    setting.wait(ec2, "instance_running", made)
    setting.wait(ec2, "instance_status_ok", made)

    mayfly = str(Path(sys.executable).with_name("mayfly"))
    config = setting.alice.home / "ssh_config"
    config.write_text(setting.run(mayfly, "machine", "ssh-config", made))
    ssh = ("ssh", "-F", str(config), "-i", str(key), "-o", "IdentitiesOnly=yes")
    assert setting.run(*ssh, "-l", "root", made, "id -u") == "0\n"

    ec2.stop_instances(InstanceIds=ids)
    setting.wait(ec2, "instance_stopped", made)
    ec2.start_instances(InstanceIds=ids)
    setting.wait(ec2, "instance_running", made)
    ec2.terminate_instances(InstanceIds=ids)
    setting.wait(ec2, "instance_terminated", made)
    assert ec2.describe_instances()["Reservations"][0]["Instances"][0]["State"]["Code"] == 48


def test_a_key_that_was_revoked_opens_nothing(setting: Setting) -> None:
    ec2 = setting.client(setting.alice.name)
    assert ec2.describe_regions()["Regions"]
    key = ec2._request_signer._credentials.access_key
    gone = setting.server.argv(
        "ec2", "revoke", key, "--yes", "--config", str(setting.server.config)
    )
    subprocess.run(gone, check=True, capture_output=True, cwd="/")
    with pytest.raises(ClientError, match="AuthFailure"):
        ec2.describe_regions()


def test_an_order_does_not_wait_for_the_loop_of_the_server() -> None:
    with (
        somebody("mayfly-site-u") as site,
        server_of(site, 'place = "fake"\ninterval = "1h"\n', start=False) as server,
    ):
        server.write_config(
            f'place = "fake"\nfake_directory = "{server.top}/fake"\ninterval = "1h"\n'
        )
        server.start()
        with api_of(server, site.name) as port:
            ec2 = client_of(server, port, site.name)
            order: dict[str, Any] = {"ImageId": "debian-12", "MinCount": 1, "MaxCount": 1}
            for _ in range(2):
                made = ec2.run_instances(**order)["Instances"][0]["InstanceId"]
                ec2.get_waiter("instance_running").wait(InstanceIds=[made], WaiterConfig=QUICK)
                ec2.terminate_instances(InstanceIds=[made])
                ec2.get_waiter("instance_terminated").wait(InstanceIds=[made], WaiterConfig=QUICK)
                (shown,) = ec2.describe_instances(InstanceIds=[made])["Reservations"]
                assert shown["Instances"][0]["State"]["Name"] == "terminated"
