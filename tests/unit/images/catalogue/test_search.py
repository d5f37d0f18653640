"""What is looked for is found, and what grids read has the form that they know."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from mayfly.images.catalogue.glue import glue_1, glue_2
from mayfly.images.catalogue.search import Query, search
from mayfly.model import Image


def image(name: str, os: str, version: str = "1", tags: tuple[str, ...] = ()) -> Image:
    return Image(
        name=name,
        version=version,
        arch="x86_64",
        os=os,
        sha512="ab" * 64,
        size_bytes=1,
        disk_bytes=1 << 30,
        format="qcow2",
        created_at="2026-11-30T12:00:00+00:00",
        source="a test",
        disk=Path("/images/disk.qcow2"),
        mtime_ns=0,
        tags=tags,
    )


IMAGES = (
    image("debian-12", "debian 12", "2026.1", ("ci", "small")),
    image("el7", "CentOS 7.9", "2024", ("old",)),
    image("el9", "almalinux 9", "2026.2", ("ci",)),
)


@pytest.mark.parametrize(
    ("query", "names"),
    [
        (Query(), ["debian-12", "el7", "el9"]),
        (Query(text="el"), ["el7", "el9"]),
        (Query(text="ALMA"), ["el9"]),
        (Query(text="el?"), ["el7", "el9"]),
        (Query(text="small"), ["debian-12"]),
        (Query(os="centos 7*"), ["el7"]),
        (Query(os="centos"), []),
        (Query(version="2026*"), ["debian-12", "el9"]),
        (Query(arch="aarch64"), []),
        (Query(tags=("ci",)), ["debian-12", "el9"]),
        (Query(tags=("ci", "small")), ["debian-12"]),
        (Query(text="[", tags=("ci",)), []),
    ],
)
def test_images_are_found(query: Query, names: list[str]) -> None:
    assert [each.name for each in search(IMAGES, query)] == names


def test_glue_2_has_what_cloud_information_systems_read() -> None:
    now = datetime(2026, 11, 30, 12, tzinfo=UTC)
    text = glue_2(IMAGES, "host.example.org", now)
    manager = text["CloudComputingManager"]["ID"]
    first = text["CloudComputingImage"][0]
    assert (first["ID"], first["Name"]) == (f"debian-12@sha512:{'ab' * 64}", "debian-12")
    assert (first["OSName"], first["OSVersion"], first["OSPlatform"]) == ("debian", "12", "amd64")
    assert first["Associations"] == {"CloudComputingManager": manager}
    assert (first["CreationTime"], first["Validity"]) == ("2026-11-30T12:00:00Z", 43200)


def test_an_operating_system_in_one_word_has_no_version() -> None:
    text = glue_2([image("x", "unknown")], "host", datetime.now(UTC))
    first = text["CloudComputingImage"][0]
    assert (first["OSName"], first["OSVersion"]) == ("unknown", "UNKNOWN")


def test_glue_1_names_have_the_prefix_and_no_letters_that_expressions_know() -> None:
    assert glue_1(["el7", 'a"b c@1']) == ["vm_el7", "vm_a_b_c_1"]
    assert glue_1(["el7"], "VM-") == ["VM-el7"]
