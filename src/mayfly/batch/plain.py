"""A batch system of which nothing but files is changed: all else is the admin's to restart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mayfly.batch.systems import Plan, Where
from mayfly.model import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesOnly:
    """A ``System`` put together from what is its own."""

    programs: Path
    """Where our programs go, unless it is said otherwise."""
    plan: Callable[[Where], Plan]
    check: Callable[[Where], list[Finding]]
    options: Callable[[], list[tuple[str, str]]]
    describe: Callable[[str], dict[str, str]]

    def journal(self, where: Where) -> Path:
        """Give where it is written down what was changed."""
        return (where.programs or self.programs) / "installed.json"

    def installed(self, where: Where) -> None:
        """There is nothing else to do."""

    @contextmanager
    def uninstalling(self, where: Where) -> Iterator[None]:
        """There is nothing else to do."""
        yield
