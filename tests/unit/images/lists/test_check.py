"""What a list must be: who it names, which one it is, and when; the message itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from mayfly.errors import Untrusted
from mayfly.images.lists.authorities import Anchors
from mayfly.images.lists.check import (
    CheckRules,
    Last,
    Verified,
    peek_list,
    verify_list,
)
from mayfly.images.lists.openssl import Signer
from mayfly.images.lists.rules import Rule
from mayfly.images.lists.writer import render_list
from tests.unit.images.lists.judging import SHA1_TOO, broken, expected_of, judge
from tests.unit.images.lists.pki import DAY, NOW, SPACE, Ca, openssl
from tests.unit.images.lists.samples import (
    LIST,
    endorser_of,
    image_list,
    listed,
    sign_text,
    signed_list,
)

# --- what is accepted ----------------------------------------------------------------------------


def test_a_list_that_keeps_all_rules_is_accepted(jo: Signer, grid: Path) -> None:
    result = judge(signed_list(jo, image_list(listed(1), listed(2))), jo, grid)
    assert isinstance(result, Verified), result
    assert [image.title for image in result.images.images] == ["el1", "el2"]
    assert result.signer.subject.slash == f"{SPACE}/CN=Jo Endorser"
    assert result.where == str(grid)
    assert result.until == image_list().expires_at


@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
def test_every_sha2_digest_is_accepted(jo: Signer, grid: Path, digest: str) -> None:
    assert broken(judge(signed_list(jo, digest=digest), jo, grid)) is None


def test_a_list_never_holds_longer_than_its_signers_certificate(root_ca: Ca, grid: Path) -> None:
    short = root_ca.issue("short", end=NOW + 5 * DAY)
    result = judge(signed_list(short), short, grid)
    assert isinstance(result, Verified)
    assert result.until == NOW + 5 * DAY


def test_a_message_of_the_older_openssl_command_is_accepted(jo: Signer, grid: Path) -> None:
    text = render_list(replace(image_list(), endorser=endorser_of(jo)))
    message = openssl(*("smime", "-sign", "-signer", jo.certificate, "-inkey", jo.key), stdin=text)
    assert broken(judge(message, jo, grid)) is None


def test_a_list_without_images_is_accepted(jo: Signer, grid: Path) -> None:
    result = judge(signed_list(jo, replace(image_list(), images=())), jo, grid)
    assert isinstance(result, Verified)
    assert result.images.images == ()


# --- the message ---------------------------------------------------------------------------------


def test_a_changed_text_is_refused(jo: Signer, grid: Path) -> None:
    message = signed_list(jo)
    assert broken(judge(message.replace(b"el1.qcow2", b"ev1.qcow2"), jo, grid)) is Rule.SIGNATURE


def test_a_changed_signature_is_refused(jo: Signer, grid: Path) -> None:
    lines = signed_list(jo).split(b"\n")
    place = len(lines) - 6
    lines[place] = lines[place][::-1]
    assert broken(judge(b"\n".join(lines), jo, grid)) in (Rule.SIGNATURE, Rule.SIGNED)


def test_the_signature_of_another_list_is_refused(jo: Signer, grid: Path) -> None:
    one, other = signed_list(jo), signed_list(jo, image_list(listed(7)))
    edge = b'boundary="'
    boundaries = [each.split(edge)[1].split(b'"')[0] for each in (one, other)]
    mixed = one.split(b"--" + boundaries[0])
    mixed[2] = other.split(b"--" + boundaries[1])[2]
    assert broken(judge((b"--" + boundaries[0]).join(mixed), jo, grid)) is Rule.SIGNATURE


@pytest.mark.parametrize("message", [b"", b"{}", b"<html>not found</html>", b"\0" * 1000])
def test_what_is_no_message_is_refused(jo: Signer, grid: Path, message: bytes) -> None:
    assert broken(judge(message, jo, grid)) is Rule.SIGNED


def test_bare_json_is_refused(jo: Signer, grid: Path) -> None:
    assert broken(judge(render_list(image_list()), jo, grid)) is Rule.SIGNED


def test_a_signature_that_holds_the_text_itself_is_refused(jo: Signer, grid: Path) -> None:
    text = render_list(replace(image_list(), endorser=endorser_of(jo)))
    message = openssl(
        *("smime", "-sign", "-nodetach", "-signer", jo.certificate, "-inkey", jo.key), stdin=text
    )
    assert broken(judge(message, jo, grid)) is Rule.SIGNED


def test_a_huge_message_is_refused_unread(jo: Signer, grid: Path) -> None:
    assert broken(judge(b"x" * (100 << 20), jo, grid)) is Rule.SIZE


def test_two_signers_are_refused(root_ca: Ca, jo: Signer, grid: Path) -> None:
    second = root_ca.issue("second")
    text = render_list(replace(image_list(), endorser=endorser_of(jo)))
    both = [
        *("-signer", jo.certificate, "-inkey", jo.key),
        *("-signer", second.certificate, "-inkey", second.key),
    ]
    message = openssl("smime", "-sign", *both, stdin=text)
    assert broken(judge(message, jo, grid)) is Rule.ONE_SIGNER


def test_a_message_with_certificates_and_no_signer_is_refused(jo: Signer, grid: Path) -> None:
    bundle = openssl("crl2pkcs7", "-nocrl", "-certfile", jo.certificate, "-outform", "PEM")
    parts = signed_list(jo).split(b"\n\n")
    parts[-3] = b"\n".join(bundle.strip().split(b"\n")[1:-1])
    assert broken(judge(b"\n\n".join(parts), jo, grid)) is Rule.ONE_SIGNER


def test_sha1_is_refused_unless_the_site_allows_it(jo: Signer, grid: Path) -> None:
    message = signed_list(jo, digest="sha1")
    assert broken(judge(message, jo, grid)) is Rule.SHA1
    assert broken(judge(message, jo, grid, SHA1_TOO)) is None


def test_md5_is_refused_even_then(jo: Signer, grid: Path) -> None:
    message = signed_list(jo, digest="md5")
    assert broken(judge(message, jo, grid, SHA1_TOO)) is Rule.DIGEST


def test_text_that_is_no_list_is_refused(jo: Signer, grid: Path) -> None:
    assert broken(judge(sign_text(b'{"a": 1}\n', jo), jo, grid)) is Rule.FORMAT


# --- which list ----------------------------------------------------------------------------------


def test_another_list_is_refused(jo: Signer, grid: Path) -> None:
    other = replace(image_list(), identifier=LIST.replace("1", "9"))
    assert broken(judge(signed_list(jo, other), jo, grid)) is Rule.IDENTIFIER


def test_a_list_of_the_future_is_refused(jo: Signer, grid: Path) -> None:
    early = replace(image_list(), created_at=NOW + timedelta(seconds=1))
    assert broken(judge(signed_list(jo, early), jo, grid)) is Rule.FUTURE


def test_an_expired_list_is_refused(jo: Signer, grid: Path) -> None:
    old = replace(image_list(), expires_at=NOW - timedelta(seconds=1))
    assert broken(judge(signed_list(jo, old), jo, grid)) is Rule.EXPIRED


def last_of(version: str, *, age_s: int, text: str = "another") -> Last:
    return Last(version=version, created_at=NOW - timedelta(seconds=age_s), text_sha512=text)


VERSIONS: list[tuple[str, Last, Rule | None]] = [
    ("2", last_of("1", age_s=100), None),
    ("10", last_of("9", age_s=100), None),
    ("9", last_of("10", age_s=100), Rule.VERSION),
    ("1.2", last_of("1.10", age_s=100), Rule.VERSION),
    ("2", last_of("2", age_s=100), None),
    ("2", last_of("2", age_s=60), Rule.VERSION),
    ("2", last_of("2", age_s=10), Rule.VERSION),
]


@pytest.mark.parametrize(("version", "last", "rule"), VERSIONS)
def test_a_version_never_goes_back(
    jo: Signer, grid: Path, version: str, last: Last, rule: Rule | None
) -> None:
    message = signed_list(jo, replace(image_list(), version=version))
    assert broken(judge(message, jo, grid, last=last)) is rule


def test_the_same_text_may_be_signed_anew(jo: Signer, grid: Path) -> None:
    first = judge(signed_list(jo), jo, grid)
    assert isinstance(first, Verified)
    last = Last(version="9" * 20, created_at=NOW, text_sha512=first.text_sha512)
    assert broken(judge(signed_list(jo, digest="sha256"), jo, grid, last=last)) is None


# --- how it is told ------------------------------------------------------------------------------


def test_a_refusal_names_its_rule_and_what_to_do(jo: Signer, grid: Path) -> None:
    old = signed_list(jo, replace(image_list(), expires_at=NOW - DAY))
    with pytest.raises(Untrusted) as caught:
        verify_list(old, Anchors(grids=(grid,)), expected_of(jo), CheckRules(), NOW)
    assert "rule 'expired'" in caught.value.message
    assert caught.value.hint == Rule.EXPIRED.mend


@pytest.mark.parametrize("rule", Rule)
def test_every_rule_has_words_and_says_what_to_do(rule: Rule) -> None:
    assert rule.words
    assert rule.mend


def test_a_list_can_be_shown_without_being_trusted(jo: Signer) -> None:
    tampered = signed_list(jo).replace(b"el1.qcow2", b"ev1.qcow2")
    assert peek_list(tampered).images[0].uri.endswith("/ev1.qcow2")
    assert peek_list(render_list(image_list())) == image_list()
