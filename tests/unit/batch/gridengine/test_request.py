"""What travels from the verifier to the prolog."""

from __future__ import annotations

import pytest

from mayfly.batch.gridengine.request import (
    Request,
    read_request,
    read_size,
    read_time,
    write_request,
)
from mayfly.errors import Invalid
from mayfly.host.limits import OVERHEAD_KVM_MIB, OVERHEAD_TCG_MIB, guest_memory_mib


def test_request_arrives_as_it_was() -> None:
    request = Request(
        options={"image": "el9@1.0", "allow": "a:1,b:2", "share": "/d/a b;c&d=%:ro"},
        guest_mib=2048,
        wall_s=3600,
    )
    text = write_request(request)
    assert read_request(text) == request
    assert not set(' ,\n"\\') & set(text)


def test_nothing_is_an_empty_request() -> None:
    assert read_request("") == Request(options={})


@pytest.mark.parametrize(
    "text",
    ["x", "v=2", "v=1&guest_mib=-1", "v=1&guest_mib=1e9", "v=1&evil=1", "v=1&image=" + "a" * 9000],
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        read_request(text)


@pytest.mark.parametrize("accelerator", ["tcg", "kvm"])
def test_guest_has_what_was_asked_for(accelerator: str) -> None:
    assert OVERHEAD_KVM_MIB < OVERHEAD_TCG_MIB
    granted = Request(options={}, guest_mib=1024).memory_mib(2)
    assert guest_memory_mib(granted, accelerator) == 2048


def test_whole_memory_is_for_all_slots() -> None:
    assert Request(options={}, whole_mib=1000).memory_mib(3) == 3000


@pytest.mark.parametrize(
    ("text", "size"),
    [("2g", 2 << 30), ("1.5G", 3 << 29), ("512M", 512 << 20), ("7", 7), ("1T", 1 << 40)],
)
def test_sizes(text: str, size: int) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["", "g", "-1g", "2gb", "1e9", "٣g", "9" * 99])
def test_no_sizes(text: str) -> None:
    with pytest.raises(Invalid):
        read_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3600", 3600), ("1:0:0", 3600), ("0:30", 30), ("1:30", 90), (":10:", 0), ("INFINITY", 0)],
)
def test_times(text: str, seconds: int) -> None:
    assert read_time(text) == seconds
