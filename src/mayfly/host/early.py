"""Asks the host service for a machine before the command line is read in full.

Reading it takes as long as the claim itself; so both are done at once. Only the plain cases are
understood here, and nothing is decided: when the request that follows from the whole command line
is another, or is for no service at all, this one is taken back, which costs a standby. Nothing is
imported but what is needed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from mayfly.errors import MayflyError
from mayfly.host import client
from mayfly.host.claiming import claim_request
from mayfly.units import MIB, parse_size, round_memory

VALUES = {
    "--cpus": "cpus",
    "--memory": "memory",
    "--network": "network",
    "--env": "",
    "--workdir": "",
    "--workdir-limit": "",
    "--for": "",
    "--status-file": "",
    "--job": "job",
}
"""Options with a value, and what of a request it decides."""
FLAGS = frozenset(
    {
        *("--root", "--no-workdir", "--sync-delete", "--keep-on-failure", "--timings"),
        *("--quiet", "-q", "-t", "-T"),
    }
)
NETWORKS = ("none", "open")
SITE_CONFIG = "/etc/mayfly/config.toml"


class Early:
    """A request that is under way."""

    def __init__(self, connection: client.Connection, fields: Mapping[str, Any]) -> None:
        self._connection: client.Connection | None = connection
        self._fields = dict(fields)

    def take(self, fields: Mapping[str, Any]) -> client.Connection | None:
        """Give the connection when this is what was asked for there; else take the request back."""
        connection, self._connection = self._connection, None
        if connection is not None and dict(fields) != self._fields:
            connection.close()
            return None
        return connection


def ask_early(words: Sequence[str], environ: Mapping[str, str] = os.environ) -> Early | None:
    """Ask for the machine of ``mayfly run WORDS``; None where that is not plain to see."""
    if any(name.startswith("MAYFLY_RUN_") for name in environ) or _is_configured(environ):
        return None
    fields = request_of(words)
    if fields is None:
        return None
    try:
        connection = client.connect(client.socket_path(environ))
        if connection is None:
            return None
        connection.ask("claim", fields)
    except MayflyError:
        # It will be seen again, by those who can say so.
        return None
    return Early(connection, fields)


def request_of(words: Sequence[str]) -> dict[str, Any] | None:
    """Give the fields of the claim for a plain command line; None for any other. Pure."""
    split = _split(words)
    if split is None:
        return None
    values, image, command = split
    try:
        cpus = int(values.get("cpus", "1"))
        memory_mib = round_memory(parse_size(values["memory"]) if "memory" in values else 512 * MIB)
    except (ValueError, MayflyError):
        return None
    network = values.get("network", "none")
    if not 0 < cpus < 256 or network not in NETWORKS or not command:
        return None
    job = values.get("job", "")
    granted = bool(job) and not values.keys() & {"cpus", "memory"}
    return claim_request(
        image=image,
        size=None if granted else (cpus, memory_mib),
        network=network,
        label=" ".join(command)[:200],
        job=job,
        root="root" in values,
    )


def _split(words: Sequence[str]) -> tuple[dict[str, str], str, list[str]] | None:
    values: dict[str, str] = {}
    plain: list[str] = []
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if word == "--":
            plain += rest
        elif name in VALUES and name.startswith("--"):
            value = value if equals else next(rest, "")
            if VALUES[name]:
                values[VALUES[name]] = value
        elif word == "--root":
            values["root"] = ""
        elif word.startswith("-") and word not in FLAGS:
            return None
        elif not word.startswith("-"):
            plain.append(word)
    return (values, plain[0], plain[1:]) if plain else None


def _is_configured(environ: Mapping[str, str]) -> bool:
    home = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", "/"), ".config")
    own = os.path.join(environ.get("MAYFLY_HOME") or os.path.join(home, "mayfly"), "config.toml")
    return os.path.exists(own) or os.path.exists(SITE_CONFIG)
