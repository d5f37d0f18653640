"""``mayfly trust`` as it is typed: an endorser and a site in one home."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path
from typing import Any

import click
import pytest

from mayfly.errors import Conflict, Invalid, Missing, Unavailable, Untrusted
from tests.unit.cli.endorsing import (
    JO,
    admit,
    command,
    published,
    refused,
    subscribed,
)
from tests.unit.images.lists.pki import make_ca, make_self_signed

OTHER = "99999999-2222-3333-4444-555555555555"


def shown(*words: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(command("trust", "show", *words, "--json").stdout)
    return found


def rule(image: str = "el9") -> str | None:
    found: str | None = shown(image)["rule"]
    return found


# --- certificates --------------------------------------------------------------------------------


def test_a_key_is_added_under_its_own_name(endorser: Path) -> None:
    done = command("trust", "add", endorser / "state/endorse/cert.pem")
    assert "added key jo-doe" in done.stdout
    (anchor,) = shown()["anchors"]
    assert anchor["subject"] == JO
    assert anchor["fingerprint"] in done.stdout


def test_a_certificate_is_added_once_unless_forced(endorser: Path) -> None:
    cert = endorser / "state/endorse/cert.pem"
    command("trust", "add", cert)
    assert isinstance(refused("trust", "add", cert), Conflict)
    command("trust", "add", cert, "--force", "--role", "image-endorser")
    assert shown()["anchors"][0]["roles"] == ["image-endorser"]


@pytest.mark.usefixtures("home")
def test_an_authority_is_known_by_what_it_says(tmp_path: Path) -> None:
    ca = make_ca(tmp_path / "ca", "/O=A test/CN=CA")
    done = command("trust", "add", ca.certificate, "--name", "ca")
    assert "added authority ca" in done.stdout
    assert "no revocation list" in done.stderr
    (tmp_path / "crl").write_bytes(ca.crl())
    done = command(
        "trust", "add", ca.certificate, "--name", "ca", "--crl", tmp_path / "crl", "--force"
    )
    assert done.stderr == ""


@pytest.mark.usefixtures("home")
def test_a_weak_key_is_refused_at_once(tmp_path: Path) -> None:
    weak = make_self_signed(tmp_path / "weak", "weak", "/CN=weak", "rsa:1024")
    error = refused("trust", "add", weak.certificate)
    assert isinstance(error, Untrusted)
    assert "rule 'weak-key'" in error.message


@pytest.mark.parametrize("what", ["/nosuch", "/dev/null", "/", "key.pem"])
def test_what_is_no_certificate_is_refused(endorser: Path, what: str) -> None:
    place = endorser / "state/endorse" / what
    assert isinstance(refused("trust", "add", place), Invalid)
    assert shown()["anchors"] == []


@pytest.mark.parametrize(
    "words", [("--name", "../x"), ("--name", "X"), ("--name", "a" * 65), ("--name", ".x")]
)
def test_a_name_that_could_be_a_path_is_refused(endorser: Path, words: tuple[str, ...]) -> None:
    assert isinstance(refused("trust", "add", endorser / "state/endorse/cert.pem", *words), Invalid)


@pytest.mark.parametrize("words", [("--no-crl",), ("--subject", "/CN=*"), ("--crl", "x")])
def test_what_is_for_authorities_is_not_for_keys(endorser: Path, words: tuple[str, ...]) -> None:
    with pytest.raises(click.UsageError):
        command("trust", "add", endorser / "state/endorse/cert.pem", *words)


# --- lists ---------------------------------------------------------------------------------------


def test_from_a_list_to_a_trusted_image(endorser: Path) -> None:
    identifier = subscribed(endorser)
    text = command("trust", "show").stdout
    assert f"  {identifier}  file://" in text
    assert "  trusted   el9 " in text
    found = shown("el9")
    assert (found["trusted"], found["rule"]) == (True, None)
    assert "trusted: list 'Ours'" in command("trust", "show", "el9").stdout
    assert shown()["lists"][0]["images"][0]["trusted"]


def test_an_image_that_was_revoked_is_refused_after_the_update(endorser: Path) -> None:
    subscribed(endorser)
    command("endorse", "revoke", "el9", "--reason", "a hole")
    published(endorser)
    assert rule() is None
    done = command("trust", "update")
    assert "'Ours' is version" in done.stdout
    assert rule() == "image-revoked"
    assert "a hole" in command("trust", "show").stdout


def test_an_update_says_what_is_wrong_and_keeps_what_was(endorser: Path) -> None:
    subscribed(endorser)
    (endorser / "site.list").write_text("<html>")
    done = command("trust", "update")
    assert done.return_value == 1
    assert "was not taken over" in done.stdout
    assert "rule 'signed'" in done.stdout
    assert rule() is None
    assert "trouble since" in command("trust", "show").stdout


def test_an_update_may_be_for_one_list(endorser: Path) -> None:
    identifier = subscribed(endorser)
    for name in (identifier, identifier.upper(), "Ours"):
        assert command("trust", "update", name).stdout == "'Ours' is as it was\n"
    for name in ("Theirs", OTHER):
        assert isinstance(refused("trust", "update", name), Missing)


def test_a_key_that_is_removed_takes_its_lists_with_it(endorser: Path) -> None:
    subscribed(endorser)
    command("trust", "remove", "jo-doe", "--yes")
    assert command("trust", "update").return_value == 1
    assert rule() == "authority"
    assert "trusted no more" in command("trust", "show").stdout


def test_a_list_that_is_removed_vouches_no_more(endorser: Path) -> None:
    identifier = subscribed(endorser)
    assert command("trust", "remove", identifier, answer="n\n").return_value == 1
    assert rule() is None
    command("trust", "remove", "Ours", "--yes")
    assert rule() == "unendorsed"
    assert isinstance(refused("trust", "remove", "Ours", "--yes"), Missing)


def test_a_list_needs_a_signer_who_is_believed(endorser: Path) -> None:
    place = published(endorser, "el9").as_uri()
    error = refused("trust", "subscribe", place, "--endorser", JO)
    assert "rule 'authority'" in error.message
    command("trust", "add", endorser / "state/endorse/cert.pem", "--role", "image-endorser")
    error = refused("trust", "subscribe", place, "--endorser", JO)
    assert "rule 'role'" in error.message
    assert shown()["lists"] == []


def test_a_list_that_changed_on_its_way_is_refused(endorser: Path) -> None:
    place = published(endorser, "el9")
    place.write_bytes(place.read_bytes().replace(b"el9.qcow2", b"xx9.qcow2"))
    command("trust", "add", endorser / "state/endorse/cert.pem")
    error = refused("trust", "subscribe", place.as_uri(), "--endorser", JO)
    assert isinstance(error, Untrusted)
    assert "rule 'signature'" in error.message


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("file:///nosuch", "--endorser", JO), Unavailable),
        (("ftp://x/y", "--endorser", JO), Invalid),
        (("/etc/passwd", "--endorser", JO), Invalid),
        (("https://x.example.org/l",), Invalid),
        (("https://x.example.org/l", "--endorser", "Jo"), Invalid),
        (("https://x.example.org/l", "--endorser", JO, "--endorser-ca", "CA"), Invalid),
        (("https://x.example.org/l", "--endorser", JO, "--image-endorser", ""), Invalid),
    ],
)
@pytest.mark.usefixtures("home")
def test_a_wrong_subscription_is_refused(words: tuple[str, ...], kind: type[Exception]) -> None:
    assert isinstance(refused("trust", "subscribe", *words), kind)


def test_another_list_than_the_one_that_is_meant_is_refused(endorser: Path) -> None:
    place = published(endorser, "el9").as_uri()
    command("trust", "add", endorser / "state/endorse/cert.pem")
    error = refused("trust", "subscribe", place, "--endorser", JO, "--identifier", OTHER)
    assert "rule 'identifier'" in error.message


# --- images --------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_name", [True, False])
def test_a_blocked_image_is_refused_whoever_vouches(endorser: Path, by_name: bool) -> None:
    subscribed(endorser)
    name = "el9" if by_name else shown("el9")["sha512"].upper()
    command("trust", "block", name, "--reason", "ticket 4711")
    assert rule() == "blocked"
    assert "ticket 4711" in command("trust", "show", "el9").stdout
    command("trust", "unblock", name)
    assert rule() is None
    assert isinstance(refused("trust", "unblock", name), Missing)


def test_an_image_that_came_from_a_file_is_blocked_by_either_digest(endorser: Path) -> None:
    made = admit(endorser, "el8")
    record = made.disk.with_name("image.json")
    record.chmod(0o644)
    stored = json.loads(record.read_text())
    record.write_text(json.dumps({**stored, "endorsed_sha512": "a" * 128}))
    command("trust", "block", made.sha512, "--reason", "x")
    assert set(shown()["blocked"]) == {made.sha512, "a" * 128}
    command("trust", "unblock", "el8")
    assert shown()["blocked"] == {}


@pytest.mark.parametrize(
    ("image", "reason", "kind"),
    [
        ("nosuch", "x", Missing),
        ("f" * 127, "x", Invalid),
        ("../el9", "x", Invalid),
        ("el9", "", Invalid),
        ("el9", "two\nlines", Invalid),
    ],
)
@pytest.mark.usefixtures("endorser")
def test_a_wrong_block_is_refused(image: str, reason: str, kind: type[Exception]) -> None:
    assert isinstance(refused("trust", "block", image, "--reason", reason), kind)


@pytest.mark.usefixtures("home")
def test_nothing_is_shown_where_nothing_is() -> None:
    assert "nobody is believed here" in command("trust", "show").stdout
    assert isinstance(refused("trust", "show", "el9"), Untrusted)
    assert shown("e" * 128)["rule"] == "unendorsed"


def test_what_others_could_have_written_is_not_believed(endorser: Path) -> None:
    subscribed(endorser)
    (endorser / "state/trust/subscriptions").chmod(0o777)
    error = refused("trust", "show")
    assert isinstance(error, Untrusted)
    assert "could have been written by others" in error.message


def test_what_root_trusts_can_be_read_by_all(endorser: Path) -> None:
    subscribed(endorser)
    trust = endorser / "state/trust"
    for path in [trust, *trust.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        wanted = 0o600 if path.name.endswith("lock") else 0o755 if path.is_dir() else 0o644
        assert mode == wanted, path


def test_the_sites_program_hears_of_all(endorser: Path, tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    program = tmp_path / "program"
    program.write_text(
        f'#!/bin/sh\necho "$VMCATCHER_EVENT_TYPE $VMCATCHER_EVENT_DC_TITLE" >> {heard}\n'
    )
    program.chmod(0o755)
    (endorser / "config.toml").write_text(f'event_handler = "{program}"\n')
    subscribed(endorser)
    command("trust", "block", "el9", "--reason", "x")
    command("trust", "update")
    assert heard.read_text().splitlines() == [
        *("SubscriptionImageNew el9", "AvailablePrefix el9", "AvailablePostfix el9"),
        *("ExpirePrefix el9", "ExpirePostfix el9", "ProcessPrefix ", "ProcessPostfix "),
    ]


def test_copies_of_a_list_under_two_titles_are_told_apart(endorser: Path) -> None:
    identifier = subscribed(endorser)
    lists = endorser / "state/trust/subscriptions"
    stored = json.loads((lists / f"{identifier}.json").read_text())
    (lists / f"{OTHER}.json").write_text(json.dumps({**stored, "identifier": OTHER}))
    shutil.copymode(lists / f"{identifier}.json", lists / f"{OTHER}.json")
    assert isinstance(refused("trust", "update", "Ours"), Conflict)
    assert isinstance(refused("trust", "remove", "Ours", "--yes"), Conflict)
