"""Options as names and values: ``vm_image=el9``, where a batch system has nothing but these."""

from __future__ import annotations

from collections.abc import Mapping

from mayfly.batch.wish import OPTIONS

PREFIX = "vm_"
ALIASES = {"name": "image"}
"""``vm_name`` is what ancestors of ours called it."""
SEPARATOR = ";"
"""Between several values of one option: a comma means something else to most batch systems."""


def options_in(values: Mapping[str, str]) -> dict[str, str]:
    """Give the options of ours that are among named values, by their names in ``OPTIONS``."""
    found = {}
    for name in (*ALIASES, *OPTIONS):
        value = values.get(PREFIX + name)
        if value is not None:
            found[ALIASES.get(name, name)] = value.strip("'\"").replace(SEPARATOR, ",")
    return found


def spelled(before: str, after: str = "") -> list[tuple[str, str]]:
    """Give how each option is written between two texts, and what it means."""
    more = f"; several with {SEPARATOR} between"
    return [
        (
            f"{before}{PREFIX}{name}={values.split(',')[0]}{after}",
            meaning + (more if name in ("allow", "share") else ""),
        )
        for name, (values, meaning) in OPTIONS.items()
    ]
