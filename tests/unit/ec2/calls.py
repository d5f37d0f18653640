"""A site in memory, and requests to it that botocore has made and signed."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from urllib.parse import urlencode, urlsplit

import botocore.session  # type: ignore[import-untyped]
from botocore.auth import SigV4Auth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.credentials import Credentials as Keys  # type: ignore[import-untyped]
from botocore.model import ServiceModel, Shape  # type: ignore[import-untyped]
from botocore.parsers import create_parser  # type: ignore[import-untyped]

from mayfly.ec2.credentials import Issued, Vault
from mayfly.ec2.memory import Memory
from mayfly.ec2.ports import Backend
from mayfly.ec2.service import Response, Service
from mayfly.ec2.signature import Request
from mayfly.ec2.values import InstanceType, MachineImage, Region
from mayfly.model import Shape as Size

EPOCH = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
ADDRESS = "http://site.example:8080/ec2/"
VAULT = Vault(bytes(range(32)))
TYPES = (
    InstanceType(name="m1.small", shape=Size(cpus=1, memory_mib=1024)),
    InstanceType(name="m1.large", shape=Size(cpus=2, memory_mib=4096)),
)

Parsed = dict[str, Any]  # what botocore makes of an answer


def image(name: str) -> MachineImage:
    return MachineImage(id=name, title=f"{name}!", arch="x86_64", owner="site", created_at=EPOCH)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = EPOCH

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def memory(clock: Clock | None = None, most: int = 100) -> Memory:
    images = [image("debian-12"), image("debian-13"), image("el9")]
    return Memory(images=images, types=TYPES, most=most, clock=clock or Clock())


def service(made: Memory, clock: Clock | None = None) -> Service:
    region = Region(name="site", zone="site-a", endpoint="site.example:8080")
    backend = Backend(machines=made, key_pairs=made, tags=made, catalogue=made, region=region)
    if clock is None:
        return Service(backend=backend, credentials=made, vault=VAULT)
    return Service(backend=backend, credentials=made, vault=VAULT, clock=clock)


MODEL = ServiceModel(botocore.session.get_session().get_service_model("ec2")._service_description)


class Fixed(SigV4Auth):  # type: ignore[misc]
    """botocore's signer, at a time of our choice."""

    def __init__(self, issued: Issued, at: datetime) -> None:
        keys = Keys(issued.credential.access_key, issued.secret)
        super().__init__(keys, "ec2", "us-east-1")
        self.at = at

    def add_auth(self, request: AWSRequest) -> None:
        request.context["timestamp"] = self.at.strftime("%Y%m%dT%H%M%SZ")
        self._modify_request_before_signing(request)
        canonical = self.canonical_request(request)
        text = self.string_to_sign(request, canonical)
        self._inject_signature_to_request(request, self.signature(text, request))


def signed(issued: Issued, at: datetime, body: bytes, address: str = ADDRESS) -> Request:
    headers = {
        "Content-Type": "application/x-www-form-urlencoded; charset=utf-8",
        "Host": urlsplit(address).netloc,
    }
    request = AWSRequest(method="POST", url=address, data=body, headers=headers)
    Fixed(issued, at).add_auth(request)
    parts = urlsplit(address)
    return Request(
        method="POST",
        path=parts.path.encode(),
        query=parts.query.encode(),
        headers=tuple((name.lower(), value) for name, value in request.headers.items()),
        body=body,
    )


def unknown_elements(element: ET.Element, shape: Shape, at: str = "") -> list[str]:
    """Give the elements that the service model does not have: a client would not see them."""
    if shape.type_name == "list":
        inner = shape.member
        return [
            fault
            for child in element
            for fault in (
                unknown_elements(child, inner, at)
                if _tag(child) == "item"
                else [f"{at}/{_tag(child)}"]
            )
        ]
    if shape.type_name != "structure":
        return [f"{at}/{_tag(child)}" for child in element]
    members = {
        member.serialization.get("name", name): member for name, member in shape.members.items()
    }
    faults = []
    for child in element:
        where = f"{at}/{_tag(child)}"
        known = members.get(_tag(child))
        faults += [where] if known is None else unknown_elements(child, known, where)
    return faults


def _tag(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


@dataclass(frozen=True, slots=True)
class Client:
    """Asks a service as a user, and reads its answers with botocore's own parser."""

    service: Service
    issued: Issued
    clock: Clock

    def send(self, values: Mapping[str, str]) -> Response:
        body = urlencode(values).encode()
        return self.service.answer(signed(self.issued, self.clock.now, body))

    def __call__(self, action: str, **values: str | int) -> Parsed:
        """Ask; parameters are named with ``__`` for the dots."""
        fields = {name.replace("__", "."): str(value) for name, value in values.items()}
        response = self.send({"Action": action, "Version": "2016-11-15", **fields})
        return parse(action, response)


def parse(action: str, response: Response) -> Parsed:
    shape = MODEL.operation_model(action).output_shape
    raw = {"status_code": response.status, "headers": {}, "body": response.body}
    if response.status == 200:
        root = ET.fromstring(response.body)
        extra = [] if shape is None else unknown_elements(root, shape)
        assert [each for each in extra if each not in ("/requestId", "/return")] == []
    return cast("Parsed", create_parser("ec2").parse(raw, shape))


def client(made: Memory, serving: Service, clock: Clock, owner: str = "alice") -> Client:
    issued = VAULT.issue(owner, clock.now)
    made.add_credential(issued.credential)
    return Client(serving, issued, clock)


def code(parsed: Parsed) -> str:
    """Give the code of an error, empty where there is none."""
    return str(parsed.get("Error", {}).get("Code", ""))
