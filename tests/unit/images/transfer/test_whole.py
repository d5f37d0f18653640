"""A whole file comes here: at once or in pieces, and only if it is the one that was wanted."""

from __future__ import annotations

import os
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from mayfly.errors import Denied, Invalid, MayflyError, Missing, Unavailable, Untrusted
from mayfly.images.transfer.source import DirectorySource, WebSource, find_source
from mayfly.images.transfer.whole import Patience, Terms, fetched
from tests.unit.images.transfer.fetching import BODY, INNER, Fetching, digest_of, wanted
from tests.unit.images.web import Answer, File, Server, drip, flood, hang, reply


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_file_comes_whole_and_leaves_nothing(
    server: Server, fetch: Fetching, algorithm: str
) -> None:
    url, answers = server
    answers["/a"] = File(body=BODY)
    digest = digest_of(BODY, algorithm)
    assert fetch(f"{url}/a", wanted(digest=digest, size_bytes=len(BODY))) == BODY
    assert list(fetch.directory.iterdir()) == []


@pytest.mark.parametrize("digest", [digest_of(BODY), None])
def test_it_goes_on_after_each_break(server: Server, fetch: Fetching, digest: Any) -> None:
    url, answers = server
    file = answers["/a"] = File(body=BODY, breaks=[100_000, 50_000, 10])
    assert fetch(f"{url}/a", wanted(digest=digest)) == BODY
    assert file.ranges == ["", "bytes=100000-", "bytes=150000-", "bytes=150010-"]
    assert fetch.pauses == [1.0, 1.0, 1.0]


def test_it_gives_up_when_nothing_new_comes_and_the_next_call_goes_on(
    server: Server, fetch: Fetching
) -> None:
    url, answers = server
    file = answers["/a"] = File(body=BODY, breaks=[1000, 0, 0, 0])
    with pytest.raises(Unavailable, match="ended after 1000 of 1024000 bytes") as caught:
        fetch(f"{url}/a", wanted())
    assert "1.0 KiB that came are kept" in caught.value.message
    assert fetch.pauses == [1.0, 2.0, 4.0]
    assert fetch(f"{url}/a", wanted()) == BODY
    assert file.ranges[-1] == "bytes=1000-"
    assert list(fetch.directory.iterdir()) == []


def test_a_file_that_changed_between_the_pieces_comes_anew(server: Server, fetch: Fetching) -> None:
    url, answers = server
    new = BODY[::-1]

    def change(request: BaseHTTPRequestHandler) -> None:
        File(body=BODY, tag='"old"', breaks=[5000])(request)
        answers["/a"] = File(body=new, tag='"new"')

    answers["/a"] = change
    assert fetch(f"{url}/a", wanted(digest=None)) == new


@pytest.mark.parametrize("tag", ["", 'W/"weak"'])
def test_without_a_tag_the_pieces_are_checked_at_the_end(
    server: Server, fetch: Fetching, tag: str
) -> None:
    url, answers = server
    new = File(body=BODY, tag=tag)

    def change(request: BaseHTTPRequestHandler) -> None:
        File(body=BODY[::-1], tag=tag, breaks=[5000])(request)
        answers["/a"] = new

    answers["/a"] = change
    assert fetch(f"{url}/a", wanted()) == BODY
    assert new.ranges == ["bytes=5000-", ""]


def test_without_tag_and_digest_nothing_is_put_together(server: Server, fetch: Fetching) -> None:
    url, answers = server
    file = answers["/a"] = File(body=BODY, tag="", breaks=[5000])
    assert fetch(f"{url}/a", wanted(digest=None)) == BODY
    assert file.ranges == ["", ""]


def test_a_file_that_became_shorter_comes_anew(server: Server, fetch: Fetching) -> None:
    url, answers = server
    answers["/a"] = File(body=BODY + BODY, breaks=[len(BODY) + 5, 0, 0, 0])
    with pytest.raises(Unavailable):
        fetch(f"{url}/a", wanted())
    answers["/a"] = File(body=BODY)
    assert fetch(f"{url}/a", wanted()) == BODY


def test_another_source_may_go_on(server: Server, fetch: Fetching) -> None:
    url, answers = server
    answers["/a"] = File(body=BODY, breaks=[70_000, 0, 0, 0])
    mirror = answers["/b"] = File(body=BODY, tag='"of the mirror"')
    with pytest.raises(Unavailable):
        fetch(f"{url}/a", wanted())
    assert fetch(f"{url}/b", wanted()) == BODY
    assert mirror.ranges == ["bytes=70000-"]


# --- wrong files and bad servers -----------------------------------------------------------------

LIES: list[tuple[Answer, type[MayflyError], str]] = [
    (reply(body=BODY[::-1]), Untrusted, "is another file"),
    (reply(body=BODY[:-1]), Untrusted, "and 1024000 were expected"),
    (reply(body=BODY + b"x"), Untrusted, "and 1024000 were expected"),
    (reply(body=BODY[:-1], length=-1), Unavailable, "ended after 1023999 of 1024000"),
    (reply(body=BODY + b"x", length=-1), Untrusted, "has 1024001 bytes or more"),
    (reply(body=BODY[:10], length=len(BODY)), Unavailable, "ended after 10 of"),
    (flood, Untrusted, "were expected"),
    (reply(404), Missing, "404"),
    (reply(410), Missing, "410"),
    (reply(403), Denied, "403"),
    (reply(500), Unavailable, "500"),
    (reply(206, BODY), Unavailable, "another part"),
    (hang, Unavailable, "timed out"),
]


@pytest.mark.parametrize(("answer", "error", "words"), LIES)
def test_what_is_wrong_is_refused(
    server: Server, fetch: Fetching, answer: Answer, error: type[MayflyError], words: str
) -> None:
    url, answers = server
    answers["/a"] = answer
    with pytest.raises(error, match=words) as caught:
        fetch(f"{url}/a", wanted(size_bytes=len(BODY)))
    assert caught.value.hint
    if error is not Unavailable:
        assert list(fetch.directory.iterdir()) == []


def test_what_nobody_knows_the_size_of_is_bounded(server: Server, fetch: Fetching) -> None:
    url, answers = server
    for answer in (flood, reply(body=BODY)):
        answers["/a"] = answer
        with pytest.raises(Untrusted, match="more than 98 KiB"):
            fetch(f"{url}/a", wanted(digest=None, most_bytes=100_000))
        assert list(fetch.directory.iterdir()) == []


def test_a_server_that_answers_with_another_part_is_not_believed(
    server: Server, fetch: Fetching
) -> None:
    url, answers = server
    answers["/a"] = File(body=BODY, breaks=[1000, 0, 0, 0])
    with pytest.raises(Unavailable):
        fetch(f"{url}/a", wanted())
    answers["/a"] = reply(206, BODY[5:], None, **{"Content-Range": "bytes 5-1023999/1024000"})
    with pytest.raises(Unavailable, match="another part"):
        fetch(f"{url}/a", wanted())


def test_a_server_that_only_drips_is_given_up(server: Server, fetch: Fetching) -> None:
    url, answers = server
    answers["/a"] = drip
    ticks = iter(range(0, 10_000, 30))
    patience = Patience(sleep=fetch.pauses.append, clock=lambda: float(next(ticks)), retries=1)
    source = WebSource(uri=f"{url}/a", rules=INNER)
    with (
        pytest.raises(Unavailable, match="bytes in 60 s"),
        fetched(wanted(), source, fetch.downloads, Terms(patience=patience)),
    ):
        pytest.fail("it came")


def test_a_redirect_to_this_host_is_refused(
    server: Server, fetch: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, answers = server
    monkeypatch.setattr("mayfly.images.transfer.web.is_inner", lambda address: False)
    answers["/a"] = reply(302, Location="http://169.254.169.254/secret")
    with pytest.raises(Untrusted, match="leads elsewhere"):
        fetch(WebSource(uri=f"{url}/a"), wanted())
    assert fetch.left == []


def test_a_name_of_a_list_that_leads_to_this_host_is_refused(
    server: Server, fetch: Fetching
) -> None:
    url, answers = server
    answers["/a"] = File(body=BODY)
    with pytest.raises(Untrusted, match=r"127\.0\.0\.1"):
        fetch(WebSource(uri=f"{url}/a"), wanted())


def test_redirects_for_ever_end(server: Server, fetch: Fetching) -> None:
    url, answers = server
    for number in range(10):
        answers[f"/{number}"] = reply(302, Location=f"/{number + 1}")
    with pytest.raises(Unavailable, match="302"):
        fetch(f"{url}/0", wanted())


def test_a_secret_of_one_host_is_not_told_to_another(server: Server, fetch: Fetching) -> None:
    url, answers = server
    heard: list[str | None] = []

    def listen(request: BaseHTTPRequestHandler) -> None:
        heard.append(request.headers.get("Authorization"))
        File(body=BODY)(request)

    answers["/b"] = listen
    answers["/a"] = reply(307, Location=f"{url.replace('127.0.0.1', 'localhost')}/b")
    secret = {"Authorization": "Bearer secret"}
    source = WebSource(uri=f"{url}/a", rules=INNER, headers=secret)
    assert fetch(source, wanted()) == BODY
    assert fetch(replace(source, uri=f"{url}/b"), wanted()) == BODY
    assert heard == [None, "Bearer secret"]


@pytest.mark.parametrize(
    "uri", ["ftp://a/b", "x", "", "http://u:p@h/", "file://h/x", "http://a b/", "docker://a/b"]
)
def test_what_cannot_be_fetched_is_invalid(uri: str) -> None:
    with pytest.raises(Invalid, match="cannot be fetched"):
        find_source(uri)


def test_a_list_cannot_have_files_of_this_host_fetched(tmp_path: Path) -> None:
    assert find_source(f"file://{tmp_path}/a") == DirectorySource(path=tmp_path / "a")
    for uri in (f"file://{tmp_path}/a", "http://127.0.0.1/a", "http://localhost/a"):
        with pytest.raises(Invalid):
            find_source(uri, replace(INNER, inner=False))


# --- a directory ---------------------------------------------------------------------------------


def test_a_file_comes_from_a_directory(fetch: Fetching, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(BODY)
    source = DirectorySource(path=tmp_path / "a")
    assert fetch(source, wanted(size_bytes=len(BODY))) == BODY
    assert fetch(source, wanted(digest=None)) == BODY
    (tmp_path / "a").write_bytes(BODY[::-1])
    with pytest.raises(Untrusted, match="another file"):
        fetch(source, wanted())


def test_what_is_no_file_in_a_directory_is_refused(fetch: Fetching, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for place, error in (("fifo", Invalid), (".", Invalid), ("none", Missing), ("a/b", Missing)):
        with pytest.raises(error):
            fetch(DirectorySource(path=tmp_path / place), wanted())


def test_a_copy_goes_on_only_in_the_same_file(tmp_path: Path) -> None:
    source = DirectorySource(path=tmp_path / "a")
    source.path.write_bytes(BODY)
    with source.open(0, "") as offer:
        tag = offer.validator
    with source.open(1000, tag) as offer:
        assert (offer.start, offer.read(5)) == (1000, BODY[1000:1005])
    source.path.write_bytes(BODY + b"x")
    with source.open(1000, tag) as offer:
        assert (offer.start, offer.total_bytes) == (0, len(BODY) + 1)
