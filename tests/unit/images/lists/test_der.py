"""The outline of a signature is read strictly, or not at all."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.images.lists.der import NotDer, Outline, has_broken_digest, outline
from mayfly.images.lists.openssl import Signer, der_of, signature_of
from tests.unit.images.lists.pki import Ca, openssl
from tests.unit.images.lists.samples import sign_text


@pytest.fixture(scope="module")
def signature(jo: Signer) -> bytes:
    found = signature_of(sign_text(b"{}\n", jo))
    assert found is not None
    return found


def test_the_outline_tells_signers_and_digests(signature: bytes) -> None:
    assert outline(signature) == Outline(detached=True, signers=(("sha512",),))


def test_all_signers_are_counted(root_ca: Ca, jo: Signer) -> None:
    other = root_ca.issue("a second signer")
    keys = [
        *("-signer", jo.certificate, "-inkey", jo.key),
        *("-signer", other.certificate, "-inkey", other.key),
    ]
    found = signature_of(openssl("smime", "-sign", "-md", "sha256", *keys, stdin=b"{}\n"))
    assert found is not None
    assert sorted(outline(found).signers) == [("sha256",), ("sha256", "sha256")]


def test_text_within_is_seen(jo: Signer) -> None:
    message = openssl(
        *("smime", "-sign", "-nodetach", "-signer", jo.certificate, "-inkey", jo.key), stdin=b"{}"
    )
    found = signature_of(message)
    assert found is not None
    assert not outline(found).detached


def test_anything_left_over_is_refused(signature: bytes) -> None:
    for damaged in (signature + b"\0", signature[:-1], signature + signature, b""):
        with pytest.raises(NotDer):
            outline(damaged)


@pytest.mark.parametrize(
    "data",
    [b"\x30\x80\x00\x00", b"\x30\x81\x05hello", b"\x30\x82\x00\x01x", b"\x30\x84\xff\xff\xff\xff"],
)
def test_lengths_that_der_does_not_have_are_refused(data: bytes) -> None:
    with pytest.raises(NotDer):
        outline(data)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(NotDer):
        outline(data)


@given(place=st.integers(0), value=st.integers(0, 255))
def test_a_damaged_signature_is_read_or_refused(signature: bytes, place: int, value: int) -> None:
    at = place % len(signature)
    with contextlib.suppress(NotDer):
        found = outline(signature[:at] + bytes([value]) + signature[at + 1 :])
        assert isinstance(found, Outline)


def test_a_digest_that_anybody_can_forge_is_seen(root_ca: Ca) -> None:
    for digest, broken in (("sha256", False), ("md5", True)):
        root_ca.issue(f"by {digest}")
        place = root_ca.sign(f"by {digest}", "/C=DE/CN=x", "person", digest=digest)
        assert has_broken_digest(der_of(Path(place).read_bytes()) or b"") is broken
