"""Layers on top of each other: what stays, what goes, and that nothing leaves the tree."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.errors import Invalid, Quota
from mayfly.images.container.tar import Tar
from mayfly.images.container.tree import Kind, Limits, Tree
from tests.unit.images.container.making import Entry, hard_link, layer, symlink

FEW = Limits(members=50)


def tree_of(*layers: tuple[Entry, ...], limits: Limits = FEW) -> Tree:
    tree = Tree(limits)
    for number, entries in enumerate(layers):
        for count, member in enumerate(Tar(io.BytesIO(layer(*entries)))):
            tree.apply(member, layer=number, number=count)
    return tree


def paths(tree: Tree) -> set[str]:
    found = {id(tree.root): ""}
    names = set()
    for directory, name, node in tree.nodes():
        path = f"{found[id(directory)]}/{name.decode()}"
        found[id(node)] = path
        names.add(path)
    return names


def file(name: str) -> Entry:
    return Entry(name=name, data=name.encode())


MERGES = [
    # a file is replaced by a directory, and the other way round
    ([(file("a"),), (Entry(name="a/"), file("a/b"))], {"/a", "/a/b"}),
    ([(file("a/b"),), (file("a"),)], {"/a"}),
    # a whiteout removes a file, a directory, or nothing
    ([(file("d/a"), file("d/b")), (file("d/.wh.a"),)], {"/d", "/d/b"}),
    ([(file("d/e/a"),), (file("d/.wh.e"),)], {"/d"}),
    ([(file("a"),), (file("x/.wh.y"),)], {"/a"}),
    # what a layer brings itself stays, wherever its whiteouts stand
    (
        [(file("d/a"), file("d/e/b")), (file("d/c"), file("d/.wh..wh..opq"), file("d/e/f"))],
        {"/d", "/d/c", "/d/e", "/d/e/f"},
    ),
    ([(file("d/old"),), (file("d/new"), file(".wh.d"))], {"/d", "/d/new"}),
    ([(file("d/old"),), (file(".wh.d"), file("d/new"))], {"/d", "/d/new"}),
    # old marks of aufs mean nothing
    ([(file("a"), file(".wh..wh.plnk/x"), file(".wh..wh.aufs"))], {"/a"}),
]


@pytest.mark.parametrize(("layers", "expected"), MERGES)
def test_layers_are_merged(layers: list[tuple[Entry, ...]], expected: set[str]) -> None:
    assert paths(tree_of(*layers)) == expected


def test_links_are_followed_as_the_machine_would() -> None:
    tree = tree_of(
        (file("usr/lib/a"), symlink("lib", "usr/lib"), symlink("abs", "/usr/../../usr/lib")),
        (file("lib/b"), file("abs/c")),
    )
    assert {"/usr/lib/a", "/usr/lib/b", "/usr/lib/c"} <= paths(tree)
    assert tree.find(b"abs/b") is tree.find(b"usr/lib/b") is not None


def test_a_link_out_of_the_tree_ends_at_its_root() -> None:
    tree = tree_of((symlink("out", "../../../.."), file("out/etc/passwd"), file("out/.wh.x")))
    assert paths(tree) == {"/out", "/etc", "/etc/passwd"}


def test_a_directory_takes_the_place_of_a_link_or_file() -> None:
    tree = tree_of((symlink("a", "/b"), file("c")), (Entry(name="a/"), Entry(name="c/")))
    assert paths(tree) == {"/a", "/c"}
    assert all(node.kind is Kind.DIRECTORY for _, _, node in tree.nodes())


def test_hard_links_are_one_file() -> None:
    tree = tree_of((file("a"),), (hard_link("b", "a"), hard_link("c", "/b"), file(".wh.a")))
    assert paths(tree) == {"/a", "/b", "/c"}
    assert tree.find(b"b") is tree.find(b"c")


def test_devices_are_left_out_and_counted() -> None:
    disk = Entry(name="dev/sda", kind=tarfile.BLKTYPE)
    zero = Entry(name="dev/zero", kind=tarfile.CHRTYPE)
    pipe = Entry(name="pipe", kind=tarfile.FIFOTYPE)
    tree = tree_of((disk, zero, pipe))
    assert (paths(tree), tree.left_out) == ({"/dev", "/pipe"}, 2)


def test_owners_modes_and_capabilities_are_kept() -> None:
    pax = {"SCHILY.xattr.security.capability": "x", "SCHILY.xattr.user.note": "y"}
    tree = tree_of((Entry(name="a", mode=0o6755, owner=(7, 8), pax=pax),))
    node = tree.find(b"a")
    assert node is not None
    assert (node.mode, node.uid, node.gid) == (0o6755, 7, 8)
    assert node.xattrs == {b"security.capability": b"x"}


HOSTILE = [
    ((file("../etc/passwd"),), r"'\.\.' in its name"),
    ((file("a/../../b"),), r"'\.\.' in its name"),
    ((hard_link("a", "../../etc/passwd"),), r"'\.\.' in its name"),
    ((hard_link("a", "/etc/passwd"),), "which is no file"),
    ((Entry(name="d/"), hard_link("a", "d")), "which is no file"),
    ((file("d/.wh."),), "would remove"),
    ((file("d/.wh.."),), "would remove"),
    ((file("d/.wh..."),), "would remove"),
    ((symlink("a", "b"), symlink("b", "a"), file("a/c")), "too many links"),
    ((file("a"), file("a/b")), "beneath what is no directory"),
    ((file("n" * 256),), "too long"),
    ((symlink("a", "n" * 256), file("a/b")), "too long"),
    ((file("x/" * 2500 + "y"),), "too long"),
    ((symlink("a", ""),), "leads nowhere"),
    ((Entry(name="a", pax={"uid": str(1 << 32)}),), "beyond all numbers"),
]


@pytest.mark.parametrize(("entries", "said"), HOSTILE)
def test_what_is_hostile_is_refused(entries: tuple[Entry, ...], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        tree_of(entries)


@pytest.mark.parametrize(
    "entries", [tuple(file(str(n)) for n in range(51)), (file("a/" * 60 + "b"),)]
)
def test_too_many_files_are_refused(entries: tuple[Entry, ...]) -> None:
    with pytest.raises(Quota, match="more than 50 files"):
        tree_of(entries)


NAMES = st.lists(
    st.sampled_from(["a", "b", "l", ".wh.a", ".wh.b", ".wh..wh..opq"]), min_size=1, max_size=4
).map("/".join)
ENTRIES = st.one_of(
    NAMES.map(file),
    NAMES.map(lambda name: Entry(name=f"{name}/")),
    st.tuples(NAMES, st.sampled_from(["/a", "../b", "a/b", "..", "/"])).map(
        lambda pair: symlink(*pair)
    ),
    st.tuples(NAMES, NAMES).map(lambda pair: hard_link(*pair)),
)


@given(st.lists(st.lists(ENTRIES, max_size=6), max_size=3))
def test_whatever_the_layers_say_the_tree_is_a_tree(layers: list[list[Entry]]) -> None:
    try:
        tree = tree_of(*map(tuple, layers), limits=Limits(members=1000))
    except Invalid:
        return
    names = paths(tree)
    assert all(".." not in name.split("/") for name in names)
    assert len(names) == sum(1 for _ in tree.nodes())
