"""What a site may set for the server, in ``server.toml``; ``docs/reference/server-settings.md``."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from mayfly.errors import Invalid, Missing
from mayfly.site.quota import Amounts, Quotas
from mayfly.site.rules import DAY_S, Ladder
from mayfly.units import MIB, parse_duration, parse_size

SERVER_CONFIG = Path("/etc/mayfly/server.toml")


def _duration(value: object) -> float:
    if not isinstance(value, str):
        raise ValueError('must be a duration such as "8h"')
    return _ours(parse_duration, value)


def _memory(value: object) -> int:
    if not isinstance(value, str):
        raise ValueError('must be a size such as "4G"')
    return int(_ours(parse_size, value)) // MIB


def _ours(read: object, value: str) -> float:
    assert callable(read)
    try:
        return float(read(value))
    except Invalid as error:
        raise ValueError(error.message) from error


Duration = Annotated[float, BeforeValidator(_duration)]
"""Seconds, written as ``"8h"``."""
Memory = Annotated[int, BeforeValidator(_memory)]
"""MiB, written as ``"4G"``."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class LeaseSettings(_Section):
    """``[leases]``: how long, and what happens at the end."""

    default: Duration = 30 * DAY_S
    most: Duration = 30 * DAY_S
    remind: list[Duration] = Field(default=[7 * DAY_S, DAY_S, 3600.0])
    grace: Duration = 7 * DAY_S

    def ladder(self) -> Ladder:
        """Give them as the rules want them."""
        return Ladder(
            default_s=min(self.default, self.most),
            most_s=self.most,
            remind_s=tuple(sorted(self.remind, reverse=True)),
            grace_s=self.grace,
        )


class AmountSettings(_Section):
    """``[quota.user]`` and ``[quota.group]``; 0: no limit."""

    machines: int = Field(default=0, ge=0)
    cpus: int = Field(default=0, ge=0)
    memory: Memory = 0

    def amounts(self) -> Amounts:
        """Give them as the rules want them."""
        return Amounts(machines=self.machines, cpus=self.cpus, memory_mib=self.memory)


class QuotaSettings(_Section):
    """``[quota]``: of each user, of each group."""

    user: AmountSettings = AmountSettings(machines=20)
    group: AmountSettings = AmountSettings()

    def quotas(self) -> Quotas:
        """Give them as the rules want them."""
        return Quotas(user=self.user.amounts(), group=self.group.amounts())


class RoleSettings(_Section):
    """``[roles]``: names of users, or ``@GROUP``; group managers by the group that they manage."""

    operators: list[str] = []
    auditors: list[str] = []
    managers: dict[str, list[str]] = {}


class IssuerSettings(_Section):
    """``[[issuer]]``: whose tokens are believed (OpenID Connect; WLCG profile)."""

    url: str
    audience: str
    keys: Path = Field(strict=False)
    """A JWK set (RFC 7517) in a file: fetched by the site, so that the server needs no way out."""
    user_claim: str = "sub"
    groups_claim: str = "wlcg.groups"
    users: dict[str, str] = {}
    """Which local user each subject is; without an entry, the claim itself is the name."""


class Ec2TypeSettings(_Section):
    """A size that has a name in EC2's words."""

    cpus: int = Field(ge=1)
    memory: Memory


class Ec2Settings(_Section):
    """``[ec2]``: the EC2 query API, a process of its own."""

    listen: str = "127.0.0.1:8773"
    endpoint: str = ""
    """What clients are told to be its ``HOST:PORT``; empty: as ``listen``."""
    key_file: Path = Field(default=Path("/var/lib/mayfly/server/ec2.key"), strict=False)
    region: str = "site"
    types: dict[str, Ec2TypeSettings] = Field(
        default={
            "m1.small": Ec2TypeSettings(cpus=1, memory="1G"),  # type: ignore[arg-type]  # as in the file
            "m1.large": Ec2TypeSettings(cpus=2, memory="4G"),  # type: ignore[arg-type]  # as in the file
        },
        min_length=1,
    )


class WebSettings(_Section):
    """``[web]``: the web page."""

    url: str = Field(default="", pattern=r"^(https?://[A-Za-z0-9.:\[\]-]{1,200})?$")
    """Where browsers find it, past a front end; empty: at ``listen``."""


class ServerSettings(_Section):
    """All settings of the site server."""

    database: str = "sqlite:////var/lib/mayfly/server/site.db"
    socket: Path | None = Field(default=Path("/run/mayfly-server/server.sock"), strict=False)
    listen: str = ""
    """``ADDRESS:PORT``; empty: only the socket."""
    place: Literal["host", "fake"] = "host"
    host_socket: Path = Field(default=Path("/run/mayfly/host.sock"), strict=False)
    fake_directory: Path = Field(default=Path("/var/lib/mayfly/server/fake"), strict=False)
    interval: Duration = 5.0
    reminder: Path | None = Field(default=None, strict=False)
    """A program of the site that is called with an event, as JSON on standard input."""
    leases: LeaseSettings = LeaseSettings()
    quota: QuotaSettings = QuotaSettings()
    ec2: Ec2Settings = Ec2Settings()
    web: WebSettings = WebSettings()
    roles: RoleSettings = RoleSettings()
    issuer: list[IssuerSettings] = []

    def page_url(self) -> str:
        """Give where browsers find the web page; empty: nowhere."""
        return self.web.url or (f"http://{self.listen}" if self.listen else "")


def load_server_settings(file: Path | None) -> ServerSettings:
    """Read ``server.toml``; without a file, everything is at its default.

    Raises ``Missing`` when there is no such file, ``Invalid``, naming file and key, for what is
    unknown or wrong.
    """
    if file is None:
        return ServerSettings()
    try:
        values = tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError as error:
        raise Missing(f"there is no {file}", hint="the server also runs without one") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"{file} is not TOML: {error}") from error
    except OSError as error:
        raise Invalid(f"cannot read {file}: {error.strerror}") from error
    try:
        return ServerSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(each) for each in first["loc"])
        raise Invalid(f"{file}: '{key}': {first['msg']}") from error
