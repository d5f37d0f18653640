"""A run without the host service: with the caller's own templates, for the caller alone."""

from __future__ import annotations

from mayfly.cli.output import Progress
from mayfly.config import Paths
from mayfly.engine.jobs import Job, Steps
from mayfly.engine.oneshot import run_one
from mayfly.engine.process import namespaces_work
from mayfly.images.catalogue import check
from mayfly.images.catalogue.usage import mark_used
from mayfly.model import Outcome
from mayfly.wiring import catalogue_of, engine_for, load


def run_alone(job: Job, *, network_asked: bool, progress: Progress, steps: Steps) -> Outcome:
    """Run it here; raises what the site's rules refuse."""
    paths, settings = load()
    if paths.has_rules():
        from mayfly.cli.permitted import permitted  # noqa: PLC0415 - most have none

        job = permitted(paths, job, network_asked=network_asked, note=progress.warn)
    image = catalogue_of(paths).find(job.spec.image)
    check(image)
    mark_used(image)
    engine, verdict = engine_for(paths, settings)
    if verdict.accelerator == "tcg" and settings.accelerator == "auto":
        _say_once(paths, progress, f"machines are emulated, slower than with KVM: {verdict.reason}")
    if not namespaces_work():
        progress.note("QEMU is not shut in, user namespaces are off: see 'mayfly doctor'")
    return run_one(engine, image, job, steps)


def _say_once(paths: Paths, progress: Progress, text: str) -> None:
    """Print a notice the first time only: it is about the host, not about this run."""
    mark = paths.cache / "probe" / "told-emulation"
    if not mark.exists():
        progress.note(text)
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
