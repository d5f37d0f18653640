"""Container images become machine images, and run: also without a shell, and for old programs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mayfly.images.build.mirror import host_mirror
from mayfly.images.catalogue import Catalogue
from mayfly.images.container.kernel import kernel_kit
from mayfly.images.registry import Access, Registry, parse_reference
from mayfly.model import Image
from tests.conftest import BUILD_LIMIT_S, Cli
from tests.integration import registries
from tests.integration.cosigning import cosign, make_key
from tests.unit.images.container import making
from tests.unit.images.container.making import Entry, layer, symlink

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(BUILD_LIMIT_S),
    pytest.mark.skipif(shutil.which("busybox") is None, reason="needs busybox-static"),
]
RELEASE = b'ID=tiny\nVERSION_ID="1"\n'
# Asks for the time as programs linked with glibc before 2.14 do: by a call to a fixed address.
OLD_CODE = bytes.fromhex(
    "48c7c0000460ff"  # mov rax, 0xffffffffff600400
    "31ff"  # xor edi, edi
    "ffd0"  # call rax
    "483d00000060"  # cmp rax, 0x60000000: a time in 2021
    "b83c000000"  # mov eax, 60: exit
    "bf01000000"  # mov edi, 1
    "7c02"  # jl to the system call
    "31ff"  # xor edi, edi
    "0f05"  # syscall
)


def old_program() -> bytes:
    """Make a static ELF of these instructions."""
    start, base = 64 + 56, 0x400000
    size = start + len(OLD_CODE)
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + start, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return head + struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 4096) + OLD_CODE


def layers() -> list[bytes]:
    """Give a container of one static program under a few names: no shell, no init, no libraries."""
    busybox = Path(shutil.which("busybox") or "").read_bytes()
    names = ["cat", "chmod", "echo", "env", "id", "ls", "mount", "ps", "stat", "true"]
    lower = layer(
        Entry(name="bin/busybox", data=busybox, mode=0o755),
        *(symlink(f"bin/{name}", "busybox") for name in names),
        Entry(name="bin/old", data=old_program(), mode=0o755),
        Entry(name="gone", data=b"gone"),
    )
    return [lower, layer(Entry(name=".wh.gone"), Entry(name="etc/os-release", data=RELEASE))]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MAYFLY_HOME that has a kernel already."""
    top = tmp_path_factory.mktemp("home")
    kernel_kit(top / "cache", host_mirror(), report=lambda *told: None)
    return top


@pytest.fixture(scope="module")
def tiny(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    cli = Cli(home=home)
    file = making.docker_archive(tmp_path_factory.mktemp("archive") / "tiny.tar", layers())
    cli("image", "import", f"docker-archive:{file}", "--name", "tiny", timeout_s=120, check=True)
    yield cli
    for template in json.loads(cli("template", "list", "--json", check=True).stdout):
        cli("template", "remove", template["key"], check=True)


def found(cli: Cli, name: str) -> Image:
    images = cli.home / "state/images"
    return Catalogue(own=images, dirs=(images,)).find(name)


def ran(cli: Cli, image: str, *words: str) -> str:
    done = cli("run", "--no-workdir", image, "--", *words, timeout_s=400, check=True)
    return done.stdout.decode()


def test_a_container_of_one_program_runs_as_a_machine(tiny: Cli) -> None:
    assert ran(tiny, "tiny", "echo", "hi") == "hi\n"
    image = found(tiny, "tiny")
    assert (image.os, image.tags) == ("tiny 1", ("container",))
    assert len(image.endorsed_sha512) == 128
    assert any("kernel 6." in step for step in image.derived)
    words = json.loads((image.disk.parent / "container.json").read_text())
    assert words["entrypoint"] == ["/bin/false"]
    shown = tiny("image", "show", "tiny", check=True).stdout.decode().splitlines()
    assert "container_entrypoint: /bin/false" in shown
    assert "container_env:   PATH=/bin:/opt/x, GREETING=good day" in shown


def test_its_variables_are_there_and_who_runs_it_is_not_its_say(tiny: Cli) -> None:
    variables = ran(tiny, "tiny", "env").splitlines()
    assert {"PATH=/bin:/opt/x", "GREETING=good day"} <= set(variables)
    asked = tiny("run", "--no-workdir", "--env", "GREETING=hello", "tiny", "--", "env", check=True)
    assert "GREETING=hello" in asked.stdout.decode().splitlines()


def test_the_machine_has_what_a_program_expects(tiny: Cli) -> None:
    mounts = {line.split()[2]: line for line in ran(tiny, "tiny", "mount").splitlines()}
    assert {"/", "/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/run"} <= set(mounts)
    assert "ext4 (rw" in mounts["/"]
    files = ran(tiny, "tiny", "ls", "/", "/dev/fd/0", "/dev/null").split()
    assert {"tmp", "lib", "boot"} <= set(files)
    assert "gone" not in files
    assert "\n    1 " in ran(tiny, "tiny", "ps")


def test_programs_of_an_old_userland_run(tiny: Cli) -> None:
    assert ran(tiny, "tiny", "old") == ""


def test_the_same_program_dies_where_the_kernel_has_no_such_page(cli: Cli, tmp_path: Path) -> None:
    program = tmp_path / "old"
    program.write_bytes(old_program())
    program.chmod(0o755)
    assert cli("run", "debian-12", "--", "./old", cwd=tmp_path).returncode == 128 + 11


def other_disk(disk: Path, kind: str, place: Path) -> Path:
    """Make a disk of another kind of a qcow2, as other hypervisors have it."""
    form = "vmdk" if kind == "ova" else kind
    options = ["-o", "subformat=streamOptimized"] if form == "vmdk" else []
    file = place / f"tiny.{form}"
    words = ["-f", "qcow2", "-O", form, *options, str(disk), str(file)]
    subprocess.run(["qemu-img", "convert", *words], check=True)
    if kind != "ova":
        return file
    data = file.read_bytes()
    sums = f"SHA256(tiny.vmdk)= {hashlib.sha256(data).hexdigest()}\n".encode()
    packed = place / "tiny.ova"
    entries = {"tiny.ovf": b"<Envelope/>", "tiny.mf": sums, "tiny.vmdk": data}
    packed.write_bytes(layer(*(Entry(name=name, data=body) for name, body in entries.items())))
    return packed


@pytest.mark.parametrize("kind", ["vmdk", "vdi", "ova"])
def test_a_disk_of_another_hypervisor_runs(tiny: Cli, tmp_path: Path, kind: str) -> None:
    file = other_disk(found(tiny, "tiny").disk, kind, tmp_path)
    name = f"from-{kind}"
    tiny("image", "import", str(file), "--name", name, check=True)
    assert ran(tiny, name, "echo", f"from a {kind}") == f"from a {kind}\n"


@pytest.mark.skipif(shutil.which("mksquashfs") is None, reason="needs squashfs-tools")
def test_a_sif_becomes_an_image_and_runs(tiny: Cli, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("etc", "bin"):
        (tree / name).mkdir(parents=True)
    (tree / "etc/os-release").write_bytes(RELEASE)
    shutil.copy(shutil.which("busybox") or "", tree / "bin/busybox")
    (tree / "bin/echo").symlink_to("busybox")
    content = making.squashfs(tmp_path / "fs", tree).read_bytes()
    file = making.sif(tmp_path / "a.sif", content)
    tiny("image", "import", str(file), "--name", "from-sif", "--size", "1G", check=True)
    image = found(tiny, "from-sif")
    assert (image.os, image.source, image.disk_bytes) == ("tiny 1", "SIF a.sif", 1 << 30)
    assert ran(tiny, "from-sif", "/bin/echo", "from a SIF") == "from a SIF\n"


@pytest.mark.skipif(shutil.which("docker-registry") is None, reason="needs docker-registry")
@pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo")
def test_an_image_that_skopeo_pushed_to_a_registry_becomes_one(home: Path, tmp_path: Path) -> None:
    file = making.docker_archive(tmp_path / "tiny.tar", layers()[1:])
    with registries.running(tmp_path / "registry") as running:
        reference = f"docker://{running.host}/lab/tiny:1"
        words = ["skopeo", "copy", "--insecure-policy", "--dest-tls-verify=false"]
        source = f"docker-archive:{file}"
        subprocess.run([*words, source, reference], check=True, capture_output=True)
        cli = Cli(home=home)
        cli("image", "import", reference, "--name", "from-registry", "--size", "1G", check=True)
        refused = cli("image", "import", f"{reference}0", "--name", "other")
    image = found(Cli(home=home), "from-registry")
    assert image.os == "tiny 1"
    assert image.source.startswith(f"{reference} (manifest sha256:")
    assert refused.returncode == 4


def test_a_container_image_must_be_signed_where_the_site_has_a_key(
    make_cli: Callable[..., Cli], home: Path, tmp_path: Path
) -> None:
    file = making.docker_archive(tmp_path / "tiny.tar", layers()[1:])
    key = make_key(tmp_path / "key")
    (tmp_path / "site/cache").mkdir(parents=True)
    # The kernel that was fetched already.
    (tmp_path / "site/cache/kernels").symlink_to(home / "cache/kernels")
    site = make_cli(tmp_path / "site")
    with registries.running(tmp_path / "registry") as running:
        place = parse_reference(f"docker://{running.host}/lab/tiny:1")
        words = ["skopeo", "copy", "--insecure-policy", "--dest-tls-verify=false"]
        source = [f"docker-archive:{file}", f"docker://{place}"]
        subprocess.run([*words, *source], check=True, capture_output=True)
        site("trust", "registry", f"{running.host}/lab", "--key", str(key.public), check=True)
        wanted = ("image", "import", f"docker://{place}", "--name", "tiny", "--size", "1G")
        refused = site(*wanted)
        cosign(place, str(Registry(place, Access(logins=())).manifest().digest), key)
        site(*wanted, check=True)
    assert (refused.returncode, b"rule 'unsigned'" in refused.stderr) == (8, True)
    shown = site("trust", "show", "tiny", check=True).stdout.decode()
    assert f"trusted: registry key '{running.host.replace(':', '-')}-lab'" in shown


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_a_disk_that_is_full_while_the_files_are_written_is_told(
    make_cli: Callable[..., Cli],
    home: Path,
    tmp_path: Path,
    small_disk: Callable[[Path, str], None],
) -> None:
    """The kernel's modules alone do not fit, which nobody can know before they are unpacked."""
    small = tmp_path / "small"
    small_disk(small, "size=60m,mode=755")
    file = making.docker_archive(tmp_path / "tiny.tar", layers()[1:])
    cli = make_cli(home, TMPDIR=str(small))
    words = ("--name", "no-room", "--size", "1G")
    done = cli("image", "import", f"docker-archive:{file}", *words)
    assert done.returncode == 7, done.stderr
    assert b"No space left on device" in done.stderr
    assert b"TMPDIR moves the work" in done.stderr
    assert b"Traceback" not in done.stderr
    assert list(small.iterdir()) == []
    assert list((home / "state/images/.work").iterdir()) == []
    assert "no-room" not in cli("image", "list", check=True).stdout.decode()


def test_a_kill_in_the_middle_leaves_nothing_behind(home: Path, tmp_path: Path) -> None:
    cli = Cli(home=home)
    file = making.docker_archive(tmp_path / "tiny.tar", layers()[1:])
    source = f"docker-archive:{file}"
    child = cli.start("image", "import", source, "--name", "killed", "--size", "1G")
    assert child.stderr is not None
    for line in child.stderr:
        if b"file system" in line:
            break
    child.kill()
    child.communicate()
    assert "killed" not in cli("image", "list").stdout.decode()
    cli("image", "import", source, "--name", "killed", "--size", "1G", check=True)
    assert found(cli, "killed").os == "tiny 1"
    assert list((home / "state/images/.work").iterdir()) == []
