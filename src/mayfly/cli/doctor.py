"""``mayfly doctor``: what this host can do, what is missing, and what mends it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict

import click

from mayfly.cli.output import Progress, print_json
from mayfly.config import Paths, Settings
from mayfly.engine.findings import look_at_host
from mayfly.engine.kvm import choose_accelerator
from mayfly.engine.network.attach import check_network
from mayfly.engine.probe import probe_qemu
from mayfly.errors import MayflyError
from mayfly.images.build.needs import boot_loader, subordinate_ids
from mayfly.model import Finding
from mayfly.wiring import catalogue_of, kernels, lacks, load


@click.command(
    epilog="""\b
Examples:
  mayfly doctor
  mayfly doctor --json | jq '.[] | select(.ok | not)'

\b
Exit status: 0 when machines can run here, 1 when something that they need is missing.
"""
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def doctor(as_json: bool) -> None:
    """Say what this host can do, what is missing, and the exact command that mends it."""
    paths, settings = load()
    findings = list(_findings(paths, settings))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        _print(findings)
    sys.exit(0 if all(finding.ok or not finding.needed for finding in findings) else 1)


def _findings(paths: Paths, settings: Settings) -> Iterator[Finding]:
    yield from _engine(paths, settings)
    yield from look_at_host(paths)
    yield boot_loader()
    yield from subordinate_ids()
    yield from check_network()
    names = [image.name for image in catalogue_of(paths).list()]
    yield Finding(
        name="images",
        ok=bool(names),
        detail=", ".join(names) or "none yet",
        mend="mayfly image build debian-12",
        needed=False,
    )


def _engine(paths: Paths, settings: Settings) -> Iterator[Finding]:
    install = "apt-get install qemu-system-x86"
    try:
        qemu = probe_qemu(settings, paths.cache)
    except MayflyError as error:
        yield Finding(name="QEMU", ok=False, detail=error.message, mend=error.hint or install)
        return
    lacking = lacks(qemu)
    yield Finding(
        name="QEMU",
        ok=not lacking,
        detail=f"{qemu.root}{qemu.path} {qemu.version}, {qemu.machine_type}"
        + (f"; lacks {', '.join(lacking)}" if lacking else ""),
        mend=install,
    )
    progress = Progress()
    progress("trying whether KVM boots a guest (up to 25 s)")
    verdict = choose_accelerator(qemu, settings, paths.cache, kernels(paths), fresh=True)
    progress.clear()
    yield Finding(
        name="KVM",
        ok=verdict.accelerator == "kvm",
        detail=verdict.reason if verdict.accelerator == "kvm" else f"emulation: {verdict.reason}",
        mend=verdict.mend,
        needed=False,
    )


def _print(findings: list[Finding]) -> None:
    for finding in findings:
        mark = "ok  " if finding.ok else ("FAIL" if finding.needed else "--  ")
        click.echo(f"{mark}  {finding.name:18}  {finding.detail}")
        if not finding.ok and finding.mend:
            click.echo(f"{'':26}-> {finding.mend}")
    broken = [finding.name for finding in findings if finding.needed and not finding.ok]
    click.echo()
    if broken:
        click.echo(f"Machines cannot run here yet: {', '.join(broken)}.")
    else:
        click.echo("Machines can run here. Lines with -- say what works less well, or not at all.")
