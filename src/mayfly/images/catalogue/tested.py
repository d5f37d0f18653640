"""What came of testing an image, written beside it: the record of the image itself stays as it is.

One file for each disk; a record of another disk counts for nothing.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mayfly.errors import Untrusted

TESTS = "tests.json"
FORMAT = 1
OUTPUT_LONGEST = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of one check."""

    name: str
    passed: bool
    code: int
    seconds: float
    output: str = ""
    """The end of what it printed."""
    why: str = ""
    """Why it did not pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """All checks of one run, in one machine."""

    sha512: str
    tested_at: str
    """ISO 8601, UTC."""
    results: tuple[Result, ...]

    @property
    def passed(self) -> bool:
        """Tell whether there were checks, and all passed."""
        return bool(self.results) and all(result.passed for result in self.results)

    @property
    def summary(self) -> str:
        """Say it in a few words; "" for an image that was never tested."""
        if not self.results:
            return ""
        good = sum(result.passed for result in self.results)
        word = "passed" if self.passed else "failed"
        return f"{word} {self.tested_at} ({good} of {len(self.results)})"


NEVER = Verdict(sha512="", tested_at="", results=())


def write_tests(directory: Path, tests: Verdict) -> None:
    """Write the result beside the disk, whole or not at all."""
    fresh = directory / f".{TESTS}.new"
    with fresh.open("w", encoding="utf-8") as file:
        json.dump({"format": FORMAT, **asdict(tests)}, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.chmod(0o644 if os.geteuid() == 0 else 0o600)
    fresh.replace(directory / TESTS)


def read_tests(directory: Path, sha512: str = "") -> Verdict:
    """Read what came of the last test; of another disk than ``sha512`` it is nothing."""
    try:
        stored: Any = json.loads((directory / TESTS).read_bytes())
    except FileNotFoundError:
        return NEVER
    except (OSError, ValueError, RecursionError) as error:
        raise Untrusted(f"{directory / TESTS} cannot be read: {error}") from error
    try:
        if stored["format"] != FORMAT:
            return NEVER
        results = tuple(Result(**each) for each in stored["results"])
        tests = Verdict(
            sha512=str(stored["sha512"]), tested_at=str(stored["tested_at"]), results=results
        )
    except (KeyError, TypeError) as error:
        raise Untrusted(
            f"{directory / TESTS} is damaged: {error}",
            hint="'mayfly image test NAME' writes it anew",
        ) from error
    return tests if sha512 in ("", tests.sha512) else NEVER
