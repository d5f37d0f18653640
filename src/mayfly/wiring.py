"""The one place that puts the parts together from configuration."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import replace
from pathlib import Path

from mayfly.config import Paths, Settings, load_settings
from mayfly.engine.kvm import Verdict, choose_accelerator
from mayfly.engine.probe import Qemu, probe_qemu
from mayfly.engine.records import list_records
from mayfly.engine.template import META, Engine
from mayfly.errors import Failed
from mayfly.host.settings import HostSettings, check_uids_apart
from mayfly.images.catalogue import Catalogue


def load() -> tuple[Paths, Settings]:
    """Give the directories and settings of the calling user."""
    paths = Paths.for_user()
    return paths, load_settings(paths.config_files)


def catalogue_of(paths: Paths) -> Catalogue:
    """Give the images that the calling user can run."""
    return Catalogue(own=paths.images, dirs=paths.image_dirs)


def engine_for(paths: Paths, settings: Settings) -> tuple[Engine, Verdict]:
    """Give what machines are made with on this host, asking QEMU and KVM when that is new.

    Raises ``Missing`` without QEMU, ``Failed`` when it lacks what a machine needs.
    """
    qemu = probe_qemu(settings, paths.cache)
    lacking = lacks(qemu)
    if lacking:
        raise Failed(
            f"{qemu.root}{qemu.path} {qemu.version} lacks {', '.join(lacking)}",
            hint="any QEMU from 7.2 with the q35 machine will do; 'mayfly doctor' says more",
        )
    verdict = choose_accelerator(qemu, settings, paths.cache, kernels(paths))
    engine = Engine(paths=paths, settings=settings, qemu=qemu, accelerator=verdict.accelerator)
    return engine, verdict


def host_engine(paths: Paths, settings: Settings, host: HostSettings) -> Engine:
    """Give what the host service makes machines with: its own directories and uids."""
    check_uids_apart(host, settings)
    engine, _ = engine_for(paths, settings)
    own = replace(paths, state=host.state)
    return replace(engine, paths=own, settings=replace(settings, uid_first=host.uid_first))


def lacks(qemu: Qemu) -> list[str]:
    """Give what a QEMU must have for machines and has not."""
    found = {
        "a versioned q35 machine": bool(qemu.machine_type),
        "an accelerator (kvm or tcg)": qemu.has_kvm or qemu.has_tcg,
        "the migration capability x-ignore-shared": qemu.has_ignore_shared,
        "the option -sandbox": qemu.has_sandbox,
    }
    return [name for name, there in found.items() if not there] + list(qemu.missing)


def kernels(paths: Paths) -> list[Path]:
    """Give the Linux kernels on this host that a tiny guest could boot."""
    beside = [kernel for top in paths.image_dirs for kernel in sorted(top.glob("*/vmlinuz"))]
    return [*beside, *sorted(Path("/boot").glob("vmlinuz*"))]


def image_users(paths: Paths) -> dict[str, str]:
    """Say of each image that a template or a machine of this user refers to, which one that is.

    Root's are also those of the host service, standbys among them.
    """
    found: dict[str, str] = {}
    for meta in paths.templates.glob("[!.]*/" + META):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            found[str(json.loads(meta.read_text())["image"])] = f"template {meta.parent.name[:12]}"
    states = (paths.state, HostSettings().state)
    for state in states if os.geteuid() == 0 else states[:1]:
        for record in list_records(replace(paths, state=state).machines):
            found[record.image] = f"machine {record.id}"
    return found
