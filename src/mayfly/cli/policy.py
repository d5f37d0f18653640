"""``mayfly policy``: who may run what, and by which line."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from mayfly.cli.output import plain, print_json
from mayfly.config import Paths
from mayfly.errors import Invalid, Missing
from mayfly.host.permission import Gate, gate_of
from mayfly.model import NetworkMode
from mayfly.policy.explain import advise
from mayfly.policy.explain import explain as explained
from mayfly.policy.model import Allow, Ask, Decision, Default, Deny, Limits, Policy, Rule, Wish
from mayfly.policy.people import Person
from mayfly.policy.reader import read_policy
from mayfly.units import MIB, parse_duration, parse_size, show_duration, show_size
from mayfly.wiring import catalogue_of


@click.group(
    epilog="""\b
Examples:
  mayfly policy show
  mayfly policy check /root/new-policy.toml
  mayfly policy explain --image el7
  mayfly policy explain --user alice --image el7 --network open --root
"""
)
def policy() -> None:
    """Show and explain who may run what; the policy is /etc/mayfly/policy.toml."""


# --- show ----------------------------------------------------------------------------------------


@policy.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def show(as_json: bool) -> None:
    """Show the policy that holds on this host, with the line of each rule."""
    gate = gate_of(Paths.for_user())
    found = gate.policy()
    if as_json:
        print_json(_plain(asdict(found)))
        return
    if not gate.has_policy:
        click.echo(f"there is no {gate.policy_file}: what is built in holds")
    for where, text in _lines(found):
        click.echo(f"{where}  {plain(text)}")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _lines(found: Policy) -> list[tuple[str, str]]:
    need = "need a list that vouches for them" if found.endorsed else "need no list"
    lines = [(found.endorsed_line, f"images {need}")]
    lines.append((found.line, f"machines whose image is taken back: {found.revoked.value}"))
    lines += [(each.rule.line, f"deny   {_deny(each)}") for each in found.deny]
    lines += [(each.rule.line, f"allow  {_allow(each)}") for each in found.allow]
    lines += [(each.line, f"default {_default(each)}") for each in found.default]
    lines += [
        (each.line, f"end of life of {each.pattern}: {each.ends_on or 'never'}")
        for each in found.end_of_life
    ]
    return [(str(line), text) for line, text in lines]


def _rule(rule: Rule) -> str:
    parts = [f"{', '.join(map(str, rule.who))}: {', '.join(rule.images)}"]
    parts += [f"of list {', '.join(rule.lists)}"] if rule.lists else []
    parts += [f"endorsed by {', '.join(rule.endorsers)}"] if rule.endorsers else []
    return " ".join(parts)


def _allow(allow: Allow) -> str:
    what = [f"network {'/'.join(each.value for each in allow.networks)}"]
    what += ["root"] if allow.root else ["no root"]
    what += [] if allow.shares else ["no shares"]
    what += ["images of users"] if allow.user_images else []
    what += _limits(allow.limits)
    return f"{_rule(allow.rule)} ({'; '.join(what)})"


def _limits(limits: Limits) -> list[str]:
    said = [f"{limits.machines} machines"] if limits.machines else []
    said += [f"{limits.cpus} CPUs"] if limits.cpus else []
    said += [show_size(limits.memory_mib * MIB)] if limits.memory_mib else []
    return said + ([show_duration(limits.time_s)] if limits.time_s else [])


def _deny(deny: Deny) -> str:
    return _rule(deny.rule) + (f" ({deny.why})" if deny.why else "")


def _default(default: Default) -> str:
    canary = f", {default.canary_percent} % {default.canary}" if default.canary else ""
    who = ", ".join(map(str, default.who))
    return f"{who}: {default.mode.value} {default.image}{canary}".rstrip()


# --- check ---------------------------------------------------------------------------------------


@policy.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
def check(file: Path | None) -> None:
    """Say what is wrong with a policy, or most likely not meant: exit status 1.

    FILE is one that is still to be put in place [default: the one that holds].
    """
    place = file or Paths.for_user().policy_file
    found = advise(read_policy(place))
    for each in found:
        click.echo(plain(str(each)))
    if found:
        click.get_current_context().exit(1)
    click.echo(f"{place}: nothing is wrong with it")


# --- explain -------------------------------------------------------------------------------------


@policy.command(
    epilog="""\b
Examples:
  mayfly policy explain                                   # the default image, if any
  mayfly policy explain --image el7 --network open
  mayfly policy explain --user alice --queue short --json

\b
Exit status 3: it is denied.
"""
)
@click.option("--user", default="", help="Whose wish it is [default: yours].")
@click.option("--group", "groups", multiple=True, help="Instead of the user's own. Repeatable.")
@click.option("--queue", default="", help="Queue of the batch system.")
@click.option("--role", "roles", multiple=True, help="Such as /cms/Role=production. Repeatable.")
@click.option("--image", default="", help="The image that is asked for [default: none].")
@click.option("--machine", is_flag=True, help="A machine is asked for, whichever image.")
@click.option(
    "--network", type=click.Choice([each.value for each in NetworkMode]), help="[default: none]"
)
@click.option("--root", is_flag=True, help="As root.")
@click.option("--share", is_flag=True, help="With a directory of the host.")
@click.option("--cpus", default=1, help="CPUs [default: 1].")
@click.option("--memory", default="0", help="Memory, such as 4G.")
@click.option("--for", "time_limit", default="0", help="Time, such as 8h.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def explain(**typed: Any) -> None:
    """Say what somebody gets, and by which line of the policy."""
    paths = Paths.for_user()
    gate = gate_of(paths)
    person, wish = _person(typed), _wish(typed)
    now = datetime.now(UTC)
    decision = gate.decision(person, wish, catalogue_of(paths), now)
    trust = _trust(gate, paths, decision.image or wish.image, now)
    if typed["as_json"]:
        print_json(_as_json(decision, trust))
    else:
        click.echo(plain(explained(person, wish, decision)))
        for line in [trust] if trust else []:
            click.echo(f"  {plain(line)}")
    if not decision.allowed:
        click.get_current_context().exit(3)


def _person(typed: dict[str, Any]) -> Person:
    name = typed["user"]
    try:
        entry = pwd.getpwnam(name) if name else pwd.getpwuid(os.geteuid())
        name, gid = entry.pw_name, entry.pw_gid
        own = tuple(_group(number) for number in os.getgrouplist(name, gid))
    except KeyError as error:
        if not name:
            name, own = f"user{os.geteuid()}", tuple(_group(each) for each in os.getgroups())
        elif typed["groups"]:
            own = ()
        else:
            raise Missing(
                f"this host knows no user '{name}'", hint="--group says whose rights are meant"
            ) from error
    return Person(
        user=name,
        groups=typed["groups"] or tuple(dict.fromkeys(own)),
        queue=typed["queue"],
        roles=typed["roles"],
    )


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return f"group{number}"


def _wish(typed: dict[str, Any]) -> Wish:
    ask = Ask.IMAGE if typed["image"] else Ask.MACHINE if typed["machine"] else Ask.NOTHING
    if typed["image"] and typed["machine"]:
        raise click.UsageError("--image and --machine exclude each other")
    if not 0 < typed["cpus"] < 256:
        raise Invalid(f"--cpus {typed['cpus']}: from 1 to 255")
    return Wish(
        ask=ask,
        image=typed["image"],
        network=NetworkMode(typed["network"] or NetworkMode.NONE.value),
        network_asked=typed["network"] is not None,
        root=typed["root"],
        shares=typed["share"],
        cpus=typed["cpus"],
        memory_mib=parse_size(typed["memory"]) // MIB,
        time_s=parse_duration(typed["time_limit"]),
    )


def _trust(gate: Gate, paths: Paths, name: str, now: datetime) -> str:
    """Say who vouches for the image."""
    try:
        return str(gate.admission(catalogue_of(paths).find(name), now)) if name else ""
    except (Missing, Invalid):
        return ""


def _as_json(decision: Decision, trust: str) -> dict[str, Any]:
    return {
        "allowed": decision.allowed,
        "image": decision.image,
        "network": decision.network.value,
        "root": decision.root,
        "shares": decision.shares,
        "limits": asdict(decision.limits),
        "reasons": [
            {"file": each.line.file, "line": each.line.number, "text": each.text}
            for each in decision.reasons
        ],
        "trust": trust,
    }
