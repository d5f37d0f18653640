"""Which listed image a name means, and why it may not be had."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mayfly.errors import Conflict, Invalid, Untrusted
from mayfly.images.lists.model import ImageFault, ListedImage, Revocation
from mayfly.images.lists.offers import trusted_offer, trusted_offers
from mayfly.images.lists.rules import Refusal, Rule
from mayfly.images.lists.store import TrustStore
from tests.unit.images.lists.pki import DAY, NOW
from tests.unit.images.lists.samples import LIST, listed
from tests.unit.images.lists.test_admission import accepted, subscription, vouched

OTHER = "99999999-2222-3333-4444-555555555555"


@pytest.fixture
def store(tmp_path: Path) -> TrustStore:
    store = TrustStore(directory=tmp_path / "trust")
    keep(store, listed(1), listed(2), listed(3, title="Enterprise Linux (7)"))
    return store


def keep(store: TrustStore, *images: ListedImage, where: str = LIST, title: str = "Images") -> None:
    with store.changing():
        store.save(subscription(accepted(*images, title=title), identifier=where))


@pytest.mark.parametrize(
    "wanted",
    [
        "el2",
        listed(2).identifier,
        listed(2).identifier.upper(),
        listed(2).sha512,
        listed(2).sha512.upper(),
        f"el2@sha512:{listed(2).sha512}",
    ],
)
def test_an_image_is_found_by_all_that_names_it(store: TrustStore, wanted: str) -> None:
    found = trusted_offer(store, wanted, NOW)
    assert found.image == listed(2)
    assert (found.name, found.voucher.identifier) == ("el2", LIST)


@pytest.mark.parametrize("wanted", ["Enterprise Linux (7)", "enterprise-linux-7"])
def test_a_title_is_as_good_as_the_name_in_the_catalogue(store: TrustStore, wanted: str) -> None:
    assert trusted_offer(store, wanted, NOW).image.identifier == listed(3).identifier


def test_all_that_are_trusted_are_offered_by_name_and_version(store: TrustStore) -> None:
    keep(store, listed(1, version="0.9", sha512="0" * 128), where=OTHER)
    store.block(listed(2).sha512, "a hole")
    found = [(offer.name, offer.image.version) for offer in trusted_offers(store, NOW)]
    assert found == [("el1", "0.9"), ("el1", "1.0"), ("enterprise-linux-7", "1.0")]


def test_of_several_versions_of_an_image_the_highest_counts(store: TrustStore) -> None:
    keep(store, listed(1, version="1.10", sha512="1" * 128), where=OTHER)
    assert trusted_offer(store, "el1", NOW).image.version == "1.10"
    assert trusted_offer(store, f"el1@sha512:{listed(1).sha512}", NOW).image.version == "1.0"


def test_two_images_of_one_name_are_no_answer(store: TrustStore) -> None:
    keep(store, listed(8, title="el1"), where=OTHER, title="Theirs")
    with pytest.raises(Conflict, match="'el1' means 2 images") as caught:
        trusted_offer(store, "el1", NOW)
    assert listed(1).identifier in caught.value.hint
    assert "'Theirs'" in caught.value.hint
    assert trusted_offer(store, listed(8).identifier, NOW).image.title == "el1"


def test_one_content_in_two_lists_is_one_image(store: TrustStore) -> None:
    keep(store, listed(1), where=OTHER)
    assert trusted_offer(store, "el1", NOW).image == listed(1)


def refused(store: TrustStore, wanted: str) -> str:
    with pytest.raises(Untrusted) as caught:
        trusted_offer(store, wanted, NOW)
    return caught.value.message


@pytest.mark.parametrize("wanted", ["el9", OTHER, "f" * 128, f"el2@sha512:{'f' * 128}"])
def test_what_no_list_has_is_not_offered(store: TrustStore, wanted: str) -> None:
    assert "rule 'unendorsed'" in refused(store, wanted)


@pytest.mark.parametrize("wanted", ["", "el1@sha512:", "el1@sha512:12ab", "@sha512:" + "x" * 128])
def test_what_names_nothing_is_refused(store: TrustStore, wanted: str) -> None:
    with pytest.raises(Invalid):
        trusted_offer(store, wanted, NOW)


def test_a_blocked_image_is_refused_by_that_rule(store: TrustStore) -> None:
    store.block(listed(1).sha512, "a hole")
    for wanted in ("el1", listed(1).identifier, listed(1).sha512):
        assert "blocked it: a hole (rule 'blocked'" in refused(store, wanted)


def test_an_expired_image_is_refused_by_that_rule(store: TrustStore) -> None:
    with store.changing():
        old = vouched(listed(1), until=NOW - DAY)
        store.save(subscription(accepted(old)))
    assert "rule 'image-expired'" in refused(store, "el1")
    assert trusted_offers(store, NOW) == ()


def test_an_image_that_was_taken_back_is_refused_with_the_reason(store: TrustStore) -> None:
    gone = Revocation(
        identifier=listed(1).identifier,
        version="1.0",
        sha512=listed(1).sha512,
        reason="a root kit",
        revoked_at=NOW - DAY,
    )
    with store.changing():
        has = replace(accepted(listed(2)), revoked=(gone,))
        store.save(subscription(has))
    for wanted in (listed(1).identifier, listed(1).sha512):
        assert "a root kit (rule 'image-revoked'" in refused(store, wanted)


def test_an_entry_that_is_no_good_is_refused_with_what_is_wrong(store: TrustStore) -> None:
    refusal = Refusal(rule=Rule.URI, detail="'http://127.0.0.1/': an address of this host")
    fault = ImageFault(place=1, identifier="x", title="el7", refusal=refusal)
    with store.changing():
        store.save(subscription(accepted(listed(2), faults=(fault,))))
    assert "127.0.0.1" in refused(store, "el7")


def test_thousands_of_images_are_looked_through_in_a_moment(store: TrustStore) -> None:
    keep(store, *(listed(number) for number in range(1, 3001)))
    assert len(trusted_offers(store, NOW)) == 3000
