"""Build an image for real, boot it once under emulation, and look at it from inside."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mayfly.errors import Quota
from mayfly.images.build.builder import make_file_system
from mayfly.images.build.disk import Layout
from mayfly.images.build.scratch import scratch
from mayfly.images.catalogue import Catalogue, check
from mayfly.model import Image
from mayfly.units import GIB
from tests.conftest import BUILD_LIMIT_S, Cli
from tests.integration.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(BUILD_LIMIT_S)]

BOOT_LIMIT_S = 240

# Run by the stub of the image, as the agent would be; it answers on a port of its own, since a
# login prompt hangs up the serial line for whoever else has it open.
START = """\
#!/bin/sh
say() { echo "$1 [$2]"; }
facts() {
    say state "$(systemctl is-system-running --wait)"
    say modules "$(for name in virtio_console isofs fuse; do
        grep -q "^$name " /proc/modules && printf '%s ' $name; done)"
    say interfaces "$(ls /sys/class/net | tr '\\n' ' ')"
    say root "$(grep ' / ' /proc/mounts | cut -d ' ' -f 1,3)"
    say root-password "$(getent shadow root | cut -d : -f 2)"
    say host-keys "$(ls /etc/ssh 2>/dev/null)"
    say timers "$(systemctl list-units --type timer --state active --no-legend)"
    say package-lists "$(ls /var/lib/apt/lists | grep -c _Packages)"
    say sources "$(grep -c '^deb http' /etc/apt/sources.list)"
    say hostname "$(hostname)"
    say locale "$LANG"
    say end
}
answer() {
    until [ -e /dev/virtio-ports/org.mayfly.facts ]; do sleep 0.2; done
    facts > /dev/virtio-ports/org.mayfly.facts
}
answer < /dev/null > /dev/null 2>&1 &
"""


def agent_disk(tmp_path: Path) -> Path:
    """Make a disk like the one that carries the agent, with our own questions on it."""
    tree = tmp_path / "agent"
    tree.mkdir()
    (tree / "start").write_text(START)
    (tree / "start").chmod(0o755)
    target = tmp_path / "agent.iso"
    words = ["xorriso", "-as", "mkisofs", "-quiet", "-R", "-V", "cidata", "-o", str(target)]
    subprocess.run([*words, str(tree)], check=True, capture_output=True)
    return target


@contextmanager
def booted(image: Image, agent: Path, tmp_path: Path) -> Iterator[Path]:
    """Boot a layer over the image; give the file that the answers are written to."""
    layer, facts = tmp_path / "layer.qcow2", tmp_path / "facts"
    words = ["-f", "qcow2", "-b", str(image.disk), "-F", "qcow2", str(layer)]
    subprocess.run(["qemu-img", "create", "-q", *words], check=True)
    machine = ["-nodefaults", "-no-user-config", "-accel", "tcg", "-M", "q35", "-m", "512"]
    disks = [
        *("-drive", f"file={layer},if=none,id=root,format=qcow2"),
        *("-device", "virtio-blk-pci,drive=root"),
        *("-drive", f"file={agent},if=none,id=agent,format=raw,readonly=on"),
        *("-device", "virtio-blk-pci,drive=agent,serial=mayfly-agent"),
    ]
    ports = [
        *("-nic", "user,model=virtio,restrict=on"),
        *("-chardev", f"file,id=facts,path={facts}"),
        *("-device", "virtio-serial-pci"),
        *("-device", "virtserialport,chardev=facts,name=org.mayfly.facts"),
        *("-display", "none", "-serial", f"file:{tmp_path / 'console'}"),
    ]
    argv = ["qemu-system-x86_64", *machine, *disks, *ports]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL) as qemu:
        try:
            yield facts
        finally:
            qemu.kill()


def facts_in(text: str) -> dict[str, str]:
    """Read what the questions brought."""
    pairs = [line.partition(" ") for line in text.splitlines()]
    return {key: value.strip("[]").strip() for key, _, value in pairs}


def test_debian_12_is_built_and_boots(cold_cli: Cli, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir(mode=0o755)
    cli = Cli(home=cold_cli.home, env={"TMPDIR": str(scratch)})
    done = cli("image", "build", "debian-12", timeout_s=BUILD_LIMIT_S, check=True)
    steps = done.stderr.decode().splitlines()
    assert steps[0] == "mayfly: debian-12: install packages"
    assert steps[-1] == "mayfly: try it: mayfly run debian-12 -- uname -a"
    assert list(scratch.iterdir()) == []
    images = cold_cli.home / "state" / "images"
    made = Catalogue(own=images, dirs=(images,)).find("debian-12")
    check(made)
    assert made.size_bytes < 600 << 20
    with booted(made, agent_disk(tmp_path), tmp_path) as facts:
        console = tmp_path / "console"
        wait_until(
            lambda: facts.exists() and b"\nend [" in facts.read_bytes(),
            "the answers from inside",
            limit_s=BOOT_LIMIT_S,
        )
        wait_until(
            lambda: b"localhost login:" in console.read_bytes(), "a login prompt", limit_s=60
        )
    assert facts_in(facts.read_text()) == {
        "state": "running",
        "modules": "virtio_console isofs fuse",
        "interfaces": "eth0 lo",
        "root": "/dev/vda1 ext4",
        "root-password": "*",
        "host-keys": "",
        "timers": "",
        "package-lists": "3",
        "sources": "3",
        "hostname": "localhost",
        "locale": "C.UTF-8",
        "end": "",
    }


def test_an_interrupted_build_leaves_nothing(cold_cli: Cli, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir(mode=0o755)
    cli = Cli(home=cold_cli.home, env={"TMPDIR": str(scratch)})
    with cli.start("image", "build", "debian-12") as build:
        wait_until(lambda: bool(list(scratch.glob("*/tree/etc/apt"))), "the tree", limit_s=60)
        build.send_signal(signal.SIGINT)
        begun = time.monotonic()
        assert build.wait(60) == 130
    assert time.monotonic() - begun < 30
    assert list(scratch.iterdir()) == []
    assert list((cold_cli.home / "state/images/.work").iterdir()) == []
    assert cold_cli("image", "list", check=True).stdout.splitlines()[1:] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_a_build_without_room_does_not_begin(cold_cli: Cli, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(small)], check=True)
    try:
        cli = Cli(home=cold_cli.home, env={"TMPDIR": str(small)})
        done = cli("image", "build", "debian-12", timeout_s=60)
        assert done.returncode == 7
        assert "has 200 MiB free, and about 1.2 GiB are needed" in done.stderr.decode()
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_a_disk_that_is_full_while_the_file_system_is_made_is_told(
    tmp_path: Path, small_disk: Callable[[Path, str], None]
) -> None:
    """The tree has come into being, and is no smaller in its ext4."""
    small = tmp_path / "small"
    small_disk(small, "size=60m,mode=755")
    layout = Layout(disk_bytes=GIB, disk_id=b"abcd", uuid=str(uuid.uuid4()))
    with scratch(small) as place:
        (place.tree / "large").write_bytes(os.urandom(50 << 20))
        with pytest.raises(Quota, match="ran out of disk space") as caught:
            make_file_system(place.private / "disk.raw", layout, place, 1_577_836_800)
        assert "TMPDIR" in caught.value.hint
    assert list(small.iterdir()) == []
