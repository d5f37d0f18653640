"""``mayfly trust registry`` as it is typed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from mayfly.errors import Conflict, Invalid, Missing, Untrusted
from tests.integration.cosigning import Key, make_key
from tests.unit.cli.endorsing import command, refused

PLACE = "registry.example.org/lab"
NAME = "registry.example.org-lab"

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return make_key(tmp_path_factory.mktemp("key"))


def test_a_key_is_believed_and_believed_no_more(key: Key) -> None:
    done = command("trust", "registry", PLACE, "--key", key.public, "--until", "2027-06-30")
    assert f"added registry key {NAME}\n" in done.stdout
    assert "until        2027-06-30T23:59:59Z" in done.stdout
    (found,) = json.loads(command("trust", "show", "--json").stdout)["registries"]
    assert (found["prefix"], found["kind"], found["ended"]) == (PLACE, "EC", False)
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-in", str(key.public), "-outform", "DER"],
        check=True,
        capture_output=True,
    )
    told = subprocess.run(["sha256sum"], input=der.stdout, check=True, capture_output=True)
    assert told.stdout.decode().split()[0] == found["fingerprint"]
    assert f"registry key {NAME}: {PLACE}" in command("trust", "show").stdout
    command("trust", "remove", NAME, "--yes")
    assert "nobody is believed here" in command("trust", "show").stdout
    assert isinstance(refused("trust", "remove", NAME, "--yes"), Missing)


def test_a_name_is_one_thing(key: Key, endorser: Path) -> None:
    words = ("trust", "registry", PLACE, "--key", key.public, "--name", "jo-doe")
    command(*words)
    assert isinstance(refused(*words), Conflict)
    command(*words, "--force", "--until", "2020-01-01")
    assert "ended at 2020-01-01" in command("trust", "show").stdout
    cert = endorser / "state/endorse/cert.pem"
    assert "registry key 'jo-doe'" in refused("trust", "add", cert).message
    command("trust", "add", cert, "--name", "jo")
    assert "a certificate 'jo'" in refused(*words[:-1], "jo").message


def test_the_private_key_is_not_taken(key: Key, tmp_path: Path) -> None:
    error = refused("trust", "registry", PLACE, "--key", key.private)
    assert "is a private key" in error.message
    sealed = tmp_path / "cosign.key"
    sealed.write_text("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nx\n")
    assert "is a private key" in refused("trust", "registry", PLACE, "--key", sealed).message


@pytest.mark.parametrize(
    "text", [b"", b"\0" * 5000, b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"]
)
def test_what_is_no_key_is_refused(text: bytes, tmp_path: Path) -> None:
    file = tmp_path / "key.pub"
    file.write_bytes(text)
    assert isinstance(refused("trust", "registry", PLACE, "--key", file), Invalid)
    assert isinstance(refused("trust", "registry", PLACE, "--key", tmp_path / "gone"), Invalid)


@pytest.mark.parametrize(
    "words",
    [
        ("RSA", "-pkeyopt", "rsa_keygen_bits:1024"),
        ("EC", "-pkeyopt", "ec_paramgen_curve:P-384"),
        ("EC", "-pkeyopt", "ec_paramgen_curve:secp224r1"),
        ("X25519",),
    ],
)
def test_a_key_that_cosign_would_not_make_is_refused(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    private, public = str(tmp_path / "private"), str(tmp_path / "public")
    argv = ["openssl", "genpkey", "-algorithm", *words, "-out", private]
    subprocess.run(argv, check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    error = refused("trust", "registry", PLACE, "--key", public)
    assert "signs no image" in error.message


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to somebody else")
def test_a_key_that_others_could_have_written_is_not_believed(key: Key, home: Path) -> None:
    command("trust", "registry", PLACE, "--key", key.public)
    os.chown(home / f"state/trust/registries/{NAME}.json", 65534, 65534)
    assert isinstance(refused("trust", "show"), Untrusted)
