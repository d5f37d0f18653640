"""``mayfly image test|verify``: whether an image does what it is for, and is what it was."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from mayfly.cli.image.group import explaining, image, own_catalogue, tidy_on_signals
from mayfly.cli.image.whereabouts import admission_of
from mayfly.cli.output import Progress, plain, print_json
from mayfly.config import Paths
from mayfly.engine.checks import Command, Said, run_commands
from mayfly.errors import TIME_LIMIT, Denied, Missing
from mayfly.images.build.farm.blueprint import Check
from mayfly.images.build.farm.manifest import find_manifest
from mayfly.images.build.farm.reader import read_blueprint
from mayfly.images.catalogue import check
from mayfly.images.catalogue.tested import OUTPUT_LONGEST, Result, Verdict, write_tests
from mayfly.images.catalogue.verify import verify
from mayfly.model import Image, Shape
from mayfly.units import MIB, parse_size, round_memory
from mayfly.wiring import engine_for, load

FAILED = 1


@image.command(
    "test",
    epilog="""\b
Examples:
  mayfly image test tools
  mayfly image test debian-12 --check 'python3 --version' --check 'test -d /srv'
  mayfly image test tools --recipe tools.toml --memory 1G --json

\b
Runs the checks of the image's recipe, all in one fresh machine without network,
and writes the result beside the image. Exit status 1: a check failed.
""",
)
@click.argument("name")
@click.option("--check", "more", multiple=True, metavar="COMMAND", help="A further check.")
@click.option(
    "--recipe", type=click.Path(path_type=Path), help="Take the checks of this recipe instead."
)
@click.option("--cpus", type=click.IntRange(1, 255), help="CPUs of the machine [default: 1].")
@click.option("--memory", metavar="SIZE", help="Memory, rounded up to 128M [default: 512M].")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
@explaining
def test(
    name: str,
    more: tuple[str, ...],
    recipe: Path | None,
    cpus: int | None,
    memory: str | None,
    as_json: bool,
) -> None:
    """Run an image's checks in a fresh machine, and record what came of it."""
    paths, settings = load()
    found = own_catalogue().find(name)
    check(found)
    if not found.disk.is_relative_to(paths.images):
        raise Denied(
            f"image '{name}' is not yours but the site's: the result could not be recorded",
            hint="ask whoever looks after this host",
        )
    checks = (*_checks(found, recipe), *(Check(name=text[:60], command=text) for text in more))
    if not checks:
        raise Missing(
            f"image '{name}' has no checks: its recipe has none",
            hint="write [[check]] into the recipe, or give --check COMMAND",
        )
    tidy_on_signals()
    size = parse_size(memory) if memory else settings.memory_mib * MIB
    shape = Shape(cpus=cpus or settings.cpus, memory_mib=round_memory(size))
    progress = Progress()
    engine, _ = engine_for(paths, settings)
    said = run_commands(engine, found, shape, [_command(each) for each in checks], progress)
    progress.clear()
    verdict = judge(found, checks, said)
    write_tests(found.disk.parent, verdict)
    _show(found, verdict, as_json=as_json)
    sys.exit(0 if verdict.passed else FAILED)


def _checks(found: Image, recipe: Path | None) -> tuple[Check, ...]:
    if recipe is not None:
        return read_blueprint(recipe).checks
    manifest = find_manifest(found.disk.parent)
    return manifest.checks if manifest is not None else ()


def _command(wanted: Check) -> Command:
    return Command(text=wanted.command, root=wanted.user == "root", limit_s=wanted.limit_s)


def judge(found: Image, checks: Sequence[Check], said: Sequence[Said]) -> Verdict:
    """Compare what was said with what was wanted."""
    results = (_result(wanted, each) for wanted, each in zip(checks, said, strict=True))
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Verdict(sha512=found.sha512, tested_at=now, results=tuple(results))


def _result(wanted: Check, said: Said) -> Result:
    why = said.reason
    if not why and said.code == TIME_LIMIT and wanted.code != TIME_LIMIT:
        why = f"no end within {wanted.limit_s:g} s"
    elif not why and said.code != wanted.code:
        why = f"exit status {said.code}, not {wanted.code}"
    elif not why and wanted.output not in said.output:
        why = f"its output does not have {wanted.output!r}"
    return Result(
        name=wanted.name,
        passed=not why,
        code=said.code,
        seconds=round(said.seconds, 3),
        output=said.output[-OUTPUT_LONGEST:],
        why=why,
    )


def _show(found: Image, verdict: Verdict, *, as_json: bool) -> None:
    if as_json:
        print_json({**asdict(verdict), "image": found.name, "passed": verdict.passed})
        return
    for each in verdict.results:
        word = "ok" if each.passed else "FAILED"
        click.echo(f"{word:7} {plain(each.name)} ({each.seconds:.1f} s)")
        if not each.passed:
            click.echo(f"        {plain(each.why)}")
            for line in each.output.splitlines()[-5:]:
                click.echo(f"        | {plain(line)}")
    click.echo(f"{found.name}: {verdict.summary}")


@image.command(
    "verify",
    epilog="""\b
Examples:
  mayfly image verify debian-12
  mayfly image verify debian-12@2026.1 --json
""",
)
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
@explaining
def verify_image(name: str, as_json: bool) -> None:
    """Hash an image's disk again, and say who vouches for it."""
    found = own_catalogue().find(name)
    progress = Progress()
    verify(found, lambda share: progress(f"{name}: hash the disk ({share:.0%})"))
    progress.clear()
    admission = admission_of(found, Paths.for_user())
    words = str(admission) if admission is not None else "no lists are subscribed here"
    if as_json:
        print_json(
            {
                "image": found.name,
                "pin": found.pin,
                "unchanged": True,
                "endorsed": admission is not None and admission.trusted,
                "detail": words,
            }
        )
        return
    click.echo(f"{found.pin}\nthe disk is the one that was admitted on {found.created_at[:10]}")
    click.echo(words)
