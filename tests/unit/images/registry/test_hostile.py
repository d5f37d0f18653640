"""A registry that lies, leads astray, or wants our secrets."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.errors import Denied, Invalid, MayflyError, Missing, Unavailable, Untrusted
from mayfly.images.lists.uris import UriRules
from mayfly.images.registry import Access, Reference, Registry, parse_reference
from mayfly.images.registry.client import MANIFEST, parse_descriptor
from mayfly.images.registry.login import Secret, authorise, find_login, login_files
from mayfly.images.registry.machine import CONFIG, DISK, find_machine
from mayfly.images.registry.requests import ANSWER_MOST, Reply
from mayfly.images.transfer.part import Downloads
from tests.unit.images.transfer.fetching import digest_of
from tests.unit.images.web import Answer, Server, flood, hang, reply, serving

NOBODY = Access(logins=())
INNER = UriRules(inner=True)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def registry_at(server: Server, *, access: Access = NOBODY, pin: str = "") -> Registry:
    host = server[0].removeprefix("http://")
    return Registry(parse_reference(f"{host}/a{pin or ':1'}"), access)


def entry(body: bytes, kind: str) -> dict[str, Any]:
    return {
        "mediaType": kind,
        "digest": str(digest_of(body, "sha256")),
        "size": len(body),
    }


def put(server: Server, config: bytes = b"{}", /, *, kind: str = CONFIG, **changes: Any) -> bytes:
    """Have the server offer a machine image; gives the manifest."""
    _, answers = server
    table: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": entry(config, kind),
        "layers": [entry(b"disk", DISK)],
        **changes,
    }
    body = json.dumps(table).encode()
    answers["/v2/a/manifests/1"] = reply(body=body)
    answers[f"/v2/a/blobs/{digest_of(config, 'sha256')}"] = reply(body=config)
    answers[f"/v2/a/blobs/{digest_of(b'disk', 'sha256')}"] = reply(body=b"disk")
    return body


GOOD = b'{"format": 1, "os": "el 9", "version": "5", "arch": "x86_64"}'


def test_a_good_one_passes(server: Server, tmp_path: Path) -> None:
    put(server, GOOD)
    registry = registry_at(server)
    found = find_machine(registry)
    assert (found.os, found.version) == ("el 9", "5")
    with registry.fetch_blob(found.disk, Downloads(directory=tmp_path / "d")) as got:
        assert got.file.read_bytes() == b"disk"


def test_the_artifact_of_another_tool_passes_too(server: Server) -> None:
    put(server, kind="application/vnd.oci.empty.v1+json")
    assert find_machine(registry_at(server)).os == "unknown"


BAD: list[tuple[bytes, dict[str, Any], type[MayflyError], str]] = [
    (b"{}", {}, Untrusted, "format that is not known"),
    (b"x", {}, Untrusted, "not JSON"),
    (b"[" * 50_000, {}, Untrusted, "not JSON"),
    (b'{"format": 1, "os": 5}', {}, Untrusted, "damaged at: os"),
    (b'{"format": 1, "os": "\\u001b[2J"}', {}, Untrusted, "damaged at: os"),
    (b'{"format": 1, "os": "' + b"x" * 300 + b'"}', {}, Untrusted, "damaged at: os"),
    (b'{"format": 1, "arch": "arm64"}', {}, Invalid, "is an image for arm64"),
    (GOOD, {"layers": []}, Invalid, "no machine image"),
    (GOOD, {"layers": None}, Untrusted, "no list"),
    (GOOD, {"layers": [5]}, Untrusted, "in the place of a descriptor"),
    (GOOD, {"layers": [{"mediaType": DISK, "size": 1}]}, Untrusted, "without type, size or"),
    (GOOD, {"layers": [entry(b"x", DISK)] * 1001}, Untrusted, "at most 1000"),
    (GOOD, {"layers": [entry(b"x", "application/x.layer.v1.tar+gzip")]}, Invalid, "machine image"),
    (GOOD, {"config": None}, Untrusted, "in the place of a descriptor"),
    (GOOD, {"config": {**entry(GOOD, CONFIG), "size": 2 << 20}}, Untrusted, "are enough"),
    (GOOD, {"config": {**entry(GOOD, CONFIG), "size": 5}}, Untrusted, "another blob"),
    (GOOD, {"config": {**entry(GOOD, CONFIG), "digest": "sha256:../x"}}, Untrusted, "bad digest"),
]


@pytest.mark.parametrize(("config", "changes", "error", "words"), BAD)
def test_what_is_wrong_is_refused(
    server: Server, config: bytes, changes: dict[str, Any], error: type[MayflyError], words: str
) -> None:
    put(server, config, **changes)
    with pytest.raises(error, match=words):
        find_machine(registry_at(server))


ANSWERS: list[tuple[Answer, type[MayflyError], str]] = [
    (reply(body=b"[]"), Untrusted, "no object"),
    (reply(body=b"{"), Untrusted, "not JSON"),
    (reply(404, b'{"errors": [{"code": "GONE", "message": "x"}]}'), Missing, "GONE: x"),
    (reply(404, b'{"errors": 5}'), Missing, "404"),
    (reply(403), Denied, "403"),
    (reply(401), Denied, "401"),
    (reply(503), Unavailable, "503"),
    (flood, Untrusted, f"more than {ANSWER_MOST} bytes"),
]


@pytest.mark.parametrize(("answer", "error", "words"), ANSWERS)
def test_a_bad_answer_is_refused(
    server: Server, answer: Answer, error: type[MayflyError], words: str
) -> None:
    server[1]["/v2/a/manifests/1"] = answer
    with pytest.raises(error, match=words):
        registry_at(server).manifest()


def test_a_registry_that_hangs_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mayfly.images.registry.requests.ANSWER_S", 0.3)
    server[1]["/v2/a/manifests/1"] = hang
    with pytest.raises(Unavailable, match=r"did not answer within 0\.3 s|timed out"):
        registry_at(server).manifest()


def test_a_pinned_manifest_must_be_that(server: Server) -> None:
    body = put(server, GOOD)
    right, wrong = hashlib.sha256(body).hexdigest(), "0" * 64
    for digits in (right, wrong):
        server[1][f"/v2/a/manifests/sha256:{digits}"] = reply(body=body)
    assert registry_at(server, pin=f"@sha256:{right}").manifest().digest.hex == right
    with pytest.raises(Untrusted, match="another manifest"):
        registry_at(server, pin=f"@sha256:{wrong}").manifest()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["mediaType", "size", "digest", "annotations", "platform", "x"]),
                inner,
                max_size=5,
            )
        ),
        max_leaves=8,
    )
)
def test_any_json_is_a_descriptor_or_untrusted(value: Any) -> None:
    try:
        found = parse_descriptor(value)
    except Untrusted:
        return
    assert found.size_bytes >= 0


# --- secrets -------------------------------------------------------------------------------------


def login(tmp_path: Path, host: str) -> Access:
    file = tmp_path / "auth.json"
    word = base64.b64encode(b"jo:secret").decode()
    file.write_text(json.dumps({"auths": {host: {"auth": word}}}))
    return Access(logins=(tmp_path / "none.json", file))


def test_a_token_server_may_not_be_anywhere(server: Server, tmp_path: Path) -> None:
    refusal = Reply(
        url="https://r.example.org/v2/a",
        status=401,
        headers={"WWW-Authenticate": f'Bearer realm="{server[0]}/token"'},
        body=b"",
    )
    with pytest.raises(Untrusted, match="not encrypted"):
        authorise(refusal, Secret("x"), scope="s", rules=UriRules(schemes=("https",)))
    inner = {"WWW-Authenticate": 'Bearer realm="https://169.254.169.254/token"'}
    with pytest.raises(Untrusted, match="neighbourhood"):
        authorise(
            Reply(url=refusal.url, status=401, headers=inner, body=b""),
            None,
            scope="s",
            rules=UriRules(schemes=("https",)),
        )
    assert tmp_path.exists()


@pytest.mark.parametrize(
    "challenge", ["", "Negotiate", "Basic realm=x", "Bearer", 'Bearer realm="']
)
def test_a_challenge_that_cannot_be_met_is_denied(server: Server, challenge: str) -> None:
    server[1]["/v2/a/manifests/1"] = reply(401, b"", None, **{"WWW-Authenticate": challenge})
    with pytest.raises((Denied, Untrusted)):
        registry_at(server).manifest()


@pytest.mark.parametrize("token", [b"{}", b'{"token": 5}', b'{"token": "a\\r\\nX: y"}', b"[]"])
def test_a_token_that_is_none_is_refused(server: Server, token: bytes) -> None:
    url, answers = server
    challenge = {"WWW-Authenticate": f'Bearer realm="{url}/token",service="x"'}
    answers["/v2/a/manifests/1"] = reply(401, b"", None, **challenge)
    answers["/token"] = reply(body=token)
    with pytest.raises((Denied, Untrusted)):
        registry_at(server).manifest()


def test_a_password_is_told_to_its_own_host_only(server: Server, tmp_path: Path) -> None:
    url, answers = server
    heard: list[str | None] = []

    def listen(request: BaseHTTPRequestHandler) -> None:
        heard.append(request.headers.get("Authorization"))
        reply(401, b"", None, **{"WWW-Authenticate": 'Basic realm="x"'})(request)

    answers["/v2/a/manifests/1"] = listen
    with pytest.raises(Denied):
        registry_at(server, access=login(tmp_path, url.removeprefix("http://"))).manifest()
    with pytest.raises(Denied):
        registry_at(server, access=login(tmp_path, "other.example.org")).manifest()
    word = base64.b64encode(b"jo:secret").decode()
    assert heard == [None, f"Basic {word}", None]


def test_a_secret_is_not_shown() -> None:
    assert "x" * 9 not in repr(Secret("x" * 9))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"auths": []}', '{"auths": {"h": 5}}', "\0"])
def test_a_login_file_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "auth.json"
    file.write_text(text)
    assert find_login("h", (file,)) is None


def test_logins_are_where_others_have_them(tmp_path: Path) -> None:
    assert login_files({"REGISTRY_AUTH_FILE": "/a"}) == (Path("/a"),)
    found = login_files({"XDG_RUNTIME_DIR": "/r", "DOCKER_CONFIG": str(tmp_path)})
    assert found == (Path("/r/containers/auth.json"), tmp_path / "config.json")


def test_a_registry_elsewhere_is_asked_with_encryption_only() -> None:
    away = Reference(host="r.example.org:5000", name="a")
    assert Registry(away, NOBODY)._top == "https://r.example.org:5000/v2/a"
    plain = Access(plain=("r.example.org:5000",), logins=())
    assert Registry(away, plain)._top == "http://r.example.org:5000/v2/a"
    here = Reference(host="localhost:5000", name="a")
    assert Registry(here, NOBODY)._top == "http://localhost:5000/v2/a"
