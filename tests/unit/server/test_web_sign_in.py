"""Signing in to the web page, sessions, and forms of other sites."""

from __future__ import annotations

import json
import os
import pwd
import tempfile
import threading
import time
from pathlib import Path

import jwt
import pytest
from click.testing import CliRunner
from fastapi import Response

from mayfly.cli.web import web
from mayfly.errors import Invalid, Missing
from mayfly.server.app import make_app
from mayfly.server.auth import Door
from mayfly.server.tokens import Issuer, Tokens
from mayfly.server.web.visits import Visits, csrf_of
from tests.unit.server.browsing import NEW, Browser, hidden, made
from tests.unit.server.sites import ROLES, Little, little_site, served
from tests.unit.server.tokens import AUDIENCE, ISSUER, claims, new_key, write_keys


def test_without_a_session_one_is_sent_to_sign_in(browser: Browser) -> None:
    for path in ("/machines", "/images", "/events", "/site", "/new"):
        answer = browser.get(path)
        assert (answer.status, answer.headers["location"]) == (303, f"/sign-in?then={path}")
    assert browser.get("/machines", X_Live="1").status == 401
    assert browser.post("/new", NEW).status == 303
    assert browser.little.place.machines() == []


def before(browser: Browser) -> str:
    """Give the proof that a form is of the sign-in page that this browser has seen."""
    browser.get("/sign-in")
    return csrf_of(browser.cookies["mayfly-before"])


def test_a_link_works_once(browser: Browser) -> None:
    link = browser.little.ask("alice", "POST", "/v1/web/links").words["url"]
    path = link.removeprefix("http://site.test")
    # Programs that look at links before people do use nothing up.
    browser.get(path)
    form = hidden(browser.get(path))
    assert browser.post("/sign-in", form).status == 303
    other = Browser(little=browser.little)
    assert "used already" in other.get(path).data.decode()
    again = other.post("/sign-in", {**form, "csrf": before(other)})
    assert again.status == 403
    assert "used already" in again.data.decode()


def test_the_command_prints_a_link_of_whoever_calls_it(
    little: Little, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the kernel's word, through a real door."""
    app = make_app(little.site, Door(roles=ROLES), "https://site.test")
    with tempfile.TemporaryDirectory() as short, served(app, Path(short) / "s") as path:
        monkeypatch.setenv("MAYFLY_SERVER", f"unix://{path}")
        printed = CliRunner().invoke(web, ["login"]).stdout
        listed = json.loads(CliRunner().invoke(web, ["login", "--json"]).stdout)
    for url in (printed.strip(), listed["url"]):
        assert url.startswith("https://site.test/sign-in?code=")
        me = pwd.getpwuid(os.geteuid()).pw_name
        assert app.state.visits.whose(url.partition("code=")[2]) == me


def test_a_server_without_a_page_makes_no_links(
    little: Little, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(little.site, Door(roles=ROLES))
    with tempfile.TemporaryDirectory() as short, served(app, Path(short) / "s") as path:
        monkeypatch.setenv("MAYFLY_SERVER", f"unix://{path}")
        refused = CliRunner().invoke(web, ["login"])
    assert isinstance(refused.exception, Invalid)
    assert "[web]" in refused.exception.hint
    monkeypatch.setenv("MAYFLY_SERVER", "none")
    assert isinstance(CliRunner().invoke(web, ["login"]).exception, Missing)


def test_of_two_at_once_one_gets_in(browser: Browser) -> None:
    link = browser.little.ask("alice", "POST", "/v1/web/links").words["url"]
    path = link.removeprefix("http://site.test")
    found: list[int] = []

    browsers = [Browser(little=browser.little) for _ in range(6)]
    forms = [hidden(each.get(path)) for each in browsers]

    def enter(number: int) -> None:
        found.append(browsers[number].post("/sign-in", forms[number]).status)

    threads = [threading.Thread(target=enter, args=(number,)) for number in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(found) == [303, 403, 403, 403, 403, 403]


def test_links_and_sessions_end(browser: Browser) -> None:
    little = browser.little
    link = (
        little.ask("alice", "POST", "/v1/web/links").words["url"].removeprefix("http://site.test")
    )
    little.clock.now += 601
    code = link.partition("code=")[2]
    late = browser.post("/sign-in", {"csrf": before(browser), "code": code})
    assert late.status == 403
    browser.sign_in("alice")
    little.clock.now += 12 * 3600 + 1
    assert browser.get("/machines").status == 303


def test_a_session_is_new_at_each_sign_in_and_gone_after(browser: Browser) -> None:
    # Fixation: a session that somebody else has put into the browser is not the one that it gets.
    mallory = Browser(little=browser.little)
    mallory.sign_in("bob")
    browser.cookies["mayfly"] = mallory.cookies["mayfly"]
    browser.sign_in("alice")
    assert browser.cookies["mayfly"] != mallory.cookies["mayfly"]
    assert mallory.get("/machines").status == 303
    kept = dict(browser.cookies)
    assert browser.post("/sign-out", {"csrf": browser.csrf}).status == 303
    browser.cookies = kept
    assert browser.get("/machines").status == 303


def test_a_form_of_another_site_does_nothing(alice: Browser) -> None:
    path = made(alice)
    for fields in ({}, {"csrf": ""}, {"csrf": "0" * 64}, {"csrf": "é"}):
        for verb in ("extend", "suspend", "resume", "delete"):
            assert alice.post(f"{path}/{verb}", {**fields, "for": "7d"}).status == 403
        assert alice.post("/new", {**NEW, **fields, "name": "evil"}).status == 403
        assert alice.post("/sign-out", fields).status == 403
    good = {"csrf": alice.csrf}
    assert alice.post(f"{path}/delete", good, Sec_Fetch_Site="cross-site").status == 403
    assert alice.get("/machines").status == 200
    # Nor does one that signs the browser in as its maker.
    link = alice.little.ask("bob", "POST", "/v1/web/links").words["url"]
    code = link.partition("code=")[2]
    assert Browser(little=alice.little).post("/sign-in", {"code": code}).status == 403


def test_the_database_has_no_secret(alice: Browser) -> None:
    with alice.little.database.reading() as connection:
        dump = "".join(str(row) for row in connection.exec_driver_sql("select * from passes"))
    assert "alice" in dump
    assert alice.cookies["mayfly"] not in dump


def test_the_oldest_session_goes(browser: Browser) -> None:
    browser.sign_in("alice")
    for _ in range(20):
        browser.little.clock.now += 1
        Browser(little=browser.little).sign_in("alice")
    assert browser.get("/machines").status == 303


def test_by_a_token_for_as_long_as_it_lives(tmp_path: Path) -> None:
    key = new_key()
    write_keys(tmp_path / "keys.json", k1=key)
    issuer = Issuer(url=ISSUER, audience=AUDIENCE, keys=tmp_path / "keys.json")

    def signed(**changes: object) -> str:
        return jwt.encode(claims(**changes), key, algorithm="ES256", headers={"kid": "k1"})

    with little_site(tmp_path, tokens=Tokens(issuers=(issuer,))) as little:
        little.clock.now = time.time()
        browser = Browser(little=little)
        form = hidden(browser.get("/sign-in"))
        for bad in ("", "nonsense", "a.b.c", "x" * 20_000, signed(aud="elsewhere")):
            refused = browser.post("/sign-in", {**form, "token": bad})
            assert refused.status in (401, 403)
            assert b'role="alert"' in refused.data
        entered = browser.post("/sign-in", {**form, "token": signed(**{"wlcg.groups": ["/cms"]})})
        assert entered.status == 303
        assert "alice" in browser.get("/machines").data.decode()
        assert "cms" in browser.get(made(browser)).data.decode()
        little.clock.now += 601
        assert browser.get("/machines").status == 303


def test_a_server_that_takes_no_tokens_asks_for_none(browser: Browser) -> None:
    assert b'name="token"' not in browser.get("/sign-in").data
    fields = {"csrf": before(browser), "token": "x"}
    assert browser.post("/sign-in", fields).status == 401


def test_cookies_of_a_site_with_tls(little: Little) -> None:
    visits = Visits(site=little.site, roles=ROLES, url="https://site.test")
    response = Response()
    visits.set_cookie(response, visits.cookie, "x", 60)
    cookie = response.headers["set-cookie"]
    assert cookie.startswith("__Host-mayfly=x;")
    assert "Secure" in cookie
    assert "Domain" not in cookie
