"""Debian's Chromium, driven by its own driver: the few verbs of WebDriver that tests need.

The protocol is JSON over HTTP (W3C WebDriver); what Chromium adds is DevTools' ``Emulation``.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
WAIT_S = 60.0
TAB, ENTER, SPACE = "\ue004", "\ue007", " "


@dataclass(slots=True, kw_only=True)
class Chromium:
    """One window."""

    port: int
    session: str = ""

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Ask the driver; raises ``AssertionError`` with its words."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        with contextlib.closing(connection):
            sent = None if body is None else json.dumps(body)
            connection.request(method, f"/session{path}", sent)
            words = json.loads(connection.getresponse().read())["value"]
        if isinstance(words, dict) and "error" in words:
            raise AssertionError(f"{method} {path}: {words['error']}: {words['message'][:500]}")
        return words

    def do(self, verb: str, **body: Any) -> Any:
        """Ask something of this window."""
        return self.ask("POST", f"/{self.session}/{verb}", body)

    def devtools(self, command: str, **params: Any) -> Any:
        """Ask DevTools."""
        return self.do("goog/cdp/execute", cmd=command, params=params)

    def load(self, url: str) -> None:
        """Load a page."""
        self.do("url", url=url)

    @property
    def title(self) -> str:
        """The title of the page."""
        return str(self.ask("GET", f"/{self.session}/title"))

    def all(self, css: str) -> list[str]:
        """Give all elements that a selector matches."""
        return [each[ELEMENT] for each in self.do("elements", using="css selector", value=css)]

    def text(self, css: str = "main") -> str:
        """Give the visible text of an element."""
        return str(self.ask("GET", f"/{self.session}/element/{self.all(css)[0]}/text"))

    def click(self, css: str) -> None:
        """Click on the first."""
        self.do(f"element/{self.all(css)[0]}/click")

    def type(self, css: str, text: str) -> None:
        """Type into a field."""
        self.do(f"element/{self.all(css)[0]}/value", text=text)

    def keys(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        strokes = [{"type": way, "value": key} for key in keys for way in ("keyDown", "keyUp")]
        self.do("actions", actions=[{"type": "key", "id": "keys", "actions": strokes}])

    def script(self, text: str, *args: Any) -> Any:
        """Run a script in the page."""
        return self.do("execute/sync", script=text, args=list(args))

    def complaints(self) -> list[str]:
        """Give what the browser said of the page since it was asked last: refused by policy, ..."""
        found = self.do("se/log", type="browser")
        return [each["message"] for each in found if each["level"] == "SEVERE"]

    def picture(self) -> bytes:
        """Give the window as a PNG."""
        return base64.b64decode(self.ask("GET", f"/{self.session}/screenshot"))

    def looks(self, theme: str, width: int, height: int = 900) -> None:
        """Be a screen of this width whose owner likes this theme."""
        feature = {"name": "prefers-color-scheme", "value": theme}
        self.devtools("Emulation.setEmulatedMedia", features=[feature])
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.devtools("Emulation.setDeviceMetricsOverride", **size)

    def until(self, true: Callable[[], bool]) -> None:
        """Wait for a condition; fails with the page's text."""
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            # An element may be replaced between being found and being read.
            with contextlib.suppress(AssertionError, IndexError):
                if true():
                    return
            time.sleep(0.05)
        raise AssertionError(f"it never came; the page is: {self.text('body')[:2000]}")


@contextlib.contextmanager
def chromium(*, scripts: bool = True) -> Iterator[Chromium]:
    """Open a window, with a profile of its own; nothing of it is left."""
    program = shutil.which("chromedriver")
    assert program, "scripts/setup installs it"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        driver = subprocess.Popen(
            [program, "--port=0", "--log-level=SEVERE"], stdout=subprocess.PIPE, text=True
        )
        with driver:
            try:
                window = Chromium(port=_port(driver))
                window.session = window.ask("POST", "", _wish(profile, scripts=scripts))[
                    "sessionId"
                ]
                try:
                    yield window
                finally:
                    window.ask("DELETE", f"/{window.session}")
            finally:
                driver.terminate()


def _port(driver: subprocess.Popen[str]) -> int:
    assert driver.stdout is not None
    for line in driver.stdout:
        if found := re.search(r"started successfully on port (\d+)", line):
            return int(found[1])
    raise AssertionError("the driver did not start")


def _wish(profile: str, *, scripts: bool) -> dict[str, Any]:
    args = ["headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"]
    args += [f"user-data-dir={profile}", "window-size=1280,900", "hide-scrollbars"]
    content = {"profile.managed_default_content_settings.javascript": 1 if scripts else 2}
    options = {"binary": shutil.which("chromium"), "args": args, "prefs": content}
    wish = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
    return {"capabilities": {"alwaysMatch": wish}}
