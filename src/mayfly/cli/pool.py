"""``mayfly pool``: workers on demand; what they would have cost for jobs that ran before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from mayfly.cli.output import Progress, plain, print_json, print_table
from mayfly.errors import Failed, Invalid
from mayfly.planner.site import Site, read_site
from mayfly.simulation.planned import Planned
from mayfly.simulation.plot import draw
from mayfly.simulation.run import Result, Scenario, simulate
from mayfly.simulation.trace import Trace, read_trace
from mayfly.units import parse_duration, show_duration

PERCENTS = (50, 95, 99)
REASONS_MOST = 12


@click.group(
    epilog="""\b
Examples:
  mayfly pool simulate jobs.swf --config site.toml
"""
)
def pool() -> None:
    """See what workers on demand cost, and how long jobs wait for them."""


@pool.command(
    name="simulate",
    epilog="""\b
Examples:
  mayfly pool simulate jobs.swf --config site.toml
  mayfly pool simulate jobs.swf.gz --config site.toml --plot pool.svg
  mayfly pool simulate jobs.swf --config site.toml --cycle 5m --json

\b
TRACE is a file in the Standard Workload Format, plain or gzipped. CPUs are counted;
memory, images and partitions of the jobs are not looked at.
""",
)
@click.argument("trace", type=click.Path(path_type=Path))
@click.option(
    "--config",
    required=True,
    type=click.Path(path_type=Path),
    help="The site's [pool] and [provider.NAME] tables.",
)
@click.option("--cycle", default="60s", help="Time between two decisions [default: 60s].")
@click.option("--seed", default=1, help="For interruptions by providers [default: 1].")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the pool into this SVG file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def simulate_command(
    trace: Path,
    config: Path,
    cycle: str,
    seed: int,
    plot: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run the jobs of TRACE on workers that the planner starts and gives back."""
    cycle_s = parse_duration(cycle)
    if not 1 <= cycle_s <= 86_400:
        raise Invalid(f"--cycle {cycle}: from 1s to 1d")
    site = read_site(config)
    progress = Progress(quiet=quiet)
    progress(f"reading {trace}")
    jobs = read_trace(trace)
    rules = replace(site.rules, cycle_s=cycle_s)
    planned = Planned(rules, budget=site.budget, window_s=site.window_s)
    scenario = Scenario(
        offers=site.offers,
        quotas=site.quotas,
        patience_s=site.patience_s,
        by_price=site.by_price,
        cycle_s=cycle_s,
        seed=seed,
    )
    result = simulate(
        jobs, scenario, planned, lambda part: progress(f"simulating ({part:.0%} of the jobs)")
    )
    progress.clear()
    if plot is not None:
        _write(plot, draw(result, f"{trace.name}: cost {result.cost:.2f}"))
    if as_json:
        print_json(_as_json(result, planned, jobs))
    else:
        _show(result, planned, jobs, site)


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text)
    except OSError as error:
        raise Failed(f"cannot write {file}: {error.strerror}") from error


def _figures(result: Result, jobs: Trace) -> dict[str, Any]:
    return {
        "cost": round(result.cost, 4),
        "jobs": len(result.waits),
        "impossible": result.impossible,
        "unfinished": result.unfinished,
        "dropped": jobs.dropped,
        "core_hours": round(result.core_hours, 3),
        "machine_hours": round(result.machine_hours, 3),
        "cost_per_core_hour": round(result.cost / result.core_hours, 6)
        if result.core_hours
        else None,
        **{f"wait_p{each}_s": round(result.wait_s(each), 1) for each in PERCENTS},
    }


def _offers(result: Result) -> list[dict[str, Any]]:
    return [
        {
            "offer": offer.name,
            "machines": total.machines,
            "machine_hours": round(total.held_s / 3600, 3),
            "used": round(total.used_core_s / (total.held_s * offer.shape.cpus), 4)
            if total.held_s
            else None,
            "interrupted": total.taken,
            "lost_core_hours": round(total.lost_core_s / 3600, 3),
            "cost": round(total.cost, 4),
        }
        for offer, total in zip(result.offers, result.totals, strict=True)
    ]


def _as_json(result: Result, planned: Planned, jobs: Trace) -> dict[str, Any]:
    return {
        **_figures(result, jobs),
        "offers": _offers(result),
        "reasons": dict(planned.reasons),
        "compared": [
            {"offer": each.offer, "cost": each.cost, "why": each.why}
            for each in (planned.chosen.compared if planned.chosen else ())
        ],
    }


def _show(result: Result, planned: Planned, jobs: Trace, site: Site) -> None:
    figures = _figures(result, jobs)
    waits = ", ".join(f"{each} % of them {_wait(result, each)}" for each in PERCENTS)
    click.echo(f"{figures['jobs']} jobs, {result.core_hours:.1f} core-hours; wait at most: {waits}")
    each = f" ({result.cost / result.core_hours:.4f} a core-hour)" if result.core_hours else ""
    click.echo(f"cost {result.cost:.2f}{each}, {result.machine_hours:.1f} machine-hours\n")
    head = ("OFFER", "MACHINES", "HOURS", "USED", "INTERRUPTED", "COST")
    print_table(head, [_row(row) for row in _offers(result)])
    click.echo("\nWhat was done, and why:")
    for reason, count in planned.reasons.most_common(REASONS_MOST):
        click.echo(f"{count:8}  {plain(reason)}")
    if planned.chosen:
        click.echo("\nHow offers were weighed at the last start, by cost of a useful core-hour:")
        for one in planned.chosen.compared:
            cost = "refused" if one.cost is None else f"{one.cost:.4f}"
            click.echo(f"{cost:>8}  {plain(one.offer)}: {plain(one.why)}")
    if result.impossible:
        most = max(offer.shape.cpus for offer in site.offers)
        click.echo(f"\n{result.impossible} jobs can never run: no offer has more than {most} CPUs")
    if result.unfinished:
        click.echo(f"\n{result.unfinished} jobs had not run when nothing moved any more")


def _wait(result: Result, percent: int) -> str:
    return show_duration(result.wait_s(percent))


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    used = "-" if row["used"] is None else f"{row['used']:.0%}"
    hours = f"{row['machine_hours']:.1f}"
    taken, cost = str(row["interrupted"]), f"{row['cost']:.2f}"
    return plain(row["offer"]), str(row["machines"]), hours, used, taken, cost
