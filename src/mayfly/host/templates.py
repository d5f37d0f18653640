"""The memory of templates on this host: counted where it is held, let go where nothing needs it."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

from mayfly.engine.memory import end_holder, read_holder
from mayfly.engine.template import META
from mayfly.model import Shape

LOOK_S = 2.0
"""How long what was seen is taken for true: each look reads a file or two for each template."""

log = logging.getLogger("mayfly.host")
Kind = tuple[str, Shape]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldTemplate:
    """A template whose memory a process holds."""

    path: Path
    image: str
    shape: Shape


@dataclass(slots=True)
class Templates:
    """What was seen of them lately."""

    directory: Path
    _seen: list[HeldTemplate] = field(default_factory=list)
    _seen_at: float = float("-inf")

    def held(self) -> list[HeldTemplate]:
        """Give the templates whose memory is held."""
        now = time.monotonic()
        if now - self._seen_at >= LOOK_S:
            self._seen, self._seen_at = held_templates(self.directory), now
        return self._seen

    def memory_mib(self, used: frozenset[Kind]) -> int:
        """Give the memory of templates that are held or ``used``, each counted once."""
        held = self.held()
        there = {(one.image, one.shape) for one in held}
        soon = sum(shape.memory_mib for image, shape in used if (image, shape) not in there)
        return soon + sum(one.shape.memory_mib for one in held)

    def let_go(self, used: frozenset[Kind]) -> int:
        """Let go what nothing uses; gives the memory that comes free, in MiB.

        The next machine of such a template reads it back from disk, which takes a second.
        """
        unused = [one for one in self.held() if (one.image, one.shape) not in used]
        for one in unused:
            log.info("memory of template %s of %s let go", one.path.name, one.image)
            end_holder(one.path)
        self._seen_at = float("-inf")
        return sum(one.shape.memory_mib for one in unused)


def held_templates(directory: Path) -> list[HeldTemplate]:
    """Look which templates are held in memory; what cannot be read is left out."""
    found = []
    for path in sorted(directory.glob("[!.]*/")):
        if read_holder(path) is None:
            continue
        try:
            stored = json.loads((path / META).read_text())
            shape = Shape(**stored["shape"])
            found.append(HeldTemplate(path=path, image=str(stored["image"]), shape=shape))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found
