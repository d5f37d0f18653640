"""``mayfly endorse`` as it is typed, with the real openssl."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest

from mayfly.errors import Conflict, Invalid, Missing, Untrusted
from tests.unit.cli.endorsing import (
    JO,
    URI,
    admit,
    command,
    published,
    refused,
)
from tests.unit.images.lists.pki import make_self_signed


def shown(*words: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(command(*words, "--json").stdout)
    return found


# --- a key ---------------------------------------------------------------------------------------


def test_a_key_is_made_for_its_owner_alone(home: Path) -> None:
    done = command("endorse", "key", "create", "--subject", JO, "--days", "10")
    assert f"name         {JO}" in done.stdout
    key = home / "state/endorse/key.pem"
    assert key.stat().st_mode & 0o777 == 0o600
    argv = ["openssl", "x509", "-noout", "-ext", "basicConstraints,keyUsage,extendedKeyUsage"]
    text = subprocess.run(
        [*argv, "-in", str(key.with_name("cert.pem"))], capture_output=True, text=True, check=True
    ).stdout
    for words in ("CA:FALSE", "Digital Signature", "E-mail Protection"):
        assert words in text


def test_a_key_is_never_written_over(endorser: Path) -> None:
    before = (endorser / "state/endorse/key.pem").read_bytes()
    assert isinstance(refused("endorse", "key", "create", "--subject", JO), Conflict)
    assert (endorser / "state/endorse/key.pem").read_bytes() == before


@pytest.mark.parametrize(
    ("subject", "days"),
    [
        ("Jo Doe", "10"),
        ("", "10"),
        ("/CN=" + "x" * 3000, "10"),
        ("/CN=Jo\nDoe", "10"),
        ("/C=Deutschland/CN=Jo", "10"),
        ("/CN=Jo\\/CN=Al", "10"),
        (JO, "0"),
        (JO, "-1"),
        (JO, "99999999"),
    ],
)
def test_a_name_that_cannot_be_is_refused(home: Path, subject: str, days: str) -> None:
    error = refused("endorse", "key", "create", f"--subject={subject}", f"--days={days}")
    assert isinstance(error, Invalid)
    assert not (home / "state/endorse/key.pem").exists()


# --- an image ------------------------------------------------------------------------------------


def test_an_image_is_endorsed_and_its_entry_kept(endorser: Path, tmp_path: Path) -> None:
    out = tmp_path / "el9.json"
    done = command(
        *("endorse", "image", "el9", "--title", "EL 9", "--version", "2.1", "--out", out),
        *("--uri", "https://images.example.org/el9", "--expires", "2099-01-01"),
    )
    assert "endorsed EL 9, version 2.1" in done.stdout
    entry = json.loads(out.read_text())["hv:image"]
    assert entry["hv:version"] == "2.1"
    assert entry["dc:date:expires"] == "2099-01-01T23:59:59Z"
    assert entry["mayfly:endorsement"]
    assert json.loads((endorser / "state/endorse/images/el9.json").read_text())["hv:image"] == entry


def test_an_image_keeps_its_identifier_from_version_to_version(endorser: Path) -> None:
    command("endorse", "image", "el9", "--title", "EL 9")
    entries = endorser / "state/endorse/images/el9.json"
    before = json.loads(entries.read_text())["hv:image"]
    admit(endorser, "el9", "another disk", force=True)
    command("endorse", "image", "el9", "--version", "9999")
    after = json.loads(entries.read_text())["hv:image"]
    assert after["dc:identifier"] == before["dc:identifier"]
    assert after["dc:title"] == "EL 9"
    assert after["sl:checksum:sha512"] != before["sl:checksum:sha512"]


def test_a_disk_that_was_changed_is_not_endorsed(endorser: Path) -> None:
    disk = endorser / "state/images/el9/disk.qcow2"
    found = disk.stat()
    disk.chmod(0o600)
    disk.write_text("EL9")
    os.utime(disk, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert isinstance(refused("endorse", "image", "el9"), Untrusted)
    assert not (endorser / "state/endorse/images/el9.json").exists()


@pytest.mark.usefixtures("endorser")
def test_a_key_and_its_certificate_go_together(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="go together"):
        command("endorse", "image", "el9", "--key", tmp_path / "key.pem")
    missing = refused("endorse", "image", "el9", "--key", tmp_path / "a", "--cert", tmp_path / "b")
    assert isinstance(missing, Missing)
    assert "endorse key create" in missing.hint


def test_without_a_key_nothing_is_endorsed(home: Path) -> None:
    admit(home, "el9")
    assert isinstance(refused("endorse", "image", "el9"), Missing)


def test_a_key_of_another_certificate_is_refused(endorser: Path, tmp_path: Path) -> None:
    other = make_self_signed(tmp_path / "other", "other", JO)
    words = ("--key", endorser / "state/endorse/key.pem", "--cert", other.certificate)
    assert isinstance(refused("endorse", "image", "el9", *words), Invalid)


def test_a_key_with_a_password_needs_it(endorser: Path, tmp_path: Path) -> None:
    own = endorser / "state/endorse"
    locked = tmp_path / "locked.pem"
    argv = ["openssl", "pkey", "-in", str(own / "key.pem"), "-aes256", "-passout", "pass:secret"]
    subprocess.run([*argv, "-out", str(locked)], check=True)
    words = ("endorse", "image", "el9", "--key", locked, "--cert", own / "cert.pem")
    assert isinstance(refused(*words), Invalid)
    (tmp_path / "password").write_text("secret\n")
    assert "endorsed" in command(*words, "--password-file", tmp_path / "password").stdout
    assert isinstance(refused(*words, "--password-file", tmp_path / "none"), Invalid)


@pytest.mark.parametrize("name", ["nosuch", "../el9", "", "EL9"])
@pytest.mark.usefixtures("endorser")
def test_an_image_that_is_not_there_is_not_endorsed(name: str) -> None:
    assert isinstance(refused("endorse", "image", name), Missing | Invalid)


# --- lists ---------------------------------------------------------------------------------------


def test_a_list_is_made_signed_and_published(endorser: Path) -> None:
    place = published(endorser, "el9")
    own = endorser / "state/endorse/cert.pem"
    argv = ["openssl", "smime", "-verify", "-CAfile", str(own), "-in", str(place)]
    done = subprocess.run(argv, capture_output=True, check=True)
    table = json.loads(done.stdout)["hv:imagelist"]
    assert table["hv:uri"] == URI
    (entry,) = table["hv:images"]
    assert entry["hv:image"]["hv:uri"] == "https://lists.example.org/el9.qcow2"
    assert shown("endorse", "list", "show", place)["title"] == "Ours"
    text = command("endorse", "list", "show", "site").stdout
    assert "with its endorser's word" in text
    assert command("endorse", "list", "show").stdout.splitlines()[1].startswith("site  20")


@pytest.mark.usefixtures("endorser")
def test_an_entry_of_an_image_endorser_goes_into_a_list(tmp_path: Path) -> None:
    command("endorse", "image", "el9", "--out", tmp_path / "e.json")
    command("endorse", "list", "create", "l", "--title", "T", "--uri", URI)
    command("endorse", "list", "add", "l", "--entry", tmp_path / "e.json", "--uri", f"{URI}.img")
    (image,) = shown("endorse", "list", "show", "l")["images"]
    assert (image["endorsed"], image["uri"]) == (True, f"{URI}.img")


@pytest.mark.usefixtures("endorser")
def test_an_image_without_its_endorsers_word_is_said_to_be_so() -> None:
    command("endorse", "list", "create", "l", "--title", "T", "--uri", URI)
    done = command("endorse", "list", "add", "l", "el9", "--version", "3")
    assert "version 3, without a word of its image endorser" in done.stdout


def test_an_older_version_does_not_take_the_place_of_a_newer(endorser: Path) -> None:
    command("endorse", "list", "create", "l", "--title", "T", "--uri", URI)
    command("endorse", "list", "add", "l", "el9", "--version", "3")
    admit(endorser, "el9", "another", force=True)
    error = refused("endorse", "list", "add", "l", "el9", "--version", "2")
    assert isinstance(error, Conflict)


def test_an_image_is_revoked_with_the_reason(endorser: Path) -> None:
    published(endorser, "el9")
    done = command("endorse", "revoke", "el9", "--reason", "a hole")
    assert "took el9 back from list site" in done.stdout
    found = shown("endorse", "list", "show", "site")
    assert found["images"] == []
    assert found["revoked"][0]["reason"] == "a hole"
    assert isinstance(refused("endorse", "list", "add", "site", "el9"), Conflict)


@pytest.mark.parametrize("reason", ["", "  ", "two\nlines", "\x1b[31mred"])
def test_an_image_is_revoked_for_a_reason(endorser: Path, reason: str) -> None:
    published(endorser, "el9")
    assert isinstance(refused("endorse", "revoke", "el9", "--reason", reason), Invalid)


def test_what_no_list_has_cannot_be_revoked(endorser: Path) -> None:
    published(endorser, "el9")
    error = refused("endorse", "revoke", "nosuch", "--reason", "x")
    assert isinstance(error, Missing)
    assert "site" in error.hint
    command("endorse", "list", "create", "l", "--title", "T", "--uri", URI)
    assert isinstance(refused("endorse", "revoke", "el9", "--reason", "x", "--list", "l"), Missing)


def test_an_image_is_left_out_when_that_is_confirmed(endorser: Path) -> None:
    published(endorser, "el9")
    assert command("endorse", "list", "remove", "site", "el9", answer="n\n").return_value == 1
    assert len(shown("endorse", "list", "show", "site")["images"]) == 1
    command("endorse", "list", "remove", "site", "el9", "--yes")
    assert shown("endorse", "list", "show", "site")["images"] == []


@pytest.mark.usefixtures("endorser")
def test_only_what_was_signed_is_published(tmp_path: Path) -> None:
    command("endorse", "list", "create", "l", "--title", "T", "--uri", URI)
    assert isinstance(refused("endorse", "list", "publish", "l", tmp_path / "x"), Missing)
    command("endorse", "list", "sign", "l", "--email", "jo@example.org")
    command("endorse", "list", "add", "l", "el9")
    error = refused("endorse", "list", "publish", "l", tmp_path / "x")
    assert "changed since it was signed" in error.message
    assert not (tmp_path / "x").exists()


def test_another_list_is_not_written_over(endorser: Path) -> None:
    place = published(endorser, "el9")
    command("endorse", "list", "create", "l", "--title", "T", "--uri", URI)
    command("endorse", "list", "sign", "l")
    assert isinstance(refused("endorse", "list", "publish", "l", place), Conflict)


@pytest.mark.usefixtures("endorser")
def test_a_list_for_sites_that_would_refuse_it_is_told() -> None:
    command("endorse", "list", "create", "l", "--title", "T", "--uri", "http://127.0.0.1/l")
    command("endorse", "list", "add", "l", "el9")
    done = command("endorse", "list", "sign", "l")
    assert "most sites will refuse el9" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("create", "l", "--title", "T", "--uri", "/etc/passwd"),
        ("create", "l", "--title", "T", "--uri", "ftp://x/y"),
        ("create", "../l", "--title", "T", "--uri", URI),
        ("create", "L", "--title", "T", "--uri", URI),
        ("add", "site", "el9", "--uri", "javascript:x"),
        ("add", "site", "--entry", "/nosuch"),
        ("add", "site", "--entry", "/dev/null"),
        ("add", "site", "--entry", "/"),
        ("sign", "site", "--for", "soon"),
        ("sign", "site", "--for", "0"),
        ("sign", "site", "--email", "jo"),
        ("show", "./nosuch"),
        ("show", "/dev/null"),
    ],
)
@pytest.mark.usefixtures("endorser")
def test_wrong_words_are_refused(words: tuple[str, ...]) -> None:
    command("endorse", "list", "create", "site", "--title", "T", "--uri", URI)
    assert isinstance(refused("endorse", "list", *words), Invalid)


@pytest.mark.parametrize("verb", ["add nosuch el9", "sign nosuch", "publish nosuch /x", "show no"])
@pytest.mark.usefixtures("endorser")
def test_a_list_that_is_not_there_is_named_with_those_that_are(verb: str) -> None:
    command("endorse", "list", "create", "site", "--title", "T", "--uri", URI)
    error = refused("endorse", "list", *verb.split())
    assert isinstance(error, Missing)
    assert "site" in error.hint


@pytest.mark.usefixtures("endorser")
def test_an_image_is_named_or_an_entry() -> None:
    command("endorse", "list", "create", "l", "--title", "T", "--uri", URI)
    for words in ((), ("el9", "--entry", "x")):
        with pytest.raises(click.UsageError):
            command("endorse", "list", "add", "l", *words)


def test_a_damaged_entry_is_not_signed_for(endorser: Path) -> None:
    command("endorse", "image", "el9")
    (endorser / "state/endorse/images/el9.json").write_text("{")
    assert isinstance(refused("endorse", "image", "el9"), Untrusted)
