"""A registry that gives nonsense in the place of signatures."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from mayfly.errors import MayflyError, Unavailable, Untrusted
from mayfly.images.cosign.found import PAYLOAD, SIGNATURE, Candidate, signatures
from mayfly.images.registry import Access, Registry, parse_reference
from mayfly.images.registry.client import INDEX, MANIFEST
from mayfly.images.transfer.digest import Digest
from tests.unit.images.web import Server, hang, reply, serving

DIGEST = Digest(algorithm="sha256", hex="1" * 64)
BESIDE = f"/v2/a/manifests/sha256-{'1' * 64}.sig"
REFERRERS = f"/v2/a/referrers/{DIGEST}"
FALLBACK = f"/v2/a/manifests/sha256-{'1' * 64}"
TEXT = b'{"critical": {}}'


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        running[1].update(dict.fromkeys((BESIDE, REFERRERS, FALLBACK), reply(404)))
        yield running


def looked(server: Server) -> list[Candidate]:
    reference = parse_reference(f"{server[0].removeprefix('http://')}/a:1")
    return list(signatures(Registry(reference, Access(logins=())), DIGEST))


def blob(server: Server, body: bytes) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    server[1][f"/v2/a/blobs/{digest}"] = reply(body=body)
    return {"mediaType": PAYLOAD, "digest": digest, "size": len(body)}


def manifest(*layers: dict[str, Any], kind: str = MANIFEST) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": kind, "layers": layers}).encode()


def signed(server: Server, signature: str = "AAAA", **changes: Any) -> dict[str, Any]:
    return {**blob(server, TEXT), "annotations": {SIGNATURE: signature}, **changes}


def test_nothing_there_is_no_signature(server: Server) -> None:
    assert looked(server) == []


def test_both_places_are_looked_at(server: Server) -> None:
    _, answers = server
    answers[BESIDE] = reply(body=manifest(signed(server)))
    other = manifest(signed(server, "BBBB"))
    digest = f"sha256:{hashlib.sha256(other).hexdigest()}"
    answers[f"/v2/a/manifests/{digest}"] = reply(body=other)
    kinds = ("application/vnd.dev.cosign.artifact.sig.v1+json", "application/spdx+json")
    entries = [
        {"mediaType": MANIFEST, "digest": digest, "size": len(other), "artifactType": kind}
        for kind in kinds
    ]
    answers[REFERRERS] = reply(body=json.dumps({"manifests": [*entries, 7, None]}).encode())
    found = [base64.b64encode(each.signature).decode() for each in looked(server)]
    assert found == ["AAAA", "BBBB"]
    # A registry that keeps no account has the same list under a tag.
    answers[REFERRERS] = reply(404)
    answers[FALLBACK] = reply(body=json.dumps({"mediaType": INDEX, "manifests": entries}).encode())
    assert len(looked(server)) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"mediaType": "application/vnd.in-toto+json"},
        {"annotations": {}},
        {"annotations": 3},
        {"annotations": {SIGNATURE: "no base64!"}},
        {"annotations": {SIGNATURE: "A" * 5000}},
        {"annotations": {SIGNATURE: ["AAAA"]}},
    ],
)
def test_what_is_no_signature_is_passed_over(server: Server, changes: dict[str, Any]) -> None:
    server[1][BESIDE] = reply(body=manifest(signed(server, **changes), signed(server, "CCCC")))
    assert [each.payload for each in looked(server)] == [TEXT]


def test_an_index_in_the_place_of_signatures_is_none(server: Server) -> None:
    server[1][BESIDE] = reply(body=manifest(signed(server), kind=INDEX))
    assert looked(server) == []


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"layers": 3}', b'{"layers": [3]}', b"[" * 100_000]
)
def test_a_manifest_that_is_none_is_untrusted(server: Server, body: bytes) -> None:
    server[1][BESIDE] = reply(body=body)
    with pytest.raises(Untrusted):
        looked(server)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"manifests": "abc"}', b'{"manifests": 3}', b"{}"])
def test_a_list_of_what_refers_that_is_none_is_untrusted(server: Server, body: bytes) -> None:
    server[1][REFERRERS] = reply(body=body)
    with pytest.raises(Untrusted):
        looked(server)


@pytest.mark.parametrize("place", [BESIDE, REFERRERS, FALLBACK])
@pytest.mark.parametrize("status", [403, 500])
def test_a_registry_that_does_not_tell_is_not_taken_for_one_without(
    server: Server, place: str, status: int
) -> None:
    server[1][place] = reply(status)
    with pytest.raises(MayflyError) as caught:
        looked(server)
    assert f"answered {status}" in caught.value.message


def test_a_text_that_was_changed_on_its_way_is_untrusted(server: Server) -> None:
    entry = signed(server)
    server[1][BESIDE] = reply(body=manifest(entry))
    server[1][f"/v2/a/blobs/{entry['digest']}"] = reply(body=TEXT.replace(b"critical", b"cr1tical"))
    with pytest.raises(Untrusted, match="another blob"):
        looked(server)


def test_a_registry_that_hangs_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mayfly.images.registry.requests.ANSWER_S", 0.2)
    server[1][REFERRERS] = hang
    with pytest.raises(Unavailable):
        looked(server)
