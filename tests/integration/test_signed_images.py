"""Images of a registry and the keys that must have signed them: Debian's registry, real openssl."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mayfly.errors import Untrusted
from mayfly.images.cosign.check import check_signed
from mayfly.images.cosign.found import MOST
from mayfly.images.cosign.keys import RegistryKey, Signed
from mayfly.images.lists.openssl import fingerprint_of, public_key
from mayfly.images.registry import Descriptor, Reference, Registry, parse_reference
from mayfly.images.registry.client import INDEX, MANIFEST
from tests.conftest import Cli
from tests.integration import registries
from tests.integration.cosigning import KINDS, Key, cosign, make_key, payload_of, put
from tests.integration.test_registry import NOBODY, manifest_of, send
from tests.unit.images.disks import raw_disk

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("docker-registry") is None, reason="needs docker-registry"),
]
NOW = datetime(2026, 12, 1, tzinfo=UTC)
NO_LOGIN = {"REGISTRY_AUTH_FILE": "/nonexistent"}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[registries.Running]:
    with registries.running(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Key]:
    place = tmp_path_factory.mktemp("keys")
    made = {kind: make_key(place, kind) for kind in KINDS}
    return {**made, "other": make_key(place / "other")}


@pytest.fixture
def image(registry: registries.Running, request: pytest.FixtureRequest) -> tuple[Reference, str]:
    """An image of its own in the registry: its reference and its digest."""
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name.lower())
    reference = parse_reference(f"docker://{registry.host}/lab/{name.strip('-')[:80].strip('-')}:1")
    client = Registry(reference, NOBODY, push=True)
    digest = client.push_manifest(manifest_of(send(client, request.node.name.encode())))
    return reference, str(digest)


def believed(running: Reference, key: Key, until: datetime | None = None) -> RegistryKey:
    pem, kind = public_key(key.public.read_bytes())
    return RegistryKey(
        name=key.public.stem,
        prefix=f"{running.host}/lab",
        pem=pem.decode(),
        kind=kind,
        fingerprint=fingerprint_of(pem),
        until=until,
    )


def check(reference: Reference, *known: RegistryKey) -> Signed | None:
    return check_signed(Registry(reference, NOBODY), known, NOW)


def rule(reference: Reference, *known: RegistryKey) -> str:
    with pytest.raises(Untrusted) as caught:
        check(reference, *known)
    return caught.value.message.rpartition("(rule '")[2].partition("'")[0]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_key_signs(
    kind: str, image: tuple[Reference, str], keys: dict[str, Key]
) -> None:
    reference, digest = image
    known = believed(reference, keys[kind])
    assert rule(reference, known) == "unsigned"
    cosign(reference, digest, keys[kind])
    found = check(reference, known)
    assert found is not None
    assert (found.digest, found.fingerprint) == (digest, known.fingerprint)
    assert check(reference.pinned(Registry(reference, NOBODY).manifest().digest), known) == found


def test_a_signature_that_refers_to_the_image_counts(
    image: tuple[Reference, str], keys: dict[str, Key]
) -> None:
    reference, digest = image
    cosign(reference, digest, keys["ec"], refer=True)
    assert check(reference, believed(reference, keys["ec"])) is not None
    assert rule(reference, believed(reference, keys["other"])) == "registry-key"


def test_one_good_signature_among_bad_ones_is_enough(
    image: tuple[Reference, str], keys: dict[str, Key]
) -> None:
    reference, digest = image
    text = payload_of(reference, digest)
    put(reference, digest, (text, b"\0" * 70), (b"", b"x"), (text, keys["ec"].sign(text)))
    assert check(reference, believed(reference, keys["ec"])) is not None


def test_another_key_is_refused(image: tuple[Reference, str], keys: dict[str, Key]) -> None:
    reference, digest = image
    cosign(reference, digest, keys["other"])
    assert rule(reference, believed(reference, keys["ec"])) == "registry-key"
    both = (believed(reference, keys["ec"]), believed(reference, keys["other"]))
    assert check(reference, *both) is not None


def test_a_text_that_was_changed_is_refused(
    image: tuple[Reference, str], keys: dict[str, Key]
) -> None:
    reference, digest = image
    text = payload_of(reference, digest)
    put(reference, digest, (text.replace(b"null", b"{}"), keys["ec"].sign(text)))
    assert rule(reference, believed(reference, keys["ec"])) == "registry-key"


def test_the_signature_of_another_image_is_refused(
    image: tuple[Reference, str], keys: dict[str, Key]
) -> None:
    reference, digest = image
    text = payload_of(reference, "sha256:" + "0" * 64)
    put(reference, digest, (text, keys["ec"].sign(text)))
    assert rule(reference, believed(reference, keys["ec"])) == "manifest"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[" * 30_000,
        b'{"critical": 3}',
        b'{"critical": {"type": "atomic container signature"}}',
        b'{"critical": {"type": "cosign container image signature", "image": []}}',
    ],
)
def test_what_the_key_signed_otherwise_is_refused(
    text: bytes, image: tuple[Reference, str], keys: dict[str, Key]
) -> None:
    reference, digest = image
    put(reference, digest, (text, keys["ec"].sign(text)))
    assert rule(reference, believed(reference, keys["ec"])) == "payload"


def test_a_huge_text_is_not_read(image: tuple[Reference, str], keys: dict[str, Key]) -> None:
    reference, digest = image
    text = payload_of(reference, digest) + b" " * (65 << 10)
    put(reference, digest, (text, keys["ec"].sign(text)))
    with pytest.raises(Untrusted, match="65536 are enough"):
        check(reference, believed(reference, keys["ec"]))


def test_only_so_many_signatures_are_looked_at(
    image: tuple[Reference, str], keys: dict[str, Key], monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, digest = image
    text = payload_of(reference, digest)
    put(reference, digest, *[(text, b"x")] * MOST, (text, keys["ec"].sign(text)))
    looked: list[bytes] = []

    def never(_: bytes, signature: bytes, *__: object) -> bool:
        looked.append(signature)
        return False

    monkeypatch.setattr("mayfly.images.cosign.check.fits", never)
    assert rule(reference, believed(reference, keys["ec"])) == "registry-key"
    assert looked == [b"x"] * MOST


def test_a_key_that_has_ended_is_refused(
    image: tuple[Reference, str], keys: dict[str, Key]
) -> None:
    reference, digest = image
    cosign(reference, digest, keys["ec"])
    late = believed(reference, keys["ec"], until=NOW - timedelta(seconds=1))
    assert rule(reference, late) == "key-expired"
    assert check(reference, believed(reference, keys["ec"], until=NOW)) is not None


def test_other_parts_of_the_registry_need_no_signature(
    registry: registries.Running, keys: dict[str, Key]
) -> None:
    reference = parse_reference(f"docker://{registry.host}/labs/x:1")
    assert check(reference, believed(reference, keys["ec"])) is None


def test_of_a_signed_index_each_image_is_good_and_no_other(
    registry: registries.Running, keys: dict[str, Key]
) -> None:
    reference = parse_reference(f"docker://{registry.host}/lab/many:1")
    client = Registry(reference, NOBODY, push=True)
    body = manifest_of(send(client, b"inner"))
    inner = client.push_manifest(body)
    entry = {
        **Descriptor(media_type=MANIFEST, digest=inner, size_bytes=len(body)).as_json(),
        "platform": {"os": "linux", "architecture": "amd64"},
    }
    table = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
    outer = client.push_manifest(json.dumps(table).encode(), INDEX)
    known = believed(reference, keys["ec"])
    assert rule(reference, known) == "unsigned"
    cosign(reference, str(inner), keys["ec"])
    found = check(reference, known)
    assert found is not None
    assert found.digest == str(inner)
    cosign(reference, str(outer), keys["ec"])
    reader = Registry(reference, NOBODY)
    found = check_signed(reader, [known], NOW)
    assert found is not None
    assert found.digest == str(outer)
    # From now on the tag may mean what it wants.
    client.push_manifest(manifest_of(send(client, b"evil")))
    assert reader.resolve().digest == inner


# --- as it is typed ------------------------------------------------------------------------------


@pytest.fixture
def pushed(
    registry: registries.Running, make_cli: Callable[..., Cli], tmp_path: Path
) -> tuple[Cli, Reference, str]:
    """A site, and a machine image that was pushed to a registry by another."""
    place = parse_reference(f"docker://{registry.host}/lab/{tmp_path.name.replace('_', '-')}:1")
    here, site = make_cli(tmp_path / "here", **NO_LOGIN), make_cli(tmp_path / "site", **NO_LOGIN)
    raw = raw_disk(tmp_path / "disk.raw")
    here("image", "import", str(raw), "--name", "el9", check=True)
    pushed = here("image", "push", "el9", f"docker://{place}", check=True)
    return site, place, pushed.stdout.decode().strip()


def trusted(site: Cli, name: str = "el9") -> tuple[bool, str]:
    found = json.loads(site("trust", "show", name, "--json", check=True).stdout)
    return found["trusted"], found["rule"] or ""


def test_from_a_key_to_an_image_that_may_run_and_back(
    pushed: tuple[Cli, Reference, str], keys: dict[str, Key]
) -> None:
    site, place, digest = pushed
    prefix, public = f"{place.host}/lab", str(keys["ec"].public)
    (site.home).mkdir()
    (site.home / "policy.toml").write_text(
        '[policy]\n[[policy.allow]]\nwho = ["*"]\nimages = ["*"]\nlists = ["lab"]\n'
    )
    site("trust", "registry", prefix, "--key", public, "--name", "lab", check=True)
    pull = ("image", "pull", f"docker://{place}", "--name", "el9")
    done = site(*pull)
    assert done.returncode == 8
    assert b"rule 'unsigned'" in done.stderr
    assert json.loads(site("image", "list", "--json").stdout) == []
    cosign(place, digest, keys["ec"])
    site(*pull, check=True)
    assert trusted(site) == (True, "")
    shown = site("trust", "show", "el9").stdout.decode()
    assert f"trusted: registry key 'lab' for {prefix}, signed {place.host}" in shown
    explain = ("policy", "explain", "--user", "root", "--image", "el9")
    assert b"allowed: image el9" in site(*explain, check=True).stdout
    search = json.loads(site("image", "search", "el9", "--json", check=True).stdout)
    assert search[0]["endorsed"] is True
    _take_back(site, prefix, keys)
    assert b"denied" in site(*explain).stdout


def _take_back(site: Cli, prefix: str, keys: dict[str, Key]) -> None:
    """See that the image goes with whatever vouches for it."""
    words = ("trust", "registry", prefix, "--name", "lab", "--force", "--key")
    site(*words, str(keys["other"].public), check=True)
    assert trusted(site) == (False, "registry-key")
    site(*words, str(keys["ec"].public), "--until", "2020-01-01", check=True)
    assert trusted(site) == (False, "key-expired")
    site(*words, str(keys["ec"].public), check=True)
    assert trusted(site) == (True, "")
    site("trust", "block", "el9", "--reason", "a hole", check=True)
    assert trusted(site) == (False, "blocked")
    site("trust", "unblock", "el9", check=True)
    site("trust", "remove", "lab", "--yes", check=True)
    assert trusted(site) == (False, "unendorsed")
