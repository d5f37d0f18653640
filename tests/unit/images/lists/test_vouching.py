"""Where a site wants the image endorser's word too, a list alone is not enough."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mayfly.images.lists import check, openssl
from mayfly.images.lists.authorities import Anchor, Kind, Role
from mayfly.images.lists.endorse import endorse_image
from mayfly.images.lists.model import ListedImage
from mayfly.images.lists.openssl import Signer, read_certificate
from mayfly.images.lists.rules import Rule
from tests.unit.images.lists.pki import DAY, NOW, SPACE, Ca, make_ca
from tests.unit.images.lists.samples import image_list, listed, sha512, signed_list
from tests.unit.images.lists.sites import Site, make_site, principal

NEXT = "20260101000001"


@pytest.fixture(scope="module")
def maker(root_ca: Ca) -> Signer:
    return root_ca.issue("Maker of images")


def site_with(tmp_path: Path, grid: Path, jo: Signer, *images: ListedImage) -> Site:
    return make_site(tmp_path / "trust", grid, signed_list(jo, image_list(*images)))


def answer(site: Site, number: int = 1) -> Rule | str:
    found = site.store.admission(listed(number).sha512, NOW)
    if not found.trusted:
        return found.refusals[0].rule
    by = found.vouchers[0].image_endorser
    return by.dn if by else ""


def detail(site: Site, number: int = 1) -> str:
    return site.store.admission(listed(number).sha512, NOW).refusals[0].detail


def test_an_image_with_both_words_is_trusted(
    tmp_path: Path, grid: Path, jo: Signer, maker: Signer
) -> None:
    image = endorse_image(listed(1), maker, now=NOW)
    site = site_with(tmp_path, grid, jo, image, listed(2))
    site.subscribe(jo, maker)
    assert answer(site, 1) == f"{SPACE}/CN=Maker of images"
    assert answer(site, 2) is Rule.ENDORSEMENT


def test_the_second_word_is_not_needed_where_it_is_not_asked_for(
    tmp_path: Path, grid: Path, jo: Signer, maker: Signer
) -> None:
    image = endorse_image(listed(1), maker, now=NOW)
    site = site_with(tmp_path, grid, jo, image, listed(2))
    site.subscribe(jo)
    assert (answer(site, 1), answer(site, 2)) == ("", "")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sha512", sha512("another")),
        ("size_bytes", 5),
        ("version", "2.0"),
        ("arch", "aarch64"),
        ("hypervisor", "xen"),
    ],
)
def test_the_word_is_for_one_very_image(
    tmp_path: Path, grid: Path, jo: Signer, maker: Signer, field: str, value: object
) -> None:
    meant = replace(listed(1), **{field: value})  # type: ignore[arg-type]  # a test's own
    word = endorse_image(meant, maker, now=NOW).endorsement
    site = site_with(tmp_path, grid, jo, listed(1, endorsement=word))
    site.subscribe(jo, maker)
    assert answer(site) is Rule.ENDORSEMENT
    assert f"is for {field}" in detail(site)


def test_a_list_endorser_may_say_where_the_image_is_fetched(
    tmp_path: Path, grid: Path, jo: Signer, maker: Signer
) -> None:
    image = endorse_image(listed(1, uri="file:///srv/el1.qcow2"), maker, now=NOW)
    mirrored = replace(image, uri="https://mirror.example.org/el1", comments="a mirror's")
    site = site_with(tmp_path, grid, jo, mirrored)
    site.subscribe(jo, maker)
    assert answer(site) == f"{SPACE}/CN=Maker of images"


def test_the_word_of_another_maker_does_not_count(
    tmp_path: Path, grid: Path, jo: Signer, maker: Signer
) -> None:
    site = site_with(tmp_path, grid, jo, endorse_image(listed(1), jo, now=NOW))
    site.subscribe(jo, maker)
    assert answer(site) is Rule.ENDORSEMENT
    assert "rule 'endorser'" in detail(site)


def test_a_changed_word_does_not_count(
    tmp_path: Path, grid: Path, jo: Signer, maker: Signer
) -> None:
    word = endorse_image(listed(1), maker, now=NOW).endorsement
    half = len(word) // 2
    bad = word[:half] + ("A" if word[half] != "A" else "B") + word[half + 1 :]
    site = site_with(tmp_path, grid, jo, listed(1, endorsement=bad))
    site.subscribe(jo, maker)
    assert answer(site) is Rule.ENDORSEMENT


def test_a_word_ends_with_the_certificate_or_the_date_in_it(
    tmp_path: Path, grid: Path, jo: Signer, root_ca: Ca
) -> None:
    short = root_ca.issue("short maker", end=NOW + 3 * DAY)
    images = [
        endorse_image(listed(1), short, now=NOW),
        replace(endorse_image(listed(2, expires_at=NOW + DAY), short, now=NOW), expires_at=None),
    ]
    site = site_with(tmp_path, grid, jo, *images)
    site.subscribe(jo, short)
    untils = [site.store.admission(listed(each).sha512, NOW).until for each in (1, 2)]
    assert untils == [NOW + 3 * DAY, NOW + DAY]


def test_a_key_for_lists_does_not_vouch_for_images(
    tmp_path: Path, jo: Signer, maker: Signer
) -> None:
    site = site_with(tmp_path, tmp_path / "no grid", jo, endorse_image(listed(1), maker, now=NOW))
    for name, signer in (("jo", jo), ("maker", maker)):
        owner = read_certificate(signer.certificate)
        site.store.add_anchor(
            Anchor(name=name, kind=Kind.KEY, certificate=owner, roles=frozenset({Role.LIST}))
        )
    site.subscribe(jo, maker)
    assert answer(site) is Rule.ENDORSEMENT
    assert "rule 'role'" in detail(site)


def test_a_revoked_maker_stops_his_images_though_the_list_is_the_same(
    tmp_path: Path, jo: Signer, grid: Path
) -> None:
    ca = make_ca(tmp_path / "ca", f"{SPACE}/CN=Makers CA")
    maker = ca.issue("maker")
    ca.install(grid)
    site = site_with(tmp_path, grid, jo, endorse_image(listed(1), maker, now=NOW))
    site.subscribe(jo, maker)
    assert answer(site) == f"{SPACE}/CN=maker"
    ca.revoke(maker)
    ca.install(grid)
    assert site.update().changed
    assert answer(site) is Rule.ENDORSEMENT
    assert "rule 'certificate-revoked'" in detail(site)


def test_a_signature_is_checked_once_and_its_signer_at_each_update(
    tmp_path: Path, grid: Path, jo: Signer, maker: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = endorse_image(listed(1), maker, now=NOW)
    site = site_with(tmp_path, grid, jo, image)
    site.subscribe(jo, maker)
    opened: list[bytes] = []
    real = openssl.signed

    def counted(message: bytes) -> object:
        opened.append(message)
        return real(message)

    monkeypatch.setattr(check, "signed", counted)
    site.update()
    assert len(opened) == 1  # the list itself
    # A remembered word is for the image that it was for.
    other = listed(1, version="9.0", endorsement=image.endorsement)
    site.server.message = signed_list(jo, image_list(other, version=NEXT))
    site.update()
    assert len(opened) == 3
    assert answer(site) is Rule.ENDORSEMENT


def test_a_remembered_word_counts_only_while_its_maker_is_asked(
    tmp_path: Path, grid: Path, jo: Signer, maker: Signer
) -> None:
    site = site_with(tmp_path, grid, jo, endorse_image(listed(1), maker, now=NOW))
    before = site.subscribe(jo, maker)
    with site.store.changing():
        site.store.save(replace(before, image_endorsers=(principal(jo),)))
    site.update()
    assert answer(site) is Rule.ENDORSEMENT
    assert "rule 'endorser'" in detail(site)
