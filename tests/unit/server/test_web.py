"""The web page: what it does, for whom, and what it lets nobody do."""

from __future__ import annotations

import re

import pytest

from mayfly.errors import Unavailable
from mayfly.server.web.form import own_path, parse_form
from mayfly.server.web.pages import static_files
from tests.unit.server.browsing import NEW, Browser, hidden, made

NASTY = "<script>alert(1)</script>\"'&{{7*7}}"


def sure(browser: Browser, path: str) -> int:
    return browser.post(path, {"csrf": browser.csrf}).status


def test_from_the_form_to_the_end(alice: Browser) -> None:
    little = alice.little
    path = made(alice)
    assert b"build1" in alice.get("/machines").data
    little.settle()
    page = alice.get(path).data.decode()
    assert "running" in page
    assert "1 d left" in page
    assert sure(alice, f"{path}/suspend") == 303
    little.settle()
    assert 'data-state="suspended"' in alice.get("/machines").data.decode()
    assert sure(alice, f"{path}/resume") == 303
    little.settle()
    assert 'data-state="running"' in alice.get(path).data.decode()
    assert "Nothing brings it back" in alice.get(f"{path}/delete").data.decode()
    assert sure(alice, f"{path}/delete") == 303
    little.settle()
    assert little.place.machines() == []
    assert "You have no machine" in alice.get("/machines").data.decode()
    assert "build1" in alice.get("/machines?ended=1").data.decode()


def test_more_time_is_never_less(alice: Browser) -> None:
    path = made(alice, **{"for": "3d"})
    csrf = alice.csrf
    assert alice.post(f"{path}/extend", {"csrf": csrf, "for": "4h"}).status == 303
    assert "3 d left" in alice.get(path).data.decode()
    assert alice.post(f"{path}/extend", {"csrf": csrf, "for": "7d"}).status == 303
    assert "7 d left" in alice.get(path).data.decode()
    assert alice.post(f"{path}/extend", {"csrf": csrf, "for": "999d"}).status == 400


def test_a_form_that_was_sent_twice_makes_one(alice: Browser) -> None:
    fields = {**hidden(alice.get("/new")), **NEW, "name": ""}
    first = alice.post("/new", fields).headers["location"]
    assert alice.post("/new", fields).headers["location"] == first


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "Büro"),
        ("name", NASTY),
        ("cpus", "many"),
        ("cpus", "0"),
        ("memory_mib", "1e9"),
        ("network", "everything"),
        ("group", NASTY),
        ("image", NASTY),
        ("ssh_keys", 'command="rm" ssh-ed25519 AAAA'),
    ],
)
def test_a_wrong_field_is_named_and_what_was_typed_stays(
    alice: Browser, field: str, value: str
) -> None:
    fields = {**hidden(alice.get("/new")), **NEW, "name": "kept-name", field: value}
    page = alice.post("/new", fields)
    text = page.data.decode()
    assert page.status == 400
    assert f'id="{field}-wrong"' in text or field == "network" or field == "group"
    assert "<script>alert" not in text
    assert 'value="kept-name"' in text or field == "name"
    assert "49" not in re.sub(r'value="[^"]*"|/static/\w+', "", text)
    assert alice.little.place.machines() == []


def test_more_than_the_quota_is_said_in_the_form(alice: Browser) -> None:
    for number in range(5):
        made(alice, name=f"m{number}")
    page = alice.post("/new", {**hidden(alice.get("/new")), **NEW, "name": "m6"})
    assert page.status == 429
    assert "more than your quota" in page.data.decode()


# --- who sees what -------------------------------------------------------------------------------


def test_machines_of_others(alice: Browser) -> None:
    little = alice.little
    path = made(alice)
    bob = Browser(little=little)
    bob.sign_in("bob")
    assert bob.get(path).status == 404
    assert sure(bob, f"{path}/delete") == 404
    ada = Browser(little=little)
    ada.sign_in("ada")
    assert "build1" not in ada.get("/machines").data.decode()
    assert "build1" in ada.get("/machines?of=all").data.decode()
    assert "Delete build1" not in ada.get("/machines?of=all").data.decode()
    assert sure(ada, f"{path}/delete") == 403
    martin = Browser(little=little)
    martin.sign_in("martin")
    assert sure(martin, f"{path}/delete") == 303


def test_the_site_is_for_operators(alice: Browser) -> None:
    made(alice)
    assert alice.get("/site").status == 403
    olga = Browser(little=alice.little)
    olga.sign_in("olga")
    page = olga.get("/site").data.decode()
    assert re.search(r"physics</th><td[^>]*>1<", page)


def test_images_and_events(alice: Browser) -> None:
    made(alice)
    assert "sha512:000" in alice.get("/images").data.decode()
    assert "created" in alice.get("/events").data.decode()
    bob = Browser(little=alice.little)
    bob.sign_in("bob")
    assert "Nothing has happened yet" in bob.get("/events").data.decode()


def test_long_lists_have_pages(browser: Browser) -> None:
    little = browser.little
    browser.sign_in("olga")
    for who in ("alice", "bob", "martin", "olga", "ada") * 5:
        for _ in range(2):
            little.ask(who, "POST", "/v1/leases", {"image": "debian-12"})
    page = browser.get("/events").data.decode()
    assert page.count("<li>") == 25
    found = browser.get("/machines?of=all").data.decode()
    assert found.count("data-state=") == 25


# --- what must not get in ------------------------------------------------------------------------


def test_nothing_that_is_stored_runs(alice: Browser) -> None:
    """Also if a name that no form of ours lets through were in the database."""
    little = alice.little
    path = made(alice)
    columns = 'name, image, reason, network, host_keys, owner, "group"'
    assert columns
    with little.database.writing() as connection:
        connection.exec_driver_sql(
            'update leases set name=?, image=?, reason=?, host_keys=?, "group"=?',
            (NASTY, NASTY, NASTY, '["<script>alert(2)</script>"]', NASTY),
        )
        connection.exec_driver_sql(
            "update events set actor=?, source=?, detail=?",
            (NASTY, NASTY, '{"name": "<script>alert(3)</script>"}'),
        )
    olga = Browser(little=little)
    olga.sign_in("olga")
    with little.database.writing() as connection:
        connection.exec_driver_sql("update leases set state='failed'")
    for each in ("/machines?of=all", path, f"{path}/delete", "/events", "/site"):
        answer = olga.get(each)
        text = answer.data.decode()
        assert answer.status == 200
        assert "<script>alert" not in text
        assert "&lt;script&gt;" in text
        assert "{{7*7}}" in text.replace("&#34;", '"') or each == "/events"


def test_headers_of_every_page(alice: Browser) -> None:
    path = made(alice)
    asset = re.search(r"/static/\w+/live.js", alice.get("/machines").data.decode())
    assert asset
    for each in ("/machines", "/new", path, "/nothing/x", "/sign-in", "/site", asset[0]):
        answer = alice.get(each)
        if each == "/nothing/x":
            assert answer.status == 404
            continue
        policy = answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        text = answer.data.decode()
        assert not re.search(r"<script(?![^>]*src=)|\son\w+=|\sstyle=|<style", text)


@pytest.mark.parametrize(
    "path",
    ["//evil.test", "https://evil.test", "/\\evil.test", "javascript:alert(1)", "/a\nb", "é", ""],
)
def test_nobody_is_led_away(browser: Browser, path: str) -> None:
    assert own_path(path) == "/machines"
    answer = browser.post("/theme", {"theme": "dark", "then": path})
    assert answer.headers["location"] == "/machines"
    assert browser.cookies["mayfly-theme"] == "dark"


def test_what_was_done_is_in_our_words(alice: Browser) -> None:
    assert "your password" not in alice.get("/machines?said=type+your+password").data.decode()
    assert "on its way" in alice.get("/machines?said=created").data.decode()


def test_a_theme_stays(browser: Browser) -> None:
    assert 'data-theme="auto"' in browser.get("/sign-in").data.decode()
    browser.post("/theme", {"theme": "dark", "then": "/sign-in"})
    assert 'data-theme="dark"' in browser.get("/sign-in").data.decode()
    browser.cookies["mayfly-theme"] = '"><script>'
    assert 'data-theme="auto"' in browser.get("/sign-in").data.decode()


@pytest.mark.parametrize(
    "data",
    [b"\xff\xfe", b"a=%ff", b"&".join(b"a=1" for _ in range(100)), b"x=" + b"y" * 200_000, b""],
)
def test_nonsense_for_a_form(alice: Browser, data: bytes) -> None:
    assert alice.post("/new", data).status in (400, 403)
    assert alice.post("/sign-in", data).status in (400, 403)
    assert alice.get("/machines").status == 200


def test_only_forms_are_forms(alice: Browser) -> None:
    good = f"csrf={alice.csrf}".encode()
    assert alice.post("/sign-out", good, **{"Content-Type": "text/plain"}).status == 400
    assert parse_form(b"a=1&a=2&b=%0D%0Ax+") == {"a": "2", "b": "x"}


def test_files_are_kept_by_browsers_until_they_change(browser: Browser) -> None:
    for name, (data, stamp) in static_files().items():
        got = browser.get(f"/static/{stamp}/{name}")
        assert got.data == data
        assert "immutable" in got.headers["cache-control"]
        assert browser.get(f"/static/old/{name}").status == 404
    assert browser.get("/static/x/..%2Fpages.py").status == 404


def test_a_place_that_does_not_answer(alice: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: object) -> object:
        raise Unavailable("the host service does not answer")

    monkeypatch.setattr(type(alice.little.place), "offers", silent)
    assert "does not answer" in alice.get("/images").data.decode()
    assert "does not answer" in alice.get("/new").data.decode()


def test_the_first_view_is_small(alice: Browser) -> None:
    for number in range(5):
        made(alice, name=f"m{number}")
    page = alice.get("/machines").data
    assert len(page) + sum(len(data) for data, _ in static_files().values()) < 100_000
