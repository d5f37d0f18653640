"""Our client and Debian's registry, for real."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from mayfly.errors import Denied, Missing, Unavailable, Untrusted
from mayfly.images.registry import Access, Descriptor, Reference, Registry, parse_reference
from mayfly.images.registry.client import INDEX, MANIFEST
from mayfly.images.registry.requests import Ask, Reply
from mayfly.images.registry.upload import push_blob
from mayfly.images.transfer.pace import Meter
from mayfly.images.transfer.part import Downloads, State
from tests.conftest import Cli
from tests.integration import registries
from tests.unit.images.disks import content, raw_disk
from tests.unit.images.transfer.fetching import digest_of
from tests.unit.images.web import Answer, reply, serving

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("docker-registry") is None, reason="needs docker-registry"),
]
BODY = bytes(range(256)) * 5000
NOBODY = Access(logins=())


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[registries.Running]:
    with registries.running(tmp_path_factory.mktemp("registry")) as running:
        yield running


def reference(running: registries.Running, name: str, tag: str = "1") -> Reference:
    return parse_reference(f"docker://{running.host}/{name}:{tag}")


def descriptor(body: bytes, kind: str = "application/octet-stream") -> Descriptor:
    return Descriptor(media_type=kind, digest=digest_of(body, "sha256"), size_bytes=len(body))


def send(client: Registry, body: bytes) -> Descriptor:
    entry = descriptor(body)
    push_blob(client, entry, io.BytesIO(body), Meter("x", len(body)))
    return entry


def manifest_of(*layers: Descriptor) -> bytes:
    table: dict[str, Any] = {"schemaVersion": 2, "mediaType": MANIFEST}
    table |= {"config": layers[0].as_json(), "layers": [each.as_json() for each in layers]}
    return json.dumps(table).encode()


def test_what_was_pushed_is_pulled(registry: registries.Running, tmp_path: Path) -> None:
    client = Registry(reference(registry, "site/el9"), NOBODY, push=True)
    entry = send(client, BODY)
    assert not push_blob(client, entry, io.BytesIO(BODY), Meter("x", None))
    digest = client.push_manifest(manifest_of(entry))
    again = Registry(reference(registry, "site/el9"), NOBODY)
    found = again.resolve()
    assert (found.digest, found.media_type) == (digest, MANIFEST)
    assert found.layers == (found.config,)
    assert again.blob(found.config, most=2 << 20) == BODY
    with again.fetch_blob(found.layers[0], Downloads(directory=tmp_path / "d")) as got:
        assert got.file.read_bytes() == BODY
    pinned = Registry(again.reference.pinned(digest), NOBODY)
    assert pinned.manifest() == found


def test_a_large_blob_goes_in_pieces(
    registry: registries.Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mayfly.images.registry.upload.PIECE", 100_000)
    client = Registry(reference(registry, "pieces"), NOBODY, push=True)
    body = BODY[::-1]
    entry = send(client, body)
    assert registry.blob(str(entry.digest)).read_bytes() == body
    assert send(client, b"").size_bytes == 0


def test_a_platform_is_chosen_from_an_index(registry: registries.Running) -> None:
    digests = {}
    for architecture in ("arm64", "amd64"):
        client = Registry(reference(registry, "many", architecture), NOBODY, push=True)
        digests[architecture] = client.push_manifest(
            manifest_of(send(client, architecture.encode()))
        )
    entries = [
        {
            **Descriptor(media_type=MANIFEST, digest=digest, size_bytes=500).as_json(),
            "platform": {"os": "linux", "architecture": architecture},
        }
        for architecture, digest in digests.items()
    ]
    table = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    client = Registry(reference(registry, "many", "all"), NOBODY, push=True)
    client.push_manifest(json.dumps(table).encode(), INDEX)
    assert client.manifest().is_index
    assert client.resolve().digest == digests["amd64"]
    assert client.resolve("arm64").digest == digests["arm64"]
    with pytest.raises(Untrusted, match="nothing for linux/riscv64"):
        client.resolve("riscv64")


def test_what_is_not_there_is_missing(registry: registries.Running) -> None:
    with pytest.raises(Missing, match="MANIFEST_UNKNOWN"):
        Registry(reference(registry, "none"), NOBODY).resolve()
    client = Registry(reference(registry, "none"), NOBODY)
    assert not client.has_blob(digest_of(b"?", "sha256"))


def test_a_blob_that_was_changed_in_the_registry_is_refused(
    registry: registries.Running, tmp_path: Path
) -> None:
    client = Registry(reference(registry, "bad"), NOBODY, push=True)
    entry = send(client, b"good")
    registry.blob(str(entry.digest)).write_bytes(b"evil")
    with pytest.raises(Untrusted, match="another blob"):
        client.blob(entry)
    downloads = Downloads(directory=tmp_path / "d")
    with pytest.raises(Untrusted, match="another file"), client.fetch_blob(entry, downloads):
        pytest.fail("it came")
    assert list(downloads.directory.iterdir()) == []


def test_a_manifest_that_was_changed_in_the_registry_is_refused(
    registry: registries.Running,
) -> None:
    client = Registry(reference(registry, "swapped"), NOBODY, push=True)
    digest = client.push_manifest(manifest_of(send(client, b"a")))
    file = registry.blob(str(digest))
    file.write_bytes(file.read_bytes().replace(b'"schemaVersion": 2', b'"schemaVersion":  2'))
    pinned = Registry(client.reference.pinned(digest), NOBODY)
    with pytest.raises((Untrusted, Missing)):
        pinned.manifest()


# --- logins --------------------------------------------------------------------------------------

# The password is "secret".
HTPASSWD = "jo:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"


def login(file: Path, host: str, user: str, password: str) -> Access:
    word = base64.b64encode(f"{user}:{password}".encode()).decode()
    file.write_text(json.dumps({"auths": {host: {"auth": word}}}))
    return Access(logins=(file,))


def test_a_registry_with_passwords_knows_who_logged_in(tmp_path: Path) -> None:
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    auth = f"auth: {{htpasswd: {{realm: test, path: {tmp_path}/htpasswd}}}}\n"
    with registries.running(tmp_path / "registry", auth) as running:
        wanted = reference(running, "private")
        right = login(tmp_path / "right.json", running.host, "jo", "secret")
        client = Registry(wanted, right, push=True)
        digest = client.push_manifest(manifest_of(send(client, BODY)))
        assert Registry(wanted, right).resolve().digest == digest
        wrong = login(tmp_path / "wrong.json", running.host, "jo", "other")
        for access in (wrong, NOBODY):
            with pytest.raises(Denied, match="401"):
                Registry(wanted, access).resolve()


def token_server(answers: dict[str, Answer], key: Path, certificate: Path) -> list[str]:
    """Give tokens at /token to whoever asks, signed as the registry wants them."""
    asked: list[str] = []
    der = base64.b64encode(ssl.PEM_cert_to_DER_cert(certificate.read_text())).decode()

    def part(table: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(table).encode()).decode().rstrip("=")

    def give(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        query = parse_qs(urlsplit(request.path).query)
        kind, name, actions = query["scope"][0].split(":")
        now = int(time.time())
        claims = {
            "iss": "tests", "sub": "", "aud": query["service"][0], "jti": str(len(asked)),
            "iat": now, "nbf": now - 60, "exp": now + 300,
            "access": [{"type": kind, "name": name, "actions": actions.split(",")}],
        }  # fmt: skip
        text = f"{part({'typ': 'JWT', 'alg': 'RS256', 'x5c': [der]})}.{part(claims)}"
        words = ["openssl", "dgst", "-sha256", "-sign", str(key)]
        signature = subprocess.run(words, input=text.encode(), capture_output=True, check=True)
        sealed = base64.urlsafe_b64encode(signature.stdout).decode().rstrip("=")
        reply(body=json.dumps({"token": f"{text}.{sealed}"}).encode())(request)

    answers["/token"] = give
    return asked


def test_a_registry_with_tokens_is_asked_with_one(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = ["-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(
        ["openssl", "req", "-x509", "-subj", "/CN=tokens", "-days", "1", *words],
        check=True,
        capture_output=True,
    )
    with serving() as (url, answers):
        asked = token_server(answers, key, certificate)
        auth = (
            f"auth: {{token: {{realm: '{url}/token', service: here, issuer: tests,"
            f" rootcertbundle: {certificate}}}}}\n"
        )
        with registries.running(tmp_path / "registry", auth) as running:
            wanted = reference(running, "site/private")
            client = Registry(wanted, NOBODY, push=True)
            entry = send(client, BODY)
            client.push_manifest(manifest_of(entry))
            assert asked == ["/token?service=here&scope=repository%3Asite%2Fprivate%3Apull%2Cpush"]
            reader = Registry(wanted, NOBODY)
            with reader.fetch_blob(entry, Downloads(directory=tmp_path / "d")) as got:
                assert got.file.read_bytes() == BODY
            # A token that is not good any more is replaced.
            reader._headers = {"Authorization": "Bearer old"}
            assert reader.blob(entry, most=2 << 20) == BODY
            assert len(asked) == 3


# --- machine images ------------------------------------------------------------------------------


def test_an_image_goes_through_a_registry(
    registry: registries.Running, make_cli: Callable[..., Cli], tmp_path: Path
) -> None:
    """Push from one home, pull into another, and each time it is told that it is there."""
    place = f"docker://{registry.host}/site/el9:2026"
    nobody = {"REGISTRY_AUTH_FILE": str(tmp_path / "none")}
    here, there = make_cli(tmp_path / "here", **nobody), make_cli(tmp_path / "there", **nobody)
    raw = raw_disk(tmp_path / "disk.raw")
    here("image", "import", str(raw), "--name", "el9", "--os", "el 9", check=True)
    digest = here("image", "push", "el9", place, check=True).stdout.decode().strip()
    pinned = place.replace(":2026", f"@{digest}")
    for words in ((place,), (pinned, "--name", "same")):
        there("image", "pull", *words, check=True)
    pushed = json.loads(here("image", "show", "el9", "--json", check=True).stdout)
    for name in ("el9", "same"):
        found = json.loads(there("image", "show", name, "--json", check=True).stdout)
        assert found["endorsed_sha512"] == pushed["sha512"]
        assert (found["os"], found["version"]) == ("el 9", pushed["version"])
        assert content(Path(found["disk"]), tmp_path) == raw.read_bytes()
    again = here("image", "push", "el9", place, check=True)
    assert again.stdout.decode().strip() == digest
    wrong = there("image", "pull", place, "--name", "x", "--sha512", "0" * 128)
    assert wrong.returncode == 8
    assert b"is another file" in wrong.stderr
    assert list((tmp_path / "there/cache/downloads").iterdir()) == []


def test_a_container_image_is_no_machine_image(registry: registries.Running, cold_cli: Cli) -> None:
    client = Registry(reference(registry, "container"), NOBODY, push=True)
    entry = replace(send(client, b"tar"), media_type="application/vnd.oci.image.layer.v1.tar+gzip")
    client.push_manifest(manifest_of(entry))
    done = cold_cli("image", "pull", f"docker://{registry.host}/container:1")
    assert done.returncode == 2
    assert b"is no machine image" in done.stderr


# --- breaks --------------------------------------------------------------------------------------


class Breaking(Registry):
    """Loses the connection now and then: before a piece arrived, or just after."""

    def __init__(self, wanted: Reference, faults: list[str]) -> None:
        super().__init__(wanted, NOBODY, push=True)
        self.faults = faults

    def ask(self, ask: Ask) -> Reply:
        fault = self.faults.pop(0) if ask.method == "PATCH" and self.faults else ""
        if fault == "before":
            raise Unavailable("broken")
        reply = super().ask(ask)
        if fault == "after":
            raise Unavailable("broken")
        return reply


def test_an_upload_goes_on_after_breaks(
    registry: registries.Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mayfly.images.registry.upload.PIECE", 300_000)
    body = BODY * 2
    for name, faults in (
        ("one", ["before"]),
        ("two", ["", "after", "", "before", "before"]),
        ("three", ["after", "after", "after"]),
    ):
        client = Breaking(reference(registry, name), faults)
        entry = send(client, body + name.encode())
        assert registry.blob(str(entry.digest)).read_bytes() == body + name.encode()
    with pytest.raises(Unavailable):
        send(Breaking(reference(registry, "four"), ["before"] * 4), b"never")


def test_a_download_goes_on_after_a_break(registry: registries.Running, tmp_path: Path) -> None:
    client = Registry(reference(registry, "resumed"), NOBODY, push=True)
    entry = send(client, BODY[:777_777])
    downloads = Downloads(directory=tmp_path / "d")
    with contextlib.suppress(Unavailable), downloads.claim(f"sha256-{entry.digest.hex}") as part:
        part.file.write_bytes(BODY[:500_000])
        part.note(State(source=client.source(entry).name, total_bytes=777_777))
        raise Unavailable("broken")
    with client.source(entry).open(500_000, "") as offer:
        assert offer.start == 500_000
    with client.fetch_blob(entry, downloads) as got:
        assert got.file.read_bytes() == BODY[:777_777]
