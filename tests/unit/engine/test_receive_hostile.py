"""The work directory on its way back from a hostile machine: nothing outside is ever touched."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mayfly.engine.session.openat import Refused
from mayfly.engine.session.place import check_link
from mayfly.engine.session.snapshot import Seen
from mayfly.guest.tree import TreeError, Type
from tests.unit.engine.receiving import Receiving, entry, file, link


@pytest.fixture(params=[False, True], ids=["openat2", "by steps"])
def here(request: pytest.FixtureRequest, tmp_path: Path) -> Receiving:
    return Receiving(tmp_path, walk=request.param)


PATHS = {
    "up": "../canary/file",
    "up inside": "a/../../canary/file",
    "absolute": "/tmp/mayfly-was-here",
    "two slashes": "//tmp/mayfly-was-here",
    "dot": "./file",
    "dot only": ".",
    "empty component": "a//b",
    "slash at the end": "a/",
    "NUL": "a\0b",
    "top": "",
    "long name": "x" * 300,
    "long name in bytes": "\u20ac" * 86,
    "long path": "/".join(["x" * 200] * 30),
    "deep": "/".join("x" * 600),
    "surrogates": "\udc2e\udc2e/canary/file",
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_paths_that_are_refused(here: Receiving, path: str) -> None:
    if path.startswith("\udc2e"):
        # What cannot be a name at all is no entry: U+DC2E stands for no byte of a name.
        with pytest.raises(TreeError):
            here.receive(file(path))
        return
    said = here.receive(
        file(path), entry(Type.DIRECTORY, path) if path else b"", link(path, "x"), file("good")
    )
    assert "refused from the machine" in said[0]
    assert os.listdir(here.path) == ["good"]
    here.assert_contained()
    assert not os.path.lexists("/tmp/mayfly-was-here")


LINKS = {
    "up": ("out", "../canary"),
    "up by far": ("out", "../../../../../etc"),
    "absolute": ("out", "/etc/passwd"),
    "up from a directory": ("dir/out", "../../canary"),
    "after a name": ("out", "dir/../../canary"),
    "after a link": ("out", "dir/up/../canary"),
    "dots between": ("out", "./.././canary"),
    "slashes between": ("out", "..//canary"),
    "nothing": ("out", ""),
    "NUL": ("out", "a\0b"),
    "proc": ("out", "/proc/self/root/etc"),
}


@pytest.mark.parametrize(("path", "target"), LINKS.values(), ids=LINKS)
def test_links_that_lead_out_are_refused(here: Receiving, path: str, target: str) -> None:
    said = here.receive(
        entry(Type.DIRECTORY, "dir"), link("dir/up", ".."), link(path, target), file(f"{path}/file")
    )
    assert "refused from the machine" in said[0]
    assert not os.path.islink(here.path / path)
    here.assert_contained()


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("a", "b"),
        ("a", "dir/b"),
        ("dir/a", "../b"),
        ("dir/deep/a", "../../b"),
        ("dir/a", ".."),
        ("a", "."),
        ("a", "./b/./c"),
        ("a", "..."),
    ],
)
def test_links_that_stay_inside_are_made(here: Receiving, path: str, target: str) -> None:
    (here.path / "dir/deep").mkdir(parents=True)
    assert here.receive(link(path, target)) == ()
    assert os.readlink(here.path / path) == target
    here.assert_contained()


def test_link_of_the_user_may_come_back_but_not_its_like(here: Receiving) -> None:
    (here.path / "mine").symlink_to("/etc/hostname")
    said = here.receive(
        link("mine", "/etc/hostname"), link("mine", "/etc/shadow"), link("other", "/etc/hostname")
    )
    assert os.readlink(here.path / "mine") == "/etc/hostname"
    assert sorted(os.listdir(here.path)) == ["mine"]
    why = "(a link to an absolute path)"
    assert said == (f"refused from the machine: mine {why}, other {why}",)


def test_write_through_a_link_that_came_before(here: Receiving) -> None:
    said = here.receive(
        entry(Type.DIRECTORY, "sub"),
        link("dir", "sub"),
        file("dir/file"),
        entry(Type.DIRECTORY, "dir/more"),
        link("dir/link", "x"),
        entry(Type.DELETED, "dir/file"),
        sync_delete=True,
    )
    assert sorted(os.listdir(here.path)) == ["dir", "sub"]
    assert os.listdir(here.path / "sub") == []
    assert "Too many levels" in said[0] or "Not a directory" in said[0]
    here.assert_contained()


@pytest.mark.parametrize("target", ["../canary", "/etc", "."])
def test_write_through_a_link_of_the_user(here: Receiving, target: str) -> None:
    (here.path / "link").symlink_to(target)
    here.receive(
        file("link/file"),
        link("link/link", "x"),
        entry(Type.DIRECTORY, "link/new/deep"),
        entry(Type.DIRECTORY, "link/more"),
        entry(Type.DELETED, "link/file"),
        sync_delete=True,
    )
    assert os.readlink(here.path / "link") == target
    here.assert_contained()


def test_file_in_place_of_a_link_of_the_user_replaces_the_link(here: Receiving) -> None:
    (here.path / "link").symlink_to("../canary/file")
    assert here.receive(file("link", b"evil")) == ()
    assert (here.path / "link").read_bytes() == b"evil"
    assert not (here.path / "link").is_symlink()
    here.assert_contained()


def test_directory_in_place_of_a_link_of_the_user(here: Receiving) -> None:
    (here.path / "link").symlink_to("../canary")
    here.receive(entry(Type.DIRECTORY, "link", mode=0o777), file("link/file", b"evil"))
    assert (here.path / "link/file").read_bytes() == b"evil"
    here.assert_contained()


def swap_file(here: Receiving) -> None:
    (here.path / "dir/file").unlink()
    (here.path / "dir/file").symlink_to("../../canary/file")


def swap_directory(here: Receiving) -> None:
    (here.path / "dir").rename(here.path / "moved")
    (here.path / "dir").symlink_to("../canary")


@pytest.mark.parametrize("swap", [swap_file, swap_directory])
@pytest.mark.parametrize("at", [0, 30, 2500])
def test_link_that_a_process_here_swaps_in(
    here: Receiving, swap: Callable[[Receiving], None], at: int
) -> None:
    (here.path / "dir").mkdir()
    (here.path / "dir/file").write_bytes(b"old")
    taking = here.begin(sync_delete=True)
    stream = file("dir/file", b"x" * 5000) + file("dir/other") + entry(Type.DELETED, "dir/file")
    here.feed(taking, stream[:at])
    swap(here)
    here.feed(taking, stream[at:])
    taking.close()
    here.assert_contained()


def test_deep_tree(here: Receiving) -> None:
    names = ["d" * 20] * 150
    steps = [entry(Type.DIRECTORY, "/".join(names[:depth])) for depth in range(1, 150)]
    assert here.receive(*steps, file("/".join(names))) == ()
    here.assert_contained()
    shutil.rmtree(here.path)


def test_directories_that_were_not_announced_are_not_made(here: Receiving) -> None:
    """They would not count against the limit on files."""
    said = here.receive(
        file("a/b/c"), entry(Type.DIRECTORY, "d/e"), link("f/g", "x"), entry(Type.DIRECTORY, "h")
    )
    assert os.listdir(here.path) == ["h"]
    assert said[0].startswith("could not be written here: a/b/c (No such file or directory)")


def test_things_that_never_come(here: Receiving) -> None:
    said = here.receive(entry(Type.FIFO, "pipe"), file("suid", mode=0o6777))
    assert said == ("refused from the machine: pipe (a FIFO)",)
    assert os.stat(here.path / "suid").st_mode & 0o7777 == 0o777
    here.assert_contained()


def test_huge_sizes(here: Receiving) -> None:
    said = here.receive(file("big", b"x", size=(1 << 62) - 1), end=False)
    assert "over the limit" in said[0]
    assert os.listdir(here.path) == []
    with pytest.raises(TreeError):
        here.begin().feed(b"\0\0\0\x3b" + b'["f","big",420,' + b"9" * 30 + b',0,""]' + b" " * 8)


def test_many_warnings_are_few_lines(here: Receiving) -> None:
    said = here.receive(
        *(entry(Type.FIFO, f"f{number}") for number in range(5000)), limit_files=100_000
    )
    assert len(said) == 1
    assert len(said[0]) < 300
    assert said[0].endswith("and 4995 more")


def test_notes_without_end_are_cut_off(here: Receiving) -> None:
    taking = here.begin(limit_files=10)
    here.feed(taking, *[entry(Type.NOTE, "x", target="y")] * 12_000)
    assert taking.overrun
    taking.close()


# --- long headers --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Type.DIRECTORY, Type.FILE, Type.FIFO, Type.DELETED])
def test_target_of_what_has_none_is_not_taken(here: Receiving, kind: Type) -> None:
    with pytest.raises(TreeError):
        here.receive(entry(kind, "a", target="x" * 60_000))


LONG_NAMES = {
    "many bytes": ["y" * 200, "z" * 200, "x" * 200],
    "wide in memory": ["x" * 190 + "\U0001f600"],
}


@pytest.mark.parametrize("names", LONG_NAMES.values(), ids=LONG_NAMES)
def test_long_paths_count_against_the_limit(here: Receiving, names: list[str]) -> None:
    above = "/".join(names[:-1])
    (here.path / above).mkdir(parents=True, exist_ok=True)
    paths = [f"{'/'.join(names)}{number}" for number in range(9)]
    said = here.receive(*(entry(Type.DIRECTORY, path) for path in paths), limit_bytes=700)
    assert 0 < len(os.listdir(here.path / above)) < 9
    assert len(said) == 1
    assert said[0].startswith("not copied back, over the limit (--workdir-limit): ")


def test_usual_paths_are_free(here: Receiving) -> None:
    directories = [entry(Type.DIRECTORY, f"{'d' * 120}{number}") for number in range(200)]
    empty = [file(f"f{number}", b"") for number in range(200)]
    assert here.receive(*directories, *empty, limit_bytes=0) == ()


@pytest.mark.parametrize("kind", [Type.NOTE, Type.LINK])
def test_long_targets_are_cut_off(
    here: Receiving, monkeypatch: pytest.MonkeyPatch, kind: Type
) -> None:
    monkeypatch.setattr("mayfly.engine.session.receive.SKIP_LIMIT", 200_000)
    taking = here.begin(limit_bytes=100_000)
    here.feed(taking, *[entry(kind, "x", target="y" * 60_000)] * 10)
    assert taking.overrun
    assert taking.entries < 10
    taking.close()


# --- anything at all -----------------------------------------------------------------------------

names = st.sampled_from(
    ["a", "b", "link", "out", "dir", "..", ".", "", "canary", "file", "x" * 256, "\udcff", "\0"]
)
paths = st.lists(names, max_size=4).map("/".join)
targets = st.one_of(paths, st.just("../canary/file"), st.just("/etc/passwd"), st.just("../../x"))
modes = st.integers(0, 0o177777)
entries = st.one_of(
    st.builds(
        lambda path, text, mode: file(path, text, mode=mode), paths, st.binary(max_size=9), modes
    ),
    st.builds(lambda path, mode: entry(Type.DIRECTORY, path, mode=mode), paths, modes),
    st.builds(link, paths, targets),
    st.builds(
        entry,
        st.sampled_from([Type.DELETED, Type.FIFO, Type.NOTE]),
        paths,
    ),
    st.builds(lambda path, size: file(path, b"", size=size), paths, st.integers(0, 100)),
)
changes = st.sampled_from(["", "", "", "a", "link", "dir", "file"])


@settings(max_examples=120, deadline=None)
@given(st.lists(st.tuples(entries, changes), max_size=12), st.binary(max_size=20), st.booleans())
def test_nothing_outside_is_ever_touched(
    stream: list[tuple[bytes, str]], rest: bytes, walk: bool
) -> None:
    with tempfile.TemporaryDirectory() as top:
        here = Receiving(Path(top), walk=walk)
        (here.path / "dir").mkdir()
        (here.path / "dir/file").write_bytes(b"mine")
        (here.path / "file").write_bytes(b"mine")
        (here.path / "out").symlink_to("../canary")
        (here.path / "link").symlink_to("dir")
        taking = here.begin(sync_delete=True, limit_files=20, limit_bytes=100)
        try:
            for piece, change in stream:
                here.feed(taking, piece)
                meddle(here, change)
            here.feed(taking, rest)
        except TreeError:
            pass
        taking.close()
        os.chmod(here.path, 0o700)
        here.assert_contained()


def meddle(here: Receiving, name: str) -> None:
    """Be a process of the user that changes things at the worst moment."""
    place = here.path / name
    if name and os.path.lexists(place):
        taken = set(os.listdir(here.path))
        free = (f"{name}-moved-{number}" for number in range(len(taken) + 1))
        place.rename(here.path / next(each for each in free if each not in taken))
        place.symlink_to("../canary")


@given(paths, targets)
def test_links_that_are_made_resolve_inside(path: str, target: str) -> None:
    """Whatever directories the names stand for: only the start of a target can climb."""
    depth = path.count("/")
    try:
        check_link(path, target, {"known": Seen(type=Type.LINK, target="/etc/passwd")})
    except Refused:
        return
    for step in target.split("/"):
        depth += {"..": -1, "": 0, ".": 0}.get(step, 1)
        assert depth >= 0
    climbs = [step for step in target.split("/") if step not in {"", "."}]
    assert ".." not in climbs[climbs.count("..") :]
