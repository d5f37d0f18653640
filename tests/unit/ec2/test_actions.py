"""Every action, asked with botocore's signature and read with botocore's parser."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest

from mayfly.ec2 import fault
from mayfly.ec2.actions import ACTIONS
from mayfly.ec2.values import PHASES, Phase
from mayfly.errors import Conflict, Denied, Failed, Unavailable
from mayfly.model import State
from tests.unit.ec2.calls import MODEL, Client, code
from tests.unit.ec2.conftest import World


def run(client: Client, count: int = 1, **more: str | int) -> list[str]:
    values: dict[str, str | int] = {"ImageId": "debian-12", "MinCount": count, "MaxCount": count}
    answer = client("RunInstances", **{**values, **more})
    assert "Error" not in answer, answer
    return [each["InstanceId"] for each in answer["Instances"]]


def state(client: Client, instance: str) -> str:
    answer = client("DescribeInstances", InstanceId__1=instance)
    return str(answer["Reservations"][0]["Instances"][0]["State"]["Name"])


def test_every_action_is_one_of_the_real_service() -> None:
    assert set(ACTIONS) <= set(MODEL.operation_names)


def test_every_state_of_a_machine_has_a_name() -> None:
    assert set(PHASES) == set(State)


def test_the_life_of_an_instance(world: World) -> None:
    (one,) = run(world.alice, KeyName="", InstanceType="m1.large")
    assert [state(world.alice, one), state(world.alice, one)] == ["pending", "running"]
    status = world.alice("DescribeInstanceStatus", InstanceId__1=one)["InstanceStatuses"][0]
    assert (status["InstanceStatus"]["Status"], status["SystemStatus"]["Status"]) == ("ok", "ok")

    stopping = world.alice("StopInstances", InstanceId__1=one)["StoppingInstances"][0]
    assert (stopping["PreviousState"]["Code"], stopping["CurrentState"]["Code"]) == (16, 64)
    assert [state(world.alice, one), state(world.alice, one)] == ["stopping", "stopped"]
    assert code(world.alice("RebootInstances", InstanceId__1=one)) == "IncorrectInstanceState"
    assert world.alice("DescribeInstanceStatus")["InstanceStatuses"] == []
    every = world.alice("DescribeInstanceStatus", IncludeAllInstances="true")["InstanceStatuses"]
    assert every[0]["InstanceStatus"]["Status"] == "not-applicable"

    world.alice("StartInstances", InstanceId__1=one)
    assert [state(world.alice, one), state(world.alice, one)] == ["pending", "running"]
    assert code(world.alice("RebootInstances", InstanceId__1=one)) == ""
    console = world.alice("GetConsoleOutput", InstanceId=one)
    assert base64.b64decode(console["Output"]).decode() == f"{one} login: "

    ending = world.alice("TerminateInstances", InstanceId__1=one)["TerminatingInstances"][0]
    assert ending["CurrentState"] == {"Code": 32, "Name": "shutting-down"}
    assert [state(world.alice, one), state(world.alice, one)] == ["shutting-down", "terminated"]
    assert code(world.alice("StartInstances", InstanceId__1=one)) == "IncorrectInstanceState"
    assert code(world.alice("TerminateInstances", InstanceId__1=one)) == ""
    world.clock.move(3700)
    assert world.alice("DescribeInstances")["Reservations"] == []


def test_an_instance_has_what_was_asked_for(world: World) -> None:
    world.alice("ImportKeyPair", KeyName="mine", PublicKeyMaterial=public_key())
    answer = world.alice(
        "RunInstances",
        ImageId="el9",
        InstanceType="m1.large",
        MinCount=2,
        MaxCount=2,
        KeyName="mine",
        ClientToken="token-1",
        UserData=base64.b64encode(b"#!/bin/sh\n").decode(),
        Placement__AvailabilityZone="site-a",
        TagSpecification__1__ResourceType="instance",
        TagSpecification__1__Tag__1__Key="Name",
        TagSpecification__1__Tag__1__Value='<a> & "b" \u00e4',
    )
    first, second = answer["Instances"]
    assert (first["AmiLaunchIndex"], second["AmiLaunchIndex"]) == (0, 1)
    assert first["ImageId"] == "el9"
    assert first["InstanceType"] == "m1.large"
    assert first["KeyName"] == "mine"
    assert first["ClientToken"] == "token-1"
    assert first["Tags"] == [{"Key": "Name", "Value": '<a> & "b" \u00e4'}]
    assert first["Placement"]["AvailabilityZone"] == "site-a"
    assert first["LaunchTime"] == world.clock.now
    assert (answer["OwnerId"], answer["ReservationId"][:2]) == ("alice", "r-")
    assert len(answer["ResponseMetadata"]["RequestId"]) == 36
    again = world.alice("DescribeInstances")["Reservations"]
    assert [len(each["Instances"]) for each in again] == [2]


def test_a_client_token_makes_nothing_twice(world: World) -> None:
    first = run(world.alice, 2, ClientToken="t")
    world.clock.move(10)
    assert run(world.alice, 2, ClientToken="t") == first
    other = world.alice("RunInstances", ImageId="el9", MinCount=2, MaxCount=2, ClientToken="t")
    assert code(other) == "IdempotentParameterMismatch"
    assert run(world.bob, 2, ClientToken="t") != first


def test_a_replayed_order_without_token_makes_nothing_twice(world: World) -> None:
    first = run(world.alice)
    assert run(world.alice) == first, "the clock stands still: it is the same signature"
    world.clock.move(1)
    assert run(world.alice) != first


def test_a_trial_changes_nothing(world: World) -> None:
    (one,) = run(world.alice)
    values: dict[str, str | int] = {"ImageId": "debian-12", "MinCount": 1, "MaxCount": 1}
    assert code(world.alice("RunInstances", DryRun="true", **values)) == "DryRunOperation"
    assert (
        code(world.alice("TerminateInstances", DryRun="true", InstanceId__1=one))
        == "DryRunOperation"
    )
    assert code(world.alice("CreateKeyPair", DryRun="true", KeyName="k")) == "DryRunOperation"
    many: dict[str, str | int] = {"ImageId": "debian-12", "MinCount": 101, "MaxCount": 101}
    refused = world.alice("RunInstances", DryRun="true", **many)
    assert code(refused) == "InstanceLimitExceeded"
    assert len(world.memory.instances("alice")) == 1
    assert world.memory.key_pairs("alice") == ()


def test_an_order_is_cut_to_what_fits_and_never_below_its_least(world: World) -> None:
    run(world.alice, 98)
    answer = world.alice("RunInstances", ImageId="el9", MinCount=1, MaxCount=9)
    assert len(answer["Instances"]) == 2
    refused = world.alice("RunInstances", ImageId="el9", MinCount=1, MaxCount=1)
    assert code(refused) == "InstanceLimitExceeded"


REFUSED = [
    ({"ImageId": "nothing"}, "InvalidAMIID.NotFound"),
    ({"ImageId": "../etc"}, "InvalidAMIID.Malformed"),
    ({"ImageId": ""}, "MissingParameter"),
    ({"MinCount": "0"}, "InvalidParameterValue"),
    ({"MinCount": "2"}, "InvalidParameterValue"),
    ({"MaxCount": "99999999999999999999"}, "InvalidParameterValue"),
    ({"MaxCount": "\u0661"}, "InvalidParameterValue"),
    ({"InstanceType": "m9.huge"}, "InvalidParameterValue"),
    ({"KeyName": "none"}, "InvalidKeyPair.NotFound"),
    ({"UserData": "%%%"}, "InvalidParameterValue"),
    ({"UserData": base64.b64encode(b"a" * 16385).decode()}, "InvalidParameterValue"),
    ({"ClientToken": "a" * 65}, "InvalidParameterValue"),
    ({"ClientToken": "signature 1"}, "InvalidParameterValue"),
    ({"SecurityGroupId.1": "sg-1"}, "UnknownParameter"),
    ({"SubnetId": "subnet-1"}, "UnknownParameter"),
    ({"Placement.AvailabilityZone": "elsewhere"}, "InvalidParameterValue"),
    ({"InstanceInitiatedShutdownBehavior": "terminate"}, "UnsupportedOperation"),
    ({"DryRun": "perhaps"}, "InvalidParameterValue"),
    ({"TagSpecification.1.ResourceType": "volume"}, "InvalidParameterValue"),
    (
        {
            "TagSpecification.1.ResourceType": "instance",
            "TagSpecification.1.Tag.1.Key": "mayfly:for",
            "TagSpecification.1.Tag.1.Value": "soon",
        },
        "InvalidParameterValue",
    ),
]


@pytest.mark.parametrize(("values", "expected"), REFUSED)
def test_a_wrong_order_is_refused(world: World, values: dict[str, str], expected: str) -> None:
    right = {"ImageId": "debian-12", "MinCount": "1", "MaxCount": "1"}
    assert code(world.alice("RunInstances", **{**right, **values})) == expected
    assert world.memory.instances("alice") == ()


def test_another_users_things_do_not_exist(world: World) -> None:
    (one,) = run(world.alice)
    world.alice("CreateKeyPair", KeyName="hers", KeyType="ed25519")
    key = world.memory.key_pairs("alice")[0].id
    world.alice("CreateTags", ResourceId__1=one, Tag__1__Key="a", Tag__1__Value="b")
    for action in ("Start", "Stop", "Reboot", "Terminate", "Describe"):
        answer = world.bob(f"{action}Instances", InstanceId__1=one)
        assert code(answer) == "InvalidInstanceID.NotFound", action
    for action in ("DescribeInstanceStatus", "GetConsoleOutput"):
        field = {"InstanceId": one} if action == "GetConsoleOutput" else {"InstanceId__1": one}
        assert code(world.bob(action, **field)) == "InvalidInstanceID.NotFound"
    tag = {"ResourceId__1": one, "Tag__1__Key": "a"}
    assert code(world.bob("CreateTags", **tag)) == "InvalidInstanceID.NotFound"
    assert code(world.bob("DeleteTags", **tag)) == "InvalidInstanceID.NotFound"
    assert code(world.bob("DescribeKeyPairs", KeyPairId__1=key)) == "InvalidKeyPair.NotFound"
    assert code(world.bob("DeleteKeyPair", KeyPairId=key)) == ""
    assert world.bob("DescribeInstances")["Reservations"] == []
    assert world.bob("DescribeTags")["Tags"] == []
    assert world.bob("DescribeKeyPairs")["KeyPairs"] == []
    assert len(world.memory.key_pairs("alice")) == 1
    assert len(world.memory.tags("alice")) == 1
    assert world.memory.instances("alice")[0].phase is not Phase.SHUTTING_DOWN


def test_a_verb_on_several_is_done_to_all_or_none(world: World) -> None:
    one, two = run(world.alice, 2)
    state(world.alice, one)
    missing = "i-" + "0" * 17
    answer = world.alice("StopInstances", InstanceId__1=one, InstanceId__2=missing)
    assert code(answer) == "InvalidInstanceID.NotFound"
    assert code(world.alice("StopInstances", InstanceId__1="i-zz")) == "InvalidInstanceID.Malformed"
    assert code(world.alice("StopInstances")) == "MissingParameter"
    assert [state(world.alice, each) for each in (one, two)] == ["running", "running"]


def test_images_types_region_and_zone(world: World) -> None:
    images = world.alice("DescribeImages", Filter__1__Name="name", Filter__1__Value__1="debian-*")
    assert [each["ImageId"] for each in images["Images"]] == ["debian-12", "debian-13"]
    assert images["Images"][0]["State"] == "available"
    assert world.alice("DescribeImages", Owner__1="self")["Images"] == []
    assert len(world.alice("DescribeImages", Owner__1="site")["Images"]) == 3
    assert code(world.alice("DescribeImages", ImageId__1="none")) == "InvalidAMIID.NotFound"
    types = world.alice("DescribeInstanceTypes", InstanceType__1="m1.large")["InstanceTypes"]
    assert types[0]["MemoryInfo"] == {"SizeInMiB": 4096}
    assert types[0]["VCpuInfo"] == {"DefaultVCpus": 2}
    assert code(world.alice("DescribeInstanceTypes", InstanceType__1="x")) == "InvalidInstanceType"
    assert world.alice("DescribeRegions")["Regions"][0]["RegionName"] == "site"
    zone = world.alice("DescribeAvailabilityZones")["AvailabilityZones"][0]
    assert (zone["ZoneName"], zone["State"], zone["RegionName"]) == ("site-a", "available", "site")
    assert code(world.alice("DescribeRegions", RegionName__1="moon")) == "InvalidParameterValue"


def test_tags(world: World) -> None:
    one, two = run(world.alice, 2)
    put: dict[str, str | int] = {"Tag__1__Key": "team", "Tag__1__Value": "", "Tag__2__Key": "x"}
    assert world.alice("CreateTags", ResourceId__1=one, ResourceId__2=two, **put)
    world.alice("CreateTags", ResourceId__1=one, Tag__1__Key="team", Tag__1__Value="red")
    by_tag = {"Filter__1__Name": "tag:team", "Filter__1__Value__1": "r?d"}
    found = world.alice("DescribeInstances", **by_tag)["Reservations"][0]["Instances"]
    assert [each["InstanceId"] for each in found] == [one]
    assert len(world.alice("DescribeTags")["Tags"]) == 4
    # With a value only where it is this one.
    world.alice("DeleteTags", ResourceId__1=one, Tag__1__Key="team", Tag__1__Value="blue")
    assert len(world.alice("DescribeTags")["Tags"]) == 4
    world.alice("DeleteTags", ResourceId__1=one, Tag__1__Key="team")
    world.alice("DeleteTags", ResourceId__1=two)
    left = world.alice("DescribeTags")["Tags"]
    assert left == [{"ResourceId": one, "ResourceType": "instance", "Key": "x", "Value": ""}]


def test_tags_that_cannot_be_put(world: World) -> None:
    (one,) = run(world.alice)
    many: dict[str, str | int] = {f"Tag__{n}__Key": f"k{n}" for n in range(1, 51)}
    assert code(world.alice("CreateTags", ResourceId__1=one, **many)) == ""
    more = world.alice("CreateTags", ResourceId__1=one, Tag__1__Key="more")
    assert code(more) == "TagLimitExceeded"
    ours = world.alice("CreateTags", ResourceId__1=one, Tag__1__Key="AWS:x")
    assert code(ours) == "InvalidParameterValue"
    assert code(world.alice("CreateTags", ResourceId__1="vol-1", Tag__1__Key="a")) == "InvalidID"
    assert code(world.alice("CreateTags", ResourceId__1=one)) == "MissingParameter"
    control = world.alice("CreateTags", ResourceId__1=one, Tag__1__Key="a", Tag__1__Value="\x00")
    assert code(control) == "InvalidParameterValue"


def test_pages_neither_double_nor_hide(world: World) -> None:
    made = set(run(world.alice, 12))
    seen: list[str] = []
    token = ""
    while True:
        more: dict[str, str | int] = {"NextToken": token} if token else {}
        answer = world.alice("DescribeInstances", MaxResults=5, **more)
        seen += [each["InstanceId"] for one in answer["Reservations"] for each in one["Instances"]]
        token = answer.get("NextToken", "")
        if not token:
            break
        # What comes meanwhile may be seen or not; what was there is seen once.
        run(world.alice, 1, ClientToken=token[-20:])
    assert len(seen) == len(set(seen))
    assert made <= set(seen)


def test_a_token_serves_its_own_question_only(world: World) -> None:
    run(world.alice, 6)
    token = world.alice("DescribeInstances", MaxResults=5)["NextToken"]
    other = {"Filter__1__Name": "image-id", "Filter__1__Value__1": "*"}
    wrong = world.alice("DescribeInstances", MaxResults=5, NextToken=token, **other)
    assert code(wrong) == "InvalidPaginationToken"
    for nonsense in ("x", "W10=", "\u00e4", "W1sx" * 100, base64.b64encode(b"[" * 900).decode()):
        answer = world.alice("DescribeInstances", NextToken=nonsense)
        assert code(answer) == "InvalidPaginationToken", nonsense
    assert world.bob("DescribeInstances", MaxResults=5, NextToken=token)["Reservations"] == []


def public_key(kind: str = "ed25519", bits: str = "256", folder: Path | None = None) -> str:
    if folder is None:
        line = (
            "ssh-ed25519 "
            + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + bytes(range(1, 33))).decode()
        )
    else:
        file = folder / kind
        make = ["ssh-keygen", "-q", "-t", kind, "-b", bits, "-N", "", "-f", str(file)]
        subprocess.run(make, check=True)
        line = file.with_suffix(".pub").read_text()
    return base64.b64encode(line.encode()).decode()


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_ssh_can_use_a_key_pair_that_was_made(world: World, tmp_path: Path, kind: str) -> None:
    made = world.alice("CreateKeyPair", KeyName=kind, KeyType=kind)
    file = tmp_path / "key"
    file.write_text(made["KeyMaterial"])
    file.chmod(0o600)
    shown = subprocess.run(
        ["ssh-keygen", "-y", "-f", str(file)], check=True, capture_output=True, text=True
    )
    asked = world.alice("DescribeKeyPairs", IncludePublicKey="true")["KeyPairs"][0]
    assert shown.stdout.split()[:2] == asked["PublicKey"].split()[:2]
    assert asked["KeyFingerprint"] == made["KeyFingerprint"]
    assert code(world.alice("CreateKeyPair", KeyName=kind)) == "InvalidKeyPair.Duplicate"
    assert world.alice("DeleteKeyPair", KeyName=kind)["KeyPairId"] == asked["KeyPairId"]
    assert code(world.alice("DeleteKeyPair", KeyName=kind)) == ""
    assert world.alice("DescribeKeyPairs")["KeyPairs"] == []


def test_a_key_pair_that_was_brought(world: World, tmp_path: Path) -> None:
    material = public_key("rsa", "2048", tmp_path)
    brought = world.alice("ImportKeyPair", KeyName="mine", PublicKeyMaterial=material)
    made = subprocess.run(
        ["openssl", "md5", "-c"],
        input=subprocess.run(
            ["openssl", "rsa", "-pubout", "-outform", "DER"],
            input=subprocess.run(
                ["ssh-keygen", "-p", "-m", "PEM", "-N", "", "-f", str(tmp_path / "rsa"), "-q"],
                check=True,
                capture_output=True,
            ).stdout
            + (tmp_path / "rsa").read_bytes(),
            check=True,
            capture_output=True,
        ).stdout,
        check=True,
        capture_output=True,
    )
    assert made.stdout.decode().split()[-1] == brought["KeyFingerprint"]


@pytest.mark.parametrize(
    "text", ["", "ssh-rsa AAAA", "nonsense", "ssh-ed25519 " + "A" * 900, "ssh-rsa\n\0"]
)
def test_nonsense_is_no_key(world: World, text: str) -> None:
    material = base64.b64encode(text.encode()).decode()
    answer = world.alice("ImportKeyPair", KeyName="k", PublicKeyMaterial=material)
    assert code(answer) == ("InvalidKey.Format" if text else "MissingParameter")


def test_a_weak_key_is_refused(world: World, tmp_path: Path) -> None:
    material = public_key("rsa", "1024", tmp_path)
    answer = world.alice("ImportKeyPair", KeyName="k", PublicKeyMaterial=material)
    assert code(answer) == "InvalidKey.Format"


ERRORS = [
    (Denied("no"), "UnauthorizedOperation", 403),
    (Conflict("busy"), "IncorrectInstanceState", 400),
    (fault.TokenReused("again"), "IdempotentParameterMismatch", 400),
    (Unavailable("later"), "Unavailable", 503),
    (Failed("the password is hunter2"), "InternalError", 500),
]


@pytest.mark.parametrize(("error", "expected", "status"), ERRORS)
def test_an_error_of_the_site_has_a_code(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception, expected: str, status: int
) -> None:
    def fail(_owner: str) -> tuple[()]:
        raise error

    monkeypatch.setattr(world.memory, "instances", fail)
    answer = world.alice("DescribeInstances")
    assert (code(answer), answer["ResponseMetadata"]["HTTPStatusCode"]) == (expected, status)
    assert "hunter2" not in str(answer)


def test_a_bug_is_answered_and_not_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_owner: str) -> tuple[()]:
        raise KeyError("hunter2")

    monkeypatch.setattr(world.memory, "tags", fail)
    answer = world.alice("DescribeTags")
    assert code(answer) == "InternalError"
    assert "hunter2" not in str(answer)
