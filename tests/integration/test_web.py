"""The web page in a real browser: the whole story, live, by keyboard, without scripts, axe."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mayfly.site.people import asker_of
from tests.integration.chromium import ENTER, TAB, Chromium
from tests.integration.seats import Seat, seat_at
from tests.unit.server.sites import GROUPS, ROLES

pytestmark = pytest.mark.integration
AXE = Path(__file__).parents[1] / "material/axe/axe.min.js"
PICTURES = os.environ.get("MAYFLY_TEST_PICTURES")
WIDTHS = (380, 800, 1280)


@pytest.fixture
def seat(tmp_path: Path) -> Iterator[Seat]:
    with seat_at(tmp_path) as found:
        yield found


def test_the_whole_story_live(seat: Seat) -> None:
    window = seat.window
    seat.sign_in("alice")
    seat.make("build1")
    assert seat.state() == "wanted"
    seat.becomes("running")
    window.click("[id^=suspend-]")
    seat.becomes("suspended")
    window.click("[id^=resume-]")
    seat.becomes("running")
    window.click("#for option[value='7d']")
    window.click("#extend")
    window.until(lambda: "7 d left" in window.text())
    # Its end is seen on the page, too.
    seat.little.clock.now += 6.9 * 86_400
    seat.sign_in("alice")
    assert window.all(".left.soon")
    seat.little.clock.now += 0.2 * 86_400
    seat.becomes("suspended")
    assert "its time is over" in window.text()
    window.click("[id^=d-]")
    window.until(lambda: "Nothing brings it back" in window.text())
    window.click("main button.bad")
    window.until(lambda: "You have no machine" in window.text() if seat.settle() else False)
    assert seat.little.place.machines() == []
    assert window.complaints() == []


def test_news_come_without_a_reload_and_are_said(seat: Seat) -> None:
    window = seat.window
    seat.sign_in("alice")
    seat.little.ask("alice", "POST", "/v1/leases", {"image": "debian-12", "name": "elsewhere"})
    window.script("window.same = true")
    window.until(lambda: "elsewhere" in window.text())
    seat.becomes("running")
    assert window.script("return document.getElementById('hear').textContent") == (
        "elsewhere is running"
    )
    assert window.script("return window.same")


def test_the_server_gone_and_back(seat: Seat) -> None:
    window = seat.window
    seat.sign_in("alice")
    seat.gone()
    window.until(lambda: "does not answer" in window.text("#gone"))
    seat.serve()
    window.until(lambda: window.text("#gone") == "")
    assert window.title.startswith("My machines")


def test_without_scripts(tmp_path: Path) -> None:
    with seat_at(tmp_path, scripts=False) as seat:
        window = seat.window
        window.load("data:text/html,<noscript>off</noscript>")
        assert window.text("body") == "off"
        seat.sign_in("alice")
        seat.make("build1")
        seat.becomes("running", load="/machines")
        window.click("[id^=suspend-]")
        seat.becomes("suspended", load="/machines")
        window.click("footer button[value=dark]")
        window.until(lambda: bool(window.all("html[data-theme=dark]")))
        window.click("[id^=d-]")
        window.until(lambda: window.title.startswith("Delete"))
        window.click("main button.bad")
        window.until(lambda: "You have no machine" in window.text() if seat.again() else False)
        window.click(".out button")
        window.until(lambda: window.title.startswith("Sign in"))


def _has_theme(window: Chromium, theme: str) -> bool:
    return bool(window.all(f"html[data-theme={theme}]"))


def test_the_theme_that_was_chosen(seat: Seat) -> None:
    window = seat.window
    paper = "return getComputedStyle(document.body).backgroundColor"
    found = {}
    for system in ("light", "dark"):
        window.looks(system, 800)
        for theme in ("auto", "light", "dark"):
            window.load(f"{seat.url}/sign-in")
            window.click(f"footer button[value={theme}]")
            window.until(functools.partial(_has_theme, window, theme))
            found[system, theme] = window.script(paper)
    light, dark = found["light", "auto"], found["dark", "auto"]
    assert light != dark
    assert found["light", "light"] == found["dark", "light"] == light
    assert found["light", "dark"] == found["dark", "dark"] == dark


def _tab_to(window: Chromium, css: str) -> None:
    for _ in range(60):
        window.keys(TAB)
        if window.script("return document.activeElement.matches(arguments[0])", css):
            return
    raise AssertionError(f"no tab stop at {css}")


def test_by_keyboard_alone(seat: Seat) -> None:
    window = seat.window
    seat.sign_in("alice")
    window.keys(TAB)
    assert window.script("return document.activeElement.textContent") == "To the content"
    _tab_to(window, "a.main")
    window.keys(ENTER)
    window.until(lambda: window.title.startswith("New machine"))
    _tab_to(window, "#name")
    window.keys(*"build1", ENTER)
    window.until(lambda: window.title.startswith("build1"))
    seat.becomes("running")
    _tab_to(window, "#delete")
    window.keys(ENTER)
    window.until(lambda: window.title.startswith("Delete build1"))
    _tab_to(window, "main button")
    window.keys(ENTER)
    window.until(lambda: window.title.startswith("My machines"))
    seat.little.settle()
    assert seat.little.place.machines() == []


def test_a_form_in_use_is_not_disturbed(seat: Seat) -> None:
    window = seat.window
    seat.sign_in("alice")
    seat.make("build1")
    window.script("document.getElementById('for').focus()")
    seat.becomes("running")
    assert window.script("return document.activeElement.id") == "for"


def _fill(seat: Seat) -> str:
    """Give the site some life; gives the path of a machine's page."""
    little = seat.little
    for who, name, image in (
        ("alice", "build-el9", "alma-9"),
        ("alice", "teaching-2026-tuesday-afternoon", "debian-12"),
        ("olga", "probe", "debian-12"),
    ):
        wish = {"image": image, "name": name, "for_s": 90_000, "memory_mib": 2048, "cpus": 2}
        little.ask(who, "POST", "/v1/leases", wish)
    little.settle()
    little.ask("olga", "PATCH", "/v1/leases/probe", {"wanted": "suspended"})
    little.settle()
    with little.database.writing() as connection:
        connection.exec_driver_sql(
            "update leases set state='failed', reason='no room on the host: 3 of 3 CPUs are taken'"
            " where name like 'teaching%'"
        )
    little.clock.now += 50_000
    soon = {"image": "debian-12", "name": "soon-over", "for_s": 7200}
    little.ask("olga", "POST", "/v1/leases", soon)
    found = little.ask("olga", "GET", "/v1/leases/probe").words["id"]
    return f"/machines/{found}"


def _pages(path: str) -> dict[str, tuple[str, str]]:
    """Give the pages: their address, and how their title begins."""
    return {
        "machines": ("/machines", "My machines"),
        "all": ("/machines?of=all", "All machines"),
        "machine": (path, "probe"),
        "delete": (f"{path}/delete", "Delete probe"),
        "new": ("/new", "New machine"),
        "images": ("/images", "Images"),
        "events": ("/events", "Events"),
        "site": ("/site", "Site"),
        "error": ("/machines/00000000-0000-0000-0000-000000000000", "Not Found"),
    }


def test_every_page_is_for_everybody(seat: Seat) -> None:
    """Axe finds nothing, nothing sticks out, nothing is refused; both themes, three widths."""
    window = seat.window
    path = _fill(seat)
    seat.sign_in("olga")
    # It would say so.
    window.script("document.querySelector('main').append(document.createElement('input'))")
    assert any(fault.startswith("label: ") for fault in _faults(window))
    pages = _pages(path)
    _look_at(seat, pages)
    window.click(".out button")
    window.until(lambda: window.title.startswith("Sign in"))
    olga = asker_of("olga", GROUPS["olga"], ROLES, "test")
    link = f"/sign-in?code={seat.little.app.state.visits.link(olga)}"
    _look_at(seat, {"sign-in": ("/sign-in", "Sign in"), "sign-in-link": (link, "Sign in")})


def _look_at(seat: Seat, pages: dict[str, tuple[str, str]]) -> None:
    window = seat.window
    for name, (path, title) in pages.items():
        for theme in ("light", "dark"):
            for width in WIDTHS:
                window.looks(theme, width)
                window.load(f"{seat.url}{path}")
                where = f"{name}-{theme}-{width}"
                assert window.title.startswith(title), where
                if PICTURES:
                    (Path(PICTURES) / f"{where}.png").write_bytes(window.picture())
                wide = window.script("return document.documentElement.scrollWidth")
                assert wide <= width, where
                assert _faults(window) == [], where
        assert [each for each in window.complaints() if "404" not in each] == [], name


def _faults(window: Chromium) -> list[str]:
    # By DevTools, not as a script of the page: its policy would rightly refuse that one.
    window.devtools("Runtime.evaluate", expression=AXE.read_text())
    run = "axe.run(document, {resultTypes: ['violations']}).then((found) => JSON.stringify("
    run += "found.violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html).join(' | ')}`)))"
    found = window.devtools(
        "Runtime.evaluate", expression=run, awaitPromise=True, returnByValue=True
    )
    return [str(each) for each in json.loads(found["result"]["value"])]
