"""Lists are read as vmcaster and AppDB write them, and no list can do harm by how it is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from mayfly.images.lists import keys
from mayfly.images.lists.model import (
    suggested_name,
)
from mayfly.images.lists.reader import BYTES_MOST, IMAGES_MOST, parse_list
from mayfly.images.lists.rules import Refused, Rule
from mayfly.images.lists.uris import UriRules
from mayfly.images.lists.writer import render_list
from tests.unit.images.lists.samples import IMAGE, image_list, listed, sha512, table_of

APPDB = """
{
   "hv:imagelist": {
      "dc:date:created": "2015-06-18T21:14:00Z",
      "dc:date:expires": "2499-12-31T22:00:00Z",
      "dc:description": "This is a VO-wide image list for some VO.",
      "dc:identifier": "76FDEE70-8119-5D33-CCCC-3C57E1C60DF1",
      "dc:source": "https://some.unknown.source/",
      "dc:title": "An image list.",
      "ad:vo": "some.vo.net",
      "hv:endorser": {"hv:x509": {
            "dc:creator": "Applications Database",
            "hv:ca": "/DC=XXX/CN=SOME CA",
            "hv:dn": "/DC=XXX/C=ZZZ/O=Hosts/CN=some.unknown.source",
            "hv:email": "_@_"
      }},
      "hv:images": [{"hv:image": {
               "dc:description": "",
               "dc:identifier": "c0482bc2-bf41-5d49-cccc-a750174a186b",
               "ad:mpuri": "https://appdb.somewhere.net/store/vo/image/c0482bc2:484/",
               "dc:title": "Image for CernVM [Scientific Linux/6.0/KVM]",
               "ad:group": "General group",
               "hv:hypervisor": "KVM",
               "hv:format": "OVA",
               "hv:ram_minimum": "512",
               "ad:ram_recommended": "1024",
               "hv:core_minimum": 1,
               "hv:size": "121243136",
               "hv:uri": "https://appdb.somewhere.net/images/base/CERNVM/CERNVM-3.3.0-40GB.ova",
               "hv:version": "3.3.0-1",
               "dc:date:expires": "2499-12-31T22:00:00Z",
               "sl:arch": "x86_64",
               "sl:checksum:sha512": "SHA-512",
               "sl:comments": "",
               "sl:os": "Linux",
               "sl:osname": "Scientific Linux",
               "sl:osversion": "6.0",
               "ad:user:fullname": "Clark Kent"
      }}],
      "hv:uri": "https://appdb.somewhere.net/store/vo/some.vo.net/image.list",
      "hv:version": "20150618211400"
   }
}
""".replace("SHA-512", sha512("CernVM").upper())


def test_a_list_as_appdb_writes_it_is_read() -> None:
    found = parse_list(APPDB.replace("\n", "\r\n").encode())
    assert found.identifier == "76fdee70-8119-5d33-cccc-3c57e1c60df1"
    assert found.expires_at == datetime(2499, 12, 31, 22, tzinfo=UTC)
    assert found.extra == {"ad:vo": "some.vo.net"}
    (image,) = found.images
    assert (image.size_bytes, image.comments, image.format) == (121_243_136, "", "OVA")
    assert image.sha512 == sha512("CernVM")
    assert image.extra["ad:user:fullname"] == "Clark Kent"
    assert image.extra["hv:core_minimum"] == 1
    assert not found.faults


def test_a_list_of_the_first_kind_without_wrapper_is_read() -> None:
    bare = json.dumps(table_of()[keys.WRAPPER]).encode()
    assert parse_list(bare) == replace(image_list(), wrapped=False)


def test_a_list_of_one_endorser_is_read() -> None:
    table = table_of()
    table[keys.WRAPPER][keys.ENDORSER] = [table[keys.WRAPPER][keys.ENDORSER]]
    assert parse_list(json.dumps(table).encode()) == image_list()


def test_numbers_are_taken_for_versions() -> None:
    table = table_of()
    table[keys.WRAPPER]["hv:version"] = 7
    assert parse_list(json.dumps(table).encode()).version == "7"


# --- what refuses a list as a whole --------------------------------------------------------------

Spoil = Callable[[dict[str, Any]], Any]


def put(key: str, value: object) -> Spoil:
    return lambda table: table.update({key: value})


def drop(key: str) -> Spoil:
    return lambda table: table.pop(key)


SPOILT: list[Spoil] = [
    *(drop(key) for key in sorted(keys.LIST_REQUIRED)),
    put(keys.IDENTIFIER, "FOOBAR"),
    put(keys.IDENTIFIER, "../../../../etc/passwd"),
    put(keys.IDENTIFIER, None),
    put(keys.IDENTIFIER, 5),
    put(keys.CREATED, "yesterday"),
    put(keys.CREATED, "2026-01-01 00:00:00"),
    put(keys.CREATED, 1_700_000_000),
    put(keys.CREATED, "0001-01-01T00:00:00Z"),
    put(keys.EXPIRES, "2026-13-01T00:00:00Z"),
    put(keys.EXPIRES, None),
    put("hv:version", ""),
    put("hv:version", "1\n2"),
    put("hv:version", "ü"),
    put("hv:version", "1" * 101),
    put("hv:version", True),
    put("hv:version", 1.5),
    put("dc:title", ["a"]),
    put("dc:title", ""),
    put("dc:title", "a\x00b"),
    put("dc:title", "a\x1b[2Jb"),
    put("dc:title", "a\ud800b"),
    put("dc:title", "a\u202eb"),
    put("dc:title", "x" * 3000),
    put("dc:description", "x" * 70_000),
    put(keys.ENDORSER, None),
    put(keys.ENDORSER, {}),
    put(keys.ENDORSER, {keys.X509: {"hv:dn": "/CN=x"}}),
    put(keys.ENDORSER, [{}, {}]),
    put(keys.IMAGES, None),
    put(keys.IMAGES, {"hv:image": {}}),
    put(keys.IMAGES, "none"),
    put(keys.REVOKED, {}),
    put(keys.REVOKED, [{"reason": "x"}]),
    put("x", "y" * 70_000),
    lambda table: table.update({f"k{number}": "" for number in range(200)}),
]


@pytest.mark.parametrize("spoil", SPOILT)
def test_a_list_with_a_fault_is_refused(spoil: Spoil) -> None:
    table = table_of()
    spoil(table[keys.WRAPPER])
    with pytest.raises(Refused) as caught:
        parse_list(json.dumps(table).encode())
    assert caught.value.refusal.rule is Rule.FORMAT


TEXTS = [
    b"",
    b"nothing",
    b"[]",
    b"1",
    b"null",
    b'"hv:imagelist"',
    b'{"hv:imagelist": []}',
    b"\xff\xfe",
    b"\xef\xbb\xbf{}",
    b"[" * 200_000,
    b'{"a":' * 100_000,
    b'{"a": ' + b"9" * 10_000 + b"}",
    b'{"a": NaN}',
    b'{"a": 1, "a": 2}',
]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_what_is_no_list_is_refused(text: bytes) -> None:
    with pytest.raises(Refused) as caught:
        parse_list(text)
    assert caught.value.refusal.rule is Rule.FORMAT


def test_a_key_that_comes_twice_anywhere_refuses_the_list() -> None:
    text = render_list(image_list()).replace(b'"sl:os":', b'"sl:os": "x", "sl:os":')
    with pytest.raises(Refused, match="twice"):
        parse_list(text)


def test_a_list_of_100_mb_is_refused_unread() -> None:
    with pytest.raises(Refused) as caught:
        parse_list(b'{"hv:imagelist": "' + b"x" * (100 << 20))
    assert caught.value.refusal.rule is Rule.SIZE
    assert BYTES_MOST < 100 << 20


def test_a_list_of_too_many_images_is_refused() -> None:
    table = table_of()
    table[keys.WRAPPER][keys.IMAGES] = [{}] * (IMAGES_MOST + 1)
    with pytest.raises(Refused) as caught:
        parse_list(json.dumps(table).encode())
    assert caught.value.refusal.rule is Rule.SIZE


# --- what leaves out one image -------------------------------------------------------------------

SPOILT_IMAGE: list[tuple[Spoil, Rule]] = [
    *((drop(key), Rule.IMAGE_FORMAT) for key in sorted(keys.IMAGE_REQUIRED)),
    (put(keys.IDENTIFIER, "../x"), Rule.IMAGE_FORMAT),
    (put(keys.IDENTIFIER, 1), Rule.IMAGE_FORMAT),
    (put(keys.SHA512, "abc"), Rule.IMAGE_FORMAT),
    (put(keys.SHA512, "g" * 128), Rule.IMAGE_FORMAT),
    (put(keys.SHA512, None), Rule.IMAGE_FORMAT),
    (put(keys.SIZE, 0), Rule.IMAGE_FORMAT),
    (put(keys.SIZE, -1), Rule.IMAGE_FORMAT),
    (put(keys.SIZE, "1e9"), Rule.IMAGE_FORMAT),
    (put(keys.SIZE, 1.5), Rule.IMAGE_FORMAT),
    (put(keys.SIZE, True), Rule.IMAGE_FORMAT),
    (put(keys.SIZE, 1 << 60), Rule.IMAGE_FORMAT),
    (put(keys.SIZE, "9" * 5000), Rule.IMAGE_FORMAT),
    (put("hv:version", "../../x\n"), Rule.IMAGE_FORMAT),
    (put("sl:arch", None), Rule.IMAGE_FORMAT),
    (put("sl:arch", ""), Rule.IMAGE_FORMAT),
    (put("dc:title", "\x1b]0;x\x07"), Rule.IMAGE_FORMAT),
    (put(keys.EXPIRES, "soon"), Rule.IMAGE_FORMAT),
    (put(keys.ENDORSEMENT, "not base64!"), Rule.IMAGE_FORMAT),
    (put(keys.ENDORSEMENT, 7), Rule.IMAGE_FORMAT),
    (put("hv:uri", "file:///etc/shadow"), Rule.URI),
    (put("hv:uri", "http://127.0.0.1/x"), Rule.URI),
    (put("hv:uri", "http://169.254.169.254/x"), Rule.URI),
]


@pytest.mark.parametrize(("spoil", "rule"), SPOILT_IMAGE)
def test_an_image_with_a_fault_is_left_out_and_named(spoil: Spoil, rule: Rule) -> None:
    table = table_of(image_list(listed(1), listed(2), listed(3)))
    spoil(table[keys.WRAPPER][keys.IMAGES][1][keys.IMAGE])
    found = parse_list(json.dumps(table).encode())
    assert [image.title for image in found.images] == ["el1", "el3"]
    (fault,) = found.faults
    assert (fault.place, fault.refusal.rule) == (2, rule)


@pytest.mark.parametrize("entry", [None, 5, [], {}, {"hv:image": None}, {"hv:image": []}])
def test_an_entry_that_is_no_image_is_left_out(entry: object) -> None:
    table = table_of(image_list(listed(1)))
    table[keys.WRAPPER][keys.IMAGES].append(entry)
    found = parse_list(json.dumps(table).encode())
    assert (len(found.images), len(found.faults)) == (1, 1)


def test_all_images_of_one_identifier_are_left_out() -> None:
    twice = replace(listed(2), identifier=IMAGE, sha512=sha512("x"))
    found = parse_list(render_list(image_list(listed(1), twice, listed(3))))
    assert [image.title for image in found.images] == ["el3"]
    assert [fault.identifier for fault in found.faults] == [IMAGE, IMAGE]


def test_a_site_may_allow_images_on_its_own_host() -> None:
    table = table_of()
    table[keys.WRAPPER][keys.IMAGES][0][keys.IMAGE]["hv:uri"] = "http://localhost/x"
    assert parse_list(json.dumps(table).encode(), UriRules(inner=True)).images


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Image for CernVM [SL/6.0/KVM]", "image-for-cernvm-sl-6.0-kvm"),
        ("../../etc/passwd", "etc-passwd"),
        ("..", "image-aaaaaaaa"),
        ("-rf ~", "rf"),
        ("$(reboot)", "reboot"),
        ("x" * 100, "x" * 64),
    ],
)
def test_a_title_never_becomes_a_path(title: str, name: str) -> None:
    assert suggested_name(listed(1, title=title)) == name
