"""Runs the scripts that a site has put beside the agent, while the template is made."""

from __future__ import annotations

import json
import os

from mayfly.guest.fields import Refused
from mayfly.guest.files import beneath
from mayfly.guest.system import Tool

FOLDER = "/run/mayfly"
PARTS = ("prolog.sh", "epilog.sh")
OUTPUT_LONGEST = 8 << 10


def check_part(part: str) -> str:
    """Give the name back, or refuse it."""
    if part not in PARTS:
        raise Refused(f"there is no part '{part}' of a context")
    return part


def run_part(part: str, timeout_s: float, tool: Tool, *, root: str = "/") -> bytes:
    """Source a script, as those expect who write them; report how it ended: an assistant."""
    path = beneath(root, f"{FOLDER}/{part}")
    if not os.path.isfile(path):
        raise FileNotFoundError(2, "No such file or directory", path)
    # Its directory is the one that HEPiX images mount it in.
    argv = ["/bin/sh", "-c", 'cd "${1%/*}" && . "$1" 2>&1', part, path]
    code, told = tool(argv, timeout_s=timeout_s)
    output = told[-OUTPUT_LONGEST:].decode("utf-8", "replace")
    return json.dumps({"code": code, "output": output}).encode()
