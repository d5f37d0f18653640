"""Guests to test against that are unlike those which users build: old Python, other init."""

from __future__ import annotations

from dataclasses import replace

from mayfly.images.build.recipe import Init, find_recipe

PYTHON2_ONLY = replace(
    find_recipe("debian-11"),
    name="debian-11-py2",
    packages=("python2.7", "python2", "python-is-python2"),
    merge_usr=False,
)
"""No Python 3 at all: ``python`` is 2.7. And /bin is no link, as in systems of that age."""

SYSVINIT = replace(find_recipe("debian-12"), name="debian-12-sysv", init=Init.SYSVINIT)
"""No systemd as the first process, no machine-id, no journal."""
