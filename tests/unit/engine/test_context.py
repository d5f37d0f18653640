"""A site's files for an image: found, judged, and put where those look who know them."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from mayfly.engine.agentdisk import agent_disk
from mayfly.engine.context import Context, find_context, read_context
from mayfly.errors import Invalid, MayflyError, Untrusted

META = "instance-id: ours\nlocal-hostname: localhost\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "context" / "el9"
    made.mkdir(parents=True)
    return made


def of(**files: bytes) -> Context:
    named = {name.replace("_", "-").replace("-sh", ".sh"): text for name, text in files.items()}
    return Context(directory=Path("/x"), files=named)


def test_an_image_without_a_context_has_none(tmp_path: Path, directory: Path) -> None:
    del directory
    assert find_context((tmp_path / "context",), "debian-12") is None
    assert find_context((tmp_path / "nowhere",), "el9") is None


def test_the_last_directory_wins_and_versions_share_one(tmp_path: Path, directory: Path) -> None:
    (directory / "prolog.sh").write_text("true")
    own = tmp_path / "own"
    found = find_context((directory.parent, own), "el9@2026.1")
    assert found is not None
    assert found.files == {"prolog.sh": b"true"}
    (own / "el9").mkdir(parents=True)
    other = find_context((directory.parent, own), "el9")
    assert other is not None
    assert other.directory == own / "el9"
    assert other.digest != found.digest


def test_each_byte_and_each_name_counts(directory: Path) -> None:
    digests = set()
    for name, text in (("a", "x"), ("a", "y"), ("b", "y"), ("a", "yb 1\nz")):
        for file in directory.iterdir():
            file.unlink()
        (directory / name).write_text(text)
        digests.add(read_context(directory).digest)
    assert len(digests) == 4
    (directory / ".hidden").write_text("an editor's")
    (directory / "a~").write_text("an editor's")
    assert read_context(directory).digest in digests


@pytest.mark.parametrize("name", ["start", "bin", "vendor-data", "network-config", "a b", "ä"])
def test_names_that_are_the_disks_own_are_refused(directory: Path, name: str) -> None:
    (directory / name).write_text("x")
    with pytest.raises(Invalid, match="no file of a context"):
        read_context(directory)


def test_what_is_no_plain_file_is_refused(directory: Path) -> None:
    os.mkfifo(directory / "pipe")
    with pytest.raises(Invalid, match="pipe is not a file"):
        read_context(directory)
    (directory / "pipe").unlink()
    (directory / "sub").mkdir()
    with pytest.raises(MayflyError):
        read_context(directory)
    (directory / "sub").rmdir()
    (directory / "link").symlink_to("nowhere")
    with pytest.raises(Invalid, match="cannot read"):
        read_context(directory)


def test_too_much_is_refused(directory: Path) -> None:
    (directory / "big").write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(Invalid, match="more than 1048576 bytes"):
        read_context(directory)
    (directory / "big").unlink()
    (directory / "ec2-user-data").write_bytes(bytes((16 << 10) + 1))
    with pytest.raises(Invalid, match="more than 16384 bytes"):
        read_context(directory)
    (directory / "ec2-user-data").unlink()
    for number in range(65):
        (directory / f"f{number}").touch()
    with pytest.raises(Invalid, match="65 files"):
        read_context(directory)


def test_what_others_could_have_written_is_refused(directory: Path) -> None:
    (directory / "prolog.sh").write_text("true")
    (directory / "prolog.sh").chmod(0o666)
    with pytest.raises(Untrusted, match=r"prolog\.sh can be written by others"):
        read_context(directory)
    (directory / "prolog.sh").chmod(0o644)
    directory.chmod(0o777)
    with pytest.raises(Untrusted, match="can be written by others"):
        read_context(directory)


def test_two_sources_of_one_file_are_refused(directory: Path) -> None:
    (directory / "ec2-user-data").write_text("x")
    (directory / "context.sh").write_text("y")
    with pytest.raises(Invalid, match="both ec2-user-data and context"):
        read_context(directory)


def test_the_parts_stand_where_cloud_init_looks() -> None:
    made = of(user_data=b"#cloud-config\n", meta_data=b"instance-id: theirs\nsite: lab\n")
    disk = made.on_disk(META)
    assert disk["vendor-data"] == b"#cloud-config\n"
    assert "user-data" not in disk
    assert disk["meta-data"].decode() == META + "site: lab\n"


def test_cernvm_gets_its_variables() -> None:
    disk = of(ec2_user_data=b"[amiconfig]\nplugins=x\n").on_disk(META)
    text = disk["context.sh"].decode()
    done = subprocess.run(
        ["/bin/sh", "-c", '. "$0"; echo "$ONE_CONTEXT_PATH"; echo "$EC2_USER_DATA"', "/dev/stdin"],
        input=text.encode(),
        capture_output=True,
        check=True,
    )
    path, data = done.stdout.decode().split()
    assert path == "/var/lib/amiconfig"
    assert base64.b64decode(data) == b"[amiconfig]\nplugins=x\n"


def test_scripts_are_ours_to_run_unless_the_image_does() -> None:
    both = of(prolog_sh=b"", epilog_sh=b"")
    assert both.scripts() == ("prolog.sh", "epilog.sh")
    assert of(epilog_sh=b"").scripts() == ("epilog.sh",)
    native = of(prolog_sh=b"", run_by_image=b"")
    assert native.scripts() == ()
    assert list(native.on_disk(META)) == ["prolog.sh"]


@pytest.mark.skipif(shutil.which("xorriso") is None, reason="xorriso is not installed")
def test_the_agent_disk_has_them_and_another_disk_has_not(tmp_path: Path) -> None:
    context = of(user_data=b"#cloud-config\n", prolog_sh=b"echo hello\n")
    disk = agent_disk(tmp_path / "cache", context)
    plain = agent_disk(tmp_path / "cache")
    assert disk != plain
    assert agent_disk(tmp_path / "cache", context) == disk
    names = {}
    for number, each in enumerate((disk, plain)):
        tree = tmp_path / f"tree-{number}"
        words = ["xorriso", "-osirrox", "on", "-indev", str(each), "-extract", "/", str(tree)]
        subprocess.run(words, check=True, capture_output=True)
        names[each] = {path.name for path in tree.iterdir()}
        assert "mayfly.guest.agent" in (tree / "start").read_text()
    assert names[disk] - names[plain] == {"vendor-data", "prolog.sh"}
    meta = (tmp_path / "tree-0" / "meta-data").read_text()
    assert meta.startswith(f"instance-id: mayfly-{context.digest[:16]}\n")
    assert (tmp_path / "tree-0" / "user-data").read_text() == (
        tmp_path / "tree-1" / "user-data"
    ).read_text()
