"""Container images are found in layouts, archives and SIFs; what is wrong with one is said."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.errors import Invalid, MayflyError, Missing, Untrusted
from mayfly.images.container import sif
from mayfly.images.container.archive import opened_archive
from mayfly.images.container.contents import Contents
from mayfly.images.container.layout import opened_layout
from mayfly.images.container.oci import parse_config, parse_index, parse_manifest
from mayfly.images.container.siffile import opened_sif
from mayfly.images.follow import silent
from mayfly.images.sources import parse_named
from tests.unit.images.container import making
from tests.unit.images.container.making import Entry, config, digest, layer, named, platform

LAYERS = [layer(Entry(name="a", data=b"a")), layer(Entry(name="b", data=b"b"))]
INDEX = "application/vnd.oci.image.index.v1+json"


def archive_of(file: Path, tag: str = "") -> AbstractContextManager[Contents]:
    work = file.parent / "work"
    work.mkdir(exist_ok=True)
    return opened_archive(file, tag, work, report=silent)


def read(contents: Contents) -> list[bytes]:
    return [os.pread(part.fd, part.size, part.offset) for part in contents.layers]


# --- an OCI layout -------------------------------------------------------------------------------


def test_the_image_in_a_layout_is_found(tmp_path: Path) -> None:
    packed = [gzip.compress(each) for each in LAYERS]
    top = making.layout(tmp_path / "oci", making.manifest(tmp_path / "oci", LAYERS, packed))
    with opened_layout(top, "") as found:
        assert read(found) == packed
        assert [part.digest for part in found.layers] == list(map(digest, packed))
        assert [part.unpacked_digest for part in found.layers] == list(map(digest, LAYERS))
        assert found.config is not None
        assert found.config.env == ("PATH=/bin:/opt/x", "GREETING=good day")
        assert found.config.entrypoint == ("/bin/false",)
        assert found.source.startswith("oci:oci (manifest sha256:")


def test_a_list_of_images_is_searched_for_our_kind_of_machine(tmp_path: Path) -> None:
    top = tmp_path / "oci"
    ours, other = making.manifest(top, LAYERS), making.manifest(top, LAYERS[:1])
    nothing = {**other, "platform": {"os": "unknown", "architecture": "unknown"}}
    inner = [platform(other, "arm64"), nothing, platform(ours, "amd64")]
    index = making.blob(top, json.dumps({"schemaVersion": 2, "manifests": inner}).encode())
    making.layout(top, {**index, "mediaType": INDEX})
    with opened_layout(top, "") as found:
        assert read(found) == LAYERS


def test_what_is_for_other_machines_is_refused_with_what_there_is(tmp_path: Path) -> None:
    top = tmp_path / "oci"
    one = making.manifest(top, LAYERS)
    making.layout(top, platform(one, "arm64"), platform(one, "s390x"))
    with pytest.raises(Invalid, match="no image for linux/amd64") as caught, opened_layout(top, ""):
        pass
    assert caught.value.hint == "it has: linux/arm64, linux/s390x"


def test_a_tag_chooses(tmp_path: Path) -> None:
    top = tmp_path / "oci"
    one, two = making.manifest(top, LAYERS), making.manifest(top, LAYERS[:1])
    making.layout(top, named(one, "v1"), named(two, "v2"))
    with opened_layout(top, "v2") as found:
        assert read(found) == LAYERS[:1]
    with pytest.raises(Invalid, match="several images") as several, opened_layout(top, ""):
        pass
    assert "v1, v2" in several.value.hint
    with pytest.raises(Missing, match="no image with the tag 'v3'"), opened_layout(top, "v3"):
        pass


def damage_blob(top: Path) -> None:
    for file in (top / "blobs/sha256").iterdir():
        if b"schemaVersion" in file.read_bytes():
            file.write_bytes(file.read_bytes().replace(b"2", b"3", 1))


def shorten_layer(top: Path) -> None:
    file = top / "blobs/sha256" / digest(LAYERS[0])[7:]
    os.truncate(file, 100)


def fifo_layer(top: Path) -> None:
    file = top / "blobs/sha256" / digest(LAYERS[0])[7:]
    file.unlink()
    os.mkfifo(file)


def drop_layer(top: Path) -> None:
    (top / "blobs/sha256" / digest(LAYERS[0])[7:]).unlink()


DAMAGES: list[tuple[Callable[[Path], object], type[MayflyError], str]] = [
    (damage_blob, Untrusted, "not what its digest says"),
    (shorten_layer, Invalid, "are announced"),
    (fifo_layer, Invalid, "not a file"),
    (drop_layer, Missing, "there is no file"),
    (lambda top: (top / "oci-layout").unlink(), Missing, "oci-layout"),
    (lambda top: (top / "index.json").write_text("[]"), Invalid, "not a JSON object"),
    (lambda top: (top / "index.json").write_text("[" * 100_000), Invalid, "not JSON"),
    (lambda top: os.truncate(top / "index.json", 5 << 20), Invalid, "too large"),
]


@pytest.mark.parametrize(("damage", "kind", "said"), DAMAGES)
def test_a_damaged_layout_is_refused(
    damage: Callable[[Path], object], kind: type[MayflyError], said: str, tmp_path: Path
) -> None:
    top = making.layout(tmp_path / "oci", making.manifest(tmp_path / "oci", LAYERS))
    damage(top)
    with pytest.raises(kind, match=said), opened_layout(top, ""):
        pass


BLOB = {"digest": "sha256:" + "a" * 64, "size": 5, "mediaType": "application/x.tar"}
MANIFEST: dict[str, Any] = {"schemaVersion": 2, "config": BLOB, "layers": [BLOB]}
BAD_MANIFESTS = [
    ({**MANIFEST, "schemaVersion": 1}, "schema version 1"),
    ({**MANIFEST, "layers": []}, "0 layers"),
    ({**MANIFEST, "layers": [BLOB] * 513}, "513 layers"),
    ({**MANIFEST, "layers": {}}, "no list"),
    ({**MANIFEST, "layers": [7]}, "no object"),
    ({**MANIFEST, "layers": [{**BLOB, "size": -1}]}, "a size is"),
    ({**MANIFEST, "layers": [{**BLOB, "size": True}]}, "a size is"),
    ({**MANIFEST, "layers": [{**BLOB, "digest": "sha256:../../../etc/shadow"}]}, "not a digest"),
    ({**MANIFEST, "layers": [{**BLOB, "mediaType": "application/x+encrypted.tar"}]}, "cannot be"),
    ({**MANIFEST, "layers": [{**BLOB, "mediaType": "application/qcow2"}]}, "cannot be read"),
    ({**MANIFEST, "config": None}, "no object"),
]


@pytest.mark.parametrize(("value", "said"), BAD_MANIFESTS)
def test_a_bad_manifest_is_refused(value: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        parse_manifest(json.dumps(value).encode(), "the manifest")


BAD_CONFIGS = [
    ({"architecture": "arm64"}, "for linux/arm64"),
    ({"os": "windows"}, "for windows/amd64"),
    ({"rootfs": {}}, "no list"),
    ({"rootfs": {"diff_ids": ["sha256:x", "y"]}}, "not a digest"),
    ({"rootfs": {"diff_ids": []}}, "speaks of 0 layers"),
    ({"config": {"Env": "PATH=/bin"}}, "no list of texts"),
    ({"config": {"Env": ["A=" + "x" * (300 << 10)]}}, "too long"),
    ({"config": [1]}, "damaged at 'config'"),
]


@pytest.mark.parametrize(("changes", "said"), BAD_CONFIGS)
def test_a_bad_configuration_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        parse_config(config(LAYERS, **changes), 2)


def test_what_is_no_variable_is_left_out() -> None:
    given_env = ["A=1", "B", "=c", "D=\0", "E=\ud800", "F=a=b"]
    found = parse_config(config(LAYERS, config={"Env": given_env}), 2)
    assert found.env == ("A=1", "F=a=b")


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists) | st.binary())
def test_no_json_brings_it_down(value: Any) -> None:
    data = value if isinstance(value, bytes) else json.dumps({"manifests": value}).encode()
    outcome: object = None
    with contextlib.suppress(Invalid):
        outcome = parse_index(data, "it")
    with contextlib.suppress(Invalid):
        outcome = parse_manifest(data, "it")
    assert outcome in (None, ())


# --- what docker save writes ---------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_the_image_in_an_archive_is_found(packed: bool, tmp_path: Path) -> None:
    file = making.docker_archive(tmp_path / "image.tar", LAYERS)
    if packed:
        file.write_bytes(gzip.compress(file.read_bytes()))
    with archive_of(file) as found:
        assert read(found) == LAYERS
        assert [part.unpacked_digest for part in found.layers] == list(map(digest, LAYERS))
        assert found.source == "docker-archive:image.tar"
        words = ["sha512sum", str(file)]
        hashed = subprocess.run(words, check=True, capture_output=True).stdout.decode()
        assert found.endorsed_sha512 == hashed.split()[0]
    assert list((tmp_path / "work").iterdir()) == []


def test_a_layer_that_is_a_link_to_another_is_found(tmp_path: Path) -> None:
    manifest = [{"Config": "c.json", "RepoTags": None, "Layers": ["a/layer.tar", "b/layer.tar"]}]
    file = tmp_path / "old.tar"
    file.write_bytes(
        layer(
            Entry(name="c.json", data=config([LAYERS[0]] * 2)),
            Entry(name="a/layer.tar", data=LAYERS[0]),
            making.symlink("b/layer.tar", "../a/layer.tar"),
            Entry(name="manifest.json", data=json.dumps(manifest).encode()),
        )
    )
    with archive_of(file) as found:
        assert read(found) == [LAYERS[0]] * 2


def archive(manifest: object, *more: Entry) -> bytes:
    return layer(Entry(name="manifest.json", data=json.dumps(manifest).encode()), *more)


IMAGE = {"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["l"]}
LOOP = (making.symlink("l", "m"), making.symlink("m", "l"))
BAD_ARCHIVES = [
    (b"", "truncated|lacks"),
    (b"nonsense" * 1000, "damaged"),
    (layer(), "lacks 'manifest.json'"),
    (archive([]), "lists no images"),
    (archive({"a": 1}), "lists no images"),
    (archive([{**IMAGE, "Layers": "l"}]), "lists no images"),
    (archive([IMAGE, {**IMAGE, "RepoTags": ["b:1"]}]), "2 images"),
    (archive([IMAGE]), "lacks 'l'"),
    (archive([{**IMAGE, "Layers": ["../../etc/shadow"]}]), "lacks '../../etc/shadow'"),
    (archive([IMAGE], *LOOP), "lacks"),
    (archive([IMAGE], Entry(name="l")), "lacks 'c.json'"),
    (archive([IMAGE], Entry(name="l"), Entry(name="c.json", data=b"{")), "not JSON"),
]


@pytest.mark.parametrize(("data", "said"), BAD_ARCHIVES)
def test_a_bad_archive_is_refused(data: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.tar"
    file.write_bytes(data)
    with pytest.raises(Invalid, match=said), archive_of(file):
        pass


def test_paths_and_tags_are_told_apart_by_what_is_there(tmp_path: Path) -> None:
    file = tmp_path / "a:b"
    file.touch()
    assert parse_named(str(file)).tag == ""
    found = parse_named(f"{file}:lab/tools:3")
    assert (found.path, found.tag) == (file, "lab/tools:3")
    assert parse_named("gone:1").path == Path("gone:1")


# --- SIF -----------------------------------------------------------------------------------------


def test_the_partition_of_a_sif_is_found(tmp_path: Path) -> None:
    file = making.sif(tmp_path / "a.sif", b"hsqs" + bytes(9000))
    with opened_sif(file, tmp_path) as found:
        assert read(found) == [b"hsqs" + bytes(9000)]
        assert found.layers[0].squashfs
        assert found.source == "SIF a.sif"
    assert not (tmp_path / "partition.squashfs").exists()


BAD_SIFS = [
    ({"system": 2}, "its root file system is ext3"),
    ({"system": 5}, "encrypted"),
    ({"arch": b"04\0"}, "for arm64"),
    ({"length": 1 << 40}, "not whole"),
    ({"length": -5}, "not whole"),
]


@pytest.mark.parametrize(("changes", "said"), BAD_SIFS)
def test_a_bad_sif_is_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    file = making.sif(tmp_path / "a.sif", b"hsqs" + bytes(9000), **changes)
    with pytest.raises(Invalid, match=said), opened_sif(file, tmp_path):
        pass


@given(st.binary(max_size=600), st.integers(min_value=0, max_value=1400))
def test_no_bytes_in_a_sif_bring_it_down(tmp_path_factory: Any, noise: bytes, at: int) -> None:
    file = making.sif(tmp_path_factory.getbasetemp() / "noise.sif", b"hsqs" + bytes(200))
    data = file.read_bytes()
    data = data[:at] + noise + data[at + len(noise) :]
    try:
        offset, total = sif.find_table(data, len(data))
        found = sif.find_partition(data[offset:][: sif.table_bytes(total)], len(data))
    except Invalid:
        return
    assert 0 < found.offset <= found.offset + found.size <= len(data)
