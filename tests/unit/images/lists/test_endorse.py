"""What an endorser makes passes ``openssl smime -verify`` and the rules that vmcatcher has."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from mayfly.errors import Conflict, Invalid, Missing, Untrusted
from mayfly.images.lists.endorse import (
    Wording,
    check_disk,
    describe_image,
    endorse_image,
    new_list,
    revoke_image,
    sign_list,
    warnings_for,
    with_image,
    without_image,
)
from mayfly.images.lists.model import Endorser, ImageList
from mayfly.images.lists.openssl import Signer
from mayfly.images.lists.versions import compare
from mayfly.model import Image
from tests.unit.images.lists.pki import DAY, NOW, SPACE, Ca, make_key, make_self_signed, openssl
from tests.unit.images.lists.samples import listed, sha512
from tests.unit.images.lists.sites import make_site

LIST_KEYS = {
    "dc:date:created",
    "dc:date:expires",
    "dc:identifier",
    "dc:description",
    "dc:title",
    "dc:source",
    "hv:version",
    "hv:uri",
}
IMAGE_KEYS = {
    "dc:title",
    "dc:description",
    "hv:size",
    "sl:checksum:sha512",
    "sl:arch",
    "hv:uri",
    "dc:identifier",
    "sl:os",
    "sl:osversion",
    "sl:comments",
    "hv:hypervisor",
    "hv:version",
}


def draft(*numbers: int) -> ImageList:
    made = new_list("Images of a site", "https://lists.example.org/site.list", now=NOW)
    for number in numbers or (1,):
        made = with_image(made, listed(number))
    return made


def verified(message: bytes, trusted: Path, *options: str) -> bytes:
    """Check a message as anybody can."""
    return openssl("smime", "-verify", "-CAfile", trusted, *options, stdin=message)


# --- as others see it ----------------------------------------------------------------------------


def test_openssl_verifies_it_with_the_authority_alone(jo: Signer, root_ca: Ca) -> None:
    ready, message = sign_list(draft(), jo, now=NOW)
    text = verified(message, root_ca.certificate)
    assert json.loads(text)["hv:imagelist"]["dc:identifier"] == ready.identifier


def test_openssl_verifies_a_list_of_a_sites_own_key(tmp_path: Path) -> None:
    own = make_self_signed(tmp_path, "own", "/O=Site/CN=Images of the site")
    _, message = sign_list(draft(), own, now=NOW)
    assert verified(message, own.certificate, "-partial_chain")


def test_it_is_the_message_that_vmcaster_makes(jo: Signer) -> None:
    _, message = sign_list(draft(), jo, now=NOW)
    head, _, _ = message.partition(b"\n\n")
    assert b"multipart/signed" in head
    assert b'micalg="sha-512"' in head
    assert b"\n\nThis is an S/MIME signed message\n\n" in message
    # vmcatcher reads the text from the message itself: it must not be within the signature.
    assert b'"hv:imagelist"' in message


def decoded(message: bytes, trusted: Path) -> dict[str, Any]:
    """Read a message by the rules of vmcatcher and hepixvmitrust, written down anew."""
    text = verified(message, trusted)
    top = json.loads(text)["hv:imagelist"]
    assert top.keys() >= LIST_KEYS
    assert all(top[key] not in (None, "") for key in LIST_KEYS)
    for key in ("dc:date:created", "dc:date:expires"):
        datetime.strptime(top[key], "%Y-%m-%dT%H:%M:%SZ")  # noqa: DTZ007  # as vmcatcher does
    endorser = top["hv:endorser"]["hv:x509"]
    assert endorser.keys() >= {"hv:ca", "hv:dn", "hv:email", "dc:creator"}
    assert all(endorser.values())
    for entry in top["hv:images"]:
        assert entry["hv:image"].keys() >= IMAGE_KEYS
        assert all(entry["hv:image"][key] not in (None, "") for key in IMAGE_KEYS)
        assert isinstance(entry["hv:image"]["hv:size"], int)
    names: dict[str, Any] = top
    return names


def test_vmcatcher_takes_it(jo: Signer, root_ca: Ca, maker: Signer) -> None:
    made = with_image(draft(1), endorse_image(listed(2), maker, now=NOW))
    made = revoke_image(with_image(made, listed(3)), "el3", "a hole", now=NOW)
    ready, message = sign_list(made, jo, now=NOW)
    top = decoded(message, root_ca.certificate)
    endorser = top["hv:endorser"]["hv:x509"]
    assert endorser["hv:dn"] == f"{SPACE}/CN=Jo Endorser"
    assert endorser["hv:ca"] == f"{SPACE}/CN=Root CA"
    assert endorser["dc:creator"] == "Jo Endorser"
    assert top["hv:version"] == ready.version
    titles = [entry["hv:image"]["dc:title"] for entry in top["hv:images"]]
    assert titles == ["el1", "el2"]


@pytest.fixture(scope="module")
def maker(root_ca: Ca) -> Signer:
    return root_ca.issue("Image Maker")


def test_a_site_takes_it(jo: Signer, grid: Path, tmp_path: Path) -> None:
    _, message = sign_list(draft(1, 2), jo, now=NOW)
    site = make_site(tmp_path / "trust", grid, message)
    site.subscribe(jo)
    assert site.store.admission(listed(2).sha512, NOW).trusted


# --- versions, dates, keys -----------------------------------------------------------------------


def test_versions_always_rise(jo: Signer) -> None:
    made = draft()
    seen = ["0"]
    for moment in (NOW, NOW, NOW - 900 * DAY, NOW + DAY):
        made, _ = sign_list(made, jo, now=max(moment, NOW - timedelta(minutes=30)))
        seen.append(made.version)
    assert all(compare(old, new) == -1 for old, new in pairwise(seen))


def test_a_list_lasts_four_weeks_but_never_longer_than_its_signer(jo: Signer, root_ca: Ca) -> None:
    ready, _ = sign_list(draft(), jo, now=NOW)
    assert ready.expires_at == NOW + 28 * DAY
    short = root_ca.issue("leaving soon", end=NOW + 4 * DAY)
    ready, _ = sign_list(draft(), short, now=NOW)
    assert ready.expires_at == NOW + 4 * DAY
    ready, _ = sign_list(draft(), jo, lifetime=DAY, now=NOW)
    assert ready.expires_at == NOW + DAY


def test_a_key_with_a_password_signs(tmp_path: Path, root_ca: Ca) -> None:
    plain = root_ca.issue("careful")
    key = tmp_path / "locked.key"
    openssl("pkey", "-in", plain.key, "-aes256", "-passout", "pass:abc", "-out", key)
    signer = Signer(key=key, certificate=plain.certificate, password="abc")
    assert sign_list(draft(), signer, now=NOW)[1]
    with pytest.raises(Invalid, match="cannot sign"):
        sign_list(draft(), replace(signer, password="wrong"), now=NOW)


def test_a_key_that_does_not_belong_to_the_certificate_signs_nothing(
    tmp_path: Path, jo: Signer
) -> None:
    other = make_key(tmp_path / "other.key")
    with pytest.raises(Invalid, match="cannot sign"):
        sign_list(draft(), replace(jo, key=other), now=NOW)


@pytest.mark.parametrize(
    ("name", "options", "rule"),
    [
        ("expired one", {"start": NOW - 9 * DAY, "end": NOW - DAY}, "certificate-expired"),
        ("weak one", {"kind": "rsa:1024"}, "weak-key"),
        ("host one", {"section": "host"}, "key-usage"),
        ("tricky one", {"subject": f"{SPACE}\\/CN=a/CN=b"}, "name"),
    ],
)
def test_what_no_site_would_accept_is_not_signed(
    root_ca: Ca, name: str, options: dict[str, Any], rule: str
) -> None:
    with pytest.raises(Invalid, match=f"rule '{rule}'"):
        sign_list(draft(), root_ca.issue(name, **options), now=NOW)


def test_a_list_that_lacks_something_is_not_signed(jo: Signer) -> None:
    made = with_image(draft(), listed(2, comments=""))
    with pytest.raises(Invalid, match="sl:comments"):
        sign_list(made, jo, now=NOW)


def test_a_list_that_nobody_could_read_is_not_signed(jo: Signer) -> None:
    made = replace(draft(), images=(listed(1, sha512="abc"),))
    with pytest.raises(Invalid, match="checksum"):
        sign_list(made, jo, now=NOW)


def test_the_endorsers_name_for_people_is_kept_while_he_is_the_same(
    jo: Signer, maker: Signer
) -> None:
    who = Endorser(dn="", ca="", email="jo@example.org", creator="Joanna")
    made = new_list("x", "https://x.example.org/", who=who, now=NOW)
    ready, _ = sign_list(with_image(made, listed(1)), jo, now=NOW)
    assert (ready.endorser.creator, ready.endorser.email) == ("Joanna", "jo@example.org")
    again, _ = sign_list(ready, jo, now=NOW)
    assert again.endorser == ready.endorser
    other, _ = sign_list(ready, maker, now=NOW)
    assert (other.endorser.creator, other.endorser.email) == ("Image Maker", "none")


def test_images_that_most_sites_would_refuse_are_named() -> None:
    made = with_image(draft(), listed(2, uri="http://localhost/el2"))
    (warning,) = warnings_for(made)
    assert warning.startswith("el2:")


# --- images --------------------------------------------------------------------------------------


def image_at(disk: Path) -> Image:
    disk.write_bytes(b"image 1")
    return Image(
        name="el7",
        version="20261120T000000Z",
        arch="x86_64",
        os="centos 7",
        sha512=sha512("image 1"),
        size_bytes=7,
        disk_bytes=1 << 30,
        format="qcow2",
        created_at="2026-11-20T00:00:00+00:00",
        source="recipe el7",
        disk=disk,
        mtime_ns=0,
    )


def test_an_image_of_the_catalogue_is_described(tmp_path: Path, jo: Signer) -> None:
    image = image_at(tmp_path / "disk")
    wording = Wording(title="EL 7", uri="https://images.example.org/el7.qcow2")
    entry = describe_image(image, wording)
    assert (entry.os, entry.os_version, entry.version) == ("centos", "7", image.version)
    assert (entry.sha512, entry.size_bytes) == (image.sha512, 7)
    check_disk(entry, image.disk)
    assert sign_list(with_image(new_list("x", wording.uri, now=NOW), entry), jo, now=NOW)


def test_a_disk_that_changed_is_not_signed_for(tmp_path: Path) -> None:
    image = image_at(tmp_path / "disk")
    entry = describe_image(image, Wording(title="EL 7", uri="https://x.example.org/"))
    image.disk.write_bytes(b"image 2")
    with pytest.raises(Untrusted, match="is not the file that is described"):
        check_disk(entry, image.disk)


def test_a_higher_version_takes_the_place_of_a_lower_one() -> None:
    made = draft(1, 2)
    newer = with_image(made, listed(1, version="1.1", sha512=sha512("new")))
    assert sorted(image.version for image in newer.images) == ["1.0", "1.1"]
    for version in ("1.0", "0.9"):
        with pytest.raises(Conflict, match="not higher"):
            with_image(made, listed(1, version=version, sha512=sha512("new")))
    assert with_image(made, listed(1)).images != ()


@pytest.mark.parametrize("wanted", ["el2", listed(2).identifier, listed(2).sha512.upper()])
def test_an_image_is_removed_or_revoked_by_any_of_its_names(wanted: str) -> None:
    for made in (
        without_image(draft(1, 2), wanted),
        revoke_image(draft(1, 2), wanted, "a hole", now=NOW),
    ):
        assert [image.title for image in made.images] == ["el1"]


def test_what_was_revoked_does_not_come_back() -> None:
    made = revoke_image(draft(1, 2), "el2", "a hole", now=NOW)
    assert [each.reason for each in made.revoked] == ["a hole"]
    with pytest.raises(Conflict, match="took back"):
        with_image(made, listed(2, version="2.0"))


@pytest.mark.parametrize("reason", ["", "  ", "a\nb"])
def test_an_image_is_revoked_for_a_reason(reason: str) -> None:
    with pytest.raises(Invalid):
        revoke_image(draft(), "el1", reason, now=NOW)


def test_an_image_that_is_not_there_is_not_revoked() -> None:
    with pytest.raises(Missing, match="el9"):
        revoke_image(draft(), "el9", "x", now=NOW)


# --- the program ---------------------------------------------------------------------------------


def test_a_temporary_directory_of_roots_own_is_no_hindrance(
    jo: Signer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert sign_list(draft(), jo, now=NOW)[1]


def test_the_environment_of_the_caller_does_not_reach_openssl(
    jo: Signer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.cnf").write_text("openssl_conf = none\n[none]\nproviders = no\n[no]\n")
    monkeypatch.setenv("OPENSSL_CONF", str(tmp_path / "bad.cnf"))
    monkeypatch.setenv("OPENSSL_MODULES", "/nowhere")
    assert sign_list(draft(), jo, now=NOW)[1]
    assert os.environ["OPENSSL_MODULES"] == "/nowhere"
