"""What a recipe puts into the tree, run by a real shell; and what is heard of it."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from mayfly.images.build.farm.blueprint import Blueprint, NewUser, PlacedFile, Script
from mayfly.images.build.farm.hearing import Hearing
from mayfly.images.build.farm.setup import hooks, pack_setup, runner
from mayfly.images.build.recipe import find_recipe

RECIPE = find_recipe("debian-12")


def of(**parts: object) -> Blueprint:
    return Blueprint(recipe=RECIPE, **parts)  # type: ignore[arg-type]  # tests know the fields


def test_the_tar_file_has_the_files_and_the_scripts() -> None:
    made = of(
        files=(PlacedFile(path="etc/motd", content=b"hello", mode=0o600),),
        scripts=(Script(name="a.sh", content=b"true"), Script(name="b.sh", content=b"false")),
    )
    with tarfile.open(fileobj=io.BytesIO(pack_setup(made))) as tar:
        names = {info.name: info.mode for info in tar}
        motd = tar.extractfile("etc/motd")
        assert motd is not None
        assert motd.read() == b"hello"
    assert names == {
        "etc/motd": 0o600,
        ".mayfly": 0o700,
        ".mayfly/run": 0o700,
        ".mayfly/1": 0o700,
        ".mayfly/2": 0o700,
    }


def test_the_same_recipe_is_packed_alike() -> None:
    made = of(scripts=(Script(name="a.sh", content=b"true"),))
    assert pack_setup(made) == pack_setup(made)


def test_hooks_hold_nothing_of_the_recipe() -> None:
    assert [hook.partition("=")[0] for hook in hooks("/x.tar")] == 3 * ["--customize-hook"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory in which the runner takes its own programs, and does nothing to this host."""
    for name in ("useradd", "groupadd", "chown"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho "{name} $*"\n[ "$1" != -h ] || [ "$3" != /bad ]\n')
        program.chmod(0o755)
    return tmp_path


def run(made: Blueprint, root: Path) -> tuple[int, list[str]]:
    for number, script in enumerate(made.scripts, start=1):
        (root / str(number)).write_bytes(script.content)
        (root / str(number)).chmod(0o755)
    text = runner(made).replace("/.mayfly/", f"{root}/")
    file = root / "run"
    file.write_text(text)
    environment = {"PATH": f"{root}:/usr/bin:/bin"}
    done = subprocess.run(
        ["/bin/sh", file], check=False, capture_output=True, text=True, env=environment
    )
    assert not done.stderr
    return done.returncode, done.stdout.splitlines()


def test_users_files_and_scripts_come_in_this_order(root: Path) -> None:
    made = of(
        users=(NewUser(name="jo", uid=1500, groups=("tools",), shell="/bin/sh"),),
        files=(PlacedFile(path="home/jo/it's", content=b"", owner="jo", group="jo"),),
        scripts=(Script(name="it's.sh", content=b"#!/bin/sh\necho done by $0"),),
    )
    code, lines = run(made, root)
    assert code == 0
    assert lines == [
        "groupadd -f tools",
        "useradd -m -s /bin/sh -u 1500 -G tools jo",
        "chown -h jo:jo /home/jo/it's",
        "mayfly-build: script 1/1 it's.sh",
        f"done by {root}/1",
        "mayfly-build: scripts done",
    ]


def test_a_script_without_its_first_line_is_one_for_sh(root: Path) -> None:
    code, lines = run(of(scripts=(Script(name="x", content=b"echo $((1 + 1)); cat"),)), root)
    assert (code, lines[1]) == (0, "2")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"echo first; echo last; exit 7", "script x: exit status 7"),
        (b"kill -9 $$", "script x: exit status 137"),
        (b"sleep 60", "script x: no end within 0.2 s"),
        (b"#!/nonexistent\n", "script x: exit status 127"),
    ],
)
def test_a_script_that_fails_ends_the_build_and_says_why(
    root: Path, content: bytes, why: str
) -> None:
    scripts = (Script(name="x", content=content), Script(name="y", content=b"touch ran"))
    code, lines = run(of(scripts=scripts, script_limit_s=0.2), root)
    said: list[str] = []
    hear = Hearing(lambda *_: None, said.append)
    for line in lines:
        hear(line)
    error = hear.failure()
    assert code == 1
    assert error is not None
    assert error.message.startswith(f"the recipe's {why}")
    if content.startswith(b"echo"):
        assert said == ["first", "last"]
        assert error.message.endswith("the last that it printed: last")


def test_a_file_for_somebody_who_is_not_there_ends_the_build(root: Path) -> None:
    code, lines = run(of(files=(PlacedFile(path="bad", content=b"", owner="jo"),)), root)
    assert (code, lines[-1]) == (1, "mayfly-build: failed: file /bad: no such owner")


def test_scripts_have_few_capabilities(root: Path) -> None:
    content = b"grep CapBnd /proc/self/status"
    _, lines = run(of(scripts=(Script(name="x", content=content),)), root)
    bound = int(lines[1].split()[1], 16)
    chroot, admin, module, mknod, ptrace = 18, 21, 16, 27, 19
    assert not any(bound >> number & 1 for number in (chroot, admin, module, mknod, ptrace))


def test_what_is_printed_between_scripts_is_progress() -> None:
    said: list[str] = []
    reported: list[tuple[str, float | None]] = []
    hear = Hearing(lambda *step: reported.append(step), said.append)
    for line in (
        "I: downloading packages with apt...",
        "mayfly-build: script 1/1 x",
        "I: a line of the script",
        "mayfly-build: scripts done",
        "I: cleaning package lists and apt cache...",
    ):
        hear(line)
    assert said == ["I: a line of the script"]
    assert reported == [("packages", 0.1), ("script 1/1 x", None), ("packages", 0.98)]
    assert hear.failure() is None
