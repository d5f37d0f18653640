"""boto3, as it comes, against a server process."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from tests.unit.ec2.live import Server, start_server

QUICK = {"Delay": 0, "MaxAttempts": 20}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_server("alice", "bob", "carol") as started:
        yield started


def session(server: Server, owner: str) -> Any:
    access_key, secret = server.keys[owner]
    return boto3.session.Session(
        aws_access_key_id=access_key, aws_secret_access_key=secret, region_name="us-east-1"
    )


def client(server: Server, owner: str = "alice") -> Any:
    return session(server, owner).client("ec2", endpoint_url=server.address)


def test_an_instance_from_run_to_terminate(server: Server) -> None:
    ec2 = client(server)
    made = ec2.run_instances(ImageId="debian-12", MinCount=1, MaxCount=1)["Instances"][0]
    ids = [made["InstanceId"]]
    ec2.get_waiter("instance_exists").wait(InstanceIds=ids, WaiterConfig=QUICK)
    ec2.get_waiter("instance_running").wait(InstanceIds=ids, WaiterConfig=QUICK)
    ec2.get_waiter("instance_status_ok").wait(InstanceIds=ids, WaiterConfig=QUICK)
    ec2.get_waiter("system_status_ok").wait(InstanceIds=ids, WaiterConfig=QUICK)
    console = ec2.get_console_output(InstanceId=ids[0])
    assert "login:" in console["Output"]
    ec2.reboot_instances(InstanceIds=ids)
    ec2.stop_instances(InstanceIds=ids)
    ec2.get_waiter("instance_stopped").wait(InstanceIds=ids, WaiterConfig=QUICK)
    ec2.start_instances(InstanceIds=ids)
    ec2.get_waiter("instance_running").wait(InstanceIds=ids, WaiterConfig=QUICK)
    ec2.terminate_instances(InstanceIds=ids)
    ec2.get_waiter("instance_terminated").wait(InstanceIds=ids, WaiterConfig=QUICK)


def test_the_resource_interface(server: Server) -> None:
    ec2 = session(server, "alice").resource("ec2", endpoint_url=server.address)
    pair = ec2.create_key_pair(KeyName="lab", KeyType="ed25519")
    assert "PRIVATE KEY" in pair.key_material
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "course", "Value": "unix"}]}]
    made = ec2.create_instances(
        ImageId="el9",
        InstanceType="m1.large",
        MinCount=3,
        MaxCount=3,
        KeyName="lab",
        UserData="#!/bin/sh\ntrue\n",
        TagSpecifications=tags,
    )
    wanted = [{"Name": "tag:course", "Values": ["un?x", "none"]}]
    found = list(ec2.instances.filter(Filters=wanted))
    assert {each.id for each in found} == {each.id for each in made}
    assert found[0].key_name == "lab"
    made[0].create_tags(Tags=[{"Key": "seat", "Value": "1"}])
    made[0].reload()
    assert {"Key": "seat", "Value": "1"} in made[0].tags
    assert ec2.instances.filter(Filters=wanted).terminate()[0]["TerminatingInstances"]
    pair.delete()
    assert list(ec2.key_pairs.all()) == []
    assert "debian-13" in [each.id for each in ec2.images.all()]


def test_pages(server: Server) -> None:
    ec2 = client(server, "carol")
    made = ec2.run_instances(ImageId="el9", MinCount=23, MaxCount=23)["Instances"]
    pages = list(
        ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 10})
    )
    counts = [sum(len(one["Instances"]) for one in page["Reservations"]) for page in pages]
    assert counts == [10, 10, 3]
    assert {each["InstanceId"] for each in made} == {
        each["InstanceId"]
        for page in pages
        for one in page["Reservations"]
        for each in one["Instances"]
    }
    images = ec2.get_paginator("describe_images").paginate(PaginationConfig={"PageSize": 2})
    assert [len(page["Images"]) for page in images] == [2, 1]
    ec2.create_tags(
        Resources=[made[0]["InstanceId"]],
        Tags=[{"Key": f"k{number}", "Value": ""} for number in range(7)],
    )
    tags = ec2.get_paginator("describe_tags").paginate(PaginationConfig={"PageSize": 5})
    assert [len(page["Tags"]) for page in tags] == [5, 2]


def refused(call: Any, **values: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        call(**values)
    answer = caught.value.response
    assert len(answer["ResponseMetadata"]["RequestId"]) == 36
    return str(answer["Error"]["Code"]), int(answer["ResponseMetadata"]["HTTPStatusCode"])


def test_errors_come_as_the_client_knows_them(server: Server) -> None:
    ec2 = client(server)
    order: dict[str, Any] = {"ImageId": "el9", "MinCount": 1, "MaxCount": 1}
    assert refused(ec2.run_instances, DryRun=True, **order) == ("DryRunOperation", 412)
    ec2.run_instances(ClientToken="once", **order)
    ec2.run_instances(ClientToken="once", **order)
    other = {**order, "ImageId": "debian-12", "ClientToken": "once"}
    assert refused(ec2.run_instances, **other) == ("IdempotentParameterMismatch", 400)
    missing = {"InstanceIds": ["i-" + "0" * 17]}
    assert refused(ec2.describe_instances, **missing) == ("InvalidInstanceID.NotFound", 400)
    assert refused(ec2.describe_vpcs) == ("InvalidAction", 400)
    group = {**order, "SecurityGroupIds": ["sg-1"]}
    assert refused(ec2.run_instances, **group) == ("UnknownParameter", 400)


def test_a_wrong_secret_gets_nowhere(server: Server) -> None:
    access_key, _ = server.keys["alice"]
    _, secret = server.keys["bob"]
    stolen = Server(server.port, {"alice": (access_key, secret)})
    assert refused(client(stolen).describe_instances) == ("AuthFailure", 401)


def test_a_signed_address_works_in_any_program(server: Server) -> None:
    ec2 = client(server)
    address = ec2.generate_presigned_url("describe_regions", ExpiresIn=60, HttpMethod="GET")
    with urllib.request.urlopen(address, timeout=30) as answer:
        assert b"<regionName>site</regionName>" in answer.read()
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(address.replace("DescribeRegions", "DescribeImages"), timeout=30)


def test_thirty_orders_at_once_each_make_their_own(server: Server) -> None:
    ec2 = client(server, "bob")

    def order(_number: int) -> str:
        made = ec2.run_instances(ImageId="el9", MinCount=1, MaxCount=1)
        return str(made["Instances"][0]["InstanceId"])

    with ThreadPoolExecutor(10) as pool:
        made = list(pool.map(order, range(30)))
    assert len(set(made)) == 30


@pytest.mark.parametrize(
    "text",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\n\r\n",
        b"POST /ec2/ HTTP/1.1\r\nHost: a\r\nX: \x01\x02\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    ],
)
def test_raw_nonsense_is_refused(server: Server, text: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(text)
        answer = connection.makefile("rb").readline()
    assert answer.startswith(b"HTTP/1.1 4"), answer
    assert client(server).describe_regions()["Regions"]
