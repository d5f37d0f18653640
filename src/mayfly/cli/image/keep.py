"""``mayfly image pin|unpin|prune``: which images stay."""

from __future__ import annotations

import time
from dataclasses import asdict

import click

from mayfly.cli.image.group import explaining, image, own_catalogue
from mayfly.cli.output import print_json, print_table
from mayfly.errors import Missing
from mayfly.images.catalogue import keeping
from mayfly.images.catalogue.keeping import Held, evict, held_images, to_evict
from mayfly.units import parse_duration, parse_size, show_duration, show_size
from mayfly.wiring import image_users, load

HEAD = ("NAME", "SIZE", "LAST USED", "")


@image.command("pin")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@explaining
def pin_image(names: tuple[str, ...]) -> None:
    """Keep images, however long they are not used."""
    for name in names:
        keeping.pin(own_catalogue(), name)


@image.command("unpin")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@explaining
def unpin_image(names: tuple[str, ...]) -> None:
    """Let images go again when room is short."""
    for name in names:
        keeping.unpin(own_catalogue(), name)


@image.command(
    "prune",
    epilog="""\b
Examples:
  mayfly image prune --unused-for 30d
  mayfly image prune --to 100G --dry-run

\b
Only images that were pulled can go, the least recently used first; never one that is
pinned, that a template, a standby or a machine refers to, or that was used within the
last hour. Without --to, the setting image_quota counts.
""",
)
@click.option("--to", "goal", metavar="SIZE", help="Until the images take no more than this.")
@click.option("--unused-for", metavar="DURATION", help="Only images not used for so long.")
@click.option(
    "--dry-run", is_flag=True, help="Remove nothing: show what would go, what stays, why."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@explaining
def prune_images(
    goal: str | None, unused_for: str | None, dry_run: bool, as_json: bool, yes: bool
) -> None:
    """Remove pulled images that nobody has used for long."""
    paths, settings = load()
    goal = goal or settings.image_quota or None
    if goal is None and unused_for is None:
        raise click.UsageError("say how far: --to SIZE, --unused-for DURATION or both")
    now = time.time()
    held = held_images(own_catalogue(), image_users(paths))
    gone = to_evict(
        held,
        now=now,
        most_bytes=parse_size(goal) if goal else None,
        unused_s=parse_duration(unused_for) if unused_for else 0.0,
    )
    if dry_run:
        _show(held, gone, now, as_json=as_json)
        return
    if gone and not yes and not click.confirm(f"Delete {_named(gone)}?"):
        click.get_current_context().exit(1)
    done = evict(own_catalogue(), gone)
    if as_json:
        print_json([_as_json(each, done, now) for each in held])
    elif done:
        click.echo(f"removed {_named(done)}")
    if left := [each for each in gone if each not in done]:
        raise Missing(
            f"{_named(left)} could not be removed", hint="somebody works on them: try again later"
        )


def _named(images: list[Held]) -> str:
    size = show_size(sum(each.size_bytes for each in images))
    return f"{', '.join(each.name for each in images)} ({size})"


def _show(held: list[Held], gone: list[Held], now: float, *, as_json: bool) -> None:
    ordered = sorted(held, key=lambda each: each.used_at)
    if as_json:
        print_json([_as_json(each, gone, now) for each in ordered])
        return
    rows = [
        (
            each.name,
            show_size(each.size_bytes),
            f"{show_duration(max(0.0, now - each.used_at))} ago",
            "would go" if each in gone else each.why_kept(now) or "fits",
        )
        for each in ordered
    ]
    print_table(HEAD, rows)


def _as_json(each: Held, gone: list[Held], now: float) -> dict[str, object]:
    return {**asdict(each), "gone": each in gone, "kept_because": each.why_kept(now)}
