"""Who vouches for an image now, and why nobody does: no files, no clock."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.errors import Untrusted
from mayfly.images.lists.admission import (
    Admission,
    Standing,
    admission,
    no_longer_trusted,
    standing,
)
from mayfly.images.lists.check import Principal
from mayfly.images.lists.model import ListedImage, Revocation
from mayfly.images.lists.rules import Refusal, Rule
from mayfly.images.lists.subscriptions import (
    Accepted,
    Subscription,
    Vouched,
    after_failure,
    after_refusal,
    after_second_look,
    after_success,
)
from tests.unit.images.lists.pki import DAY, NOW
from tests.unit.images.lists.samples import LIST, listed, sha512

JO = Principal(dn="/CN=Jo", ca="/CN=CA")


def vouched(image: ListedImage, **changes: Any) -> Vouched:
    return replace(Vouched(image=image, until=NOW + 20 * DAY), **changes)


def accepted(*images: ListedImage | Vouched, **changes: Any) -> Accepted:
    made = Accepted(
        version="5",
        title="Images",
        created_at=NOW - DAY,
        until=NOW + 20 * DAY,
        text_sha512="t",
        message_sha512="m",
        signer=JO,
        images=tuple(vouched(each) if isinstance(each, ListedImage) else each for each in images),
        accepted_at=NOW,
    )
    return replace(made, **changes)


def subscription(has: Accepted | None, **changes: Any) -> Subscription:
    made = Subscription(
        identifier=LIST, url="https://x.example.org/", endorsers=(JO,), added_at=NOW, accepted=has
    )
    return replace(made, **changes)


def ask(image: ListedImage, *lists: Subscription, **blocked: str) -> Admission:
    return admission(image.sha512, lists, blocked=blocked, now=NOW)


def rules(found: Admission) -> list[Rule]:
    return [refusal.rule for refusal in found.refusals]


def test_an_image_of_a_list_that_holds_is_trusted() -> None:
    found = ask(listed(1), subscription(accepted(listed(1))))
    assert found.trusted
    assert found.until == NOW + 20 * DAY
    assert str(found).startswith("trusted: list 'Images'")
    assert "/CN=Jo" in str(found)


def test_the_digits_of_a_checksum_may_be_capitals() -> None:
    found = admission(
        listed(1).sha512.upper(), [subscription(accepted(listed(1)))], blocked={}, now=NOW
    )
    assert found.trusted


def test_an_image_that_no_list_has_is_refused() -> None:
    assert rules(ask(listed(2), subscription(accepted(listed(1))))) == [Rule.UNENDORSED]
    assert rules(ask(listed(2))) == [Rule.UNENDORSED]
    assert rules(ask(listed(2), subscription(None))) == [Rule.UNENDORSED]


def test_an_expired_list_vouches_for_nothing() -> None:
    old = accepted(listed(1), until=NOW - timedelta(seconds=1))
    assert rules(ask(listed(1), subscription(old))) == [Rule.EXPIRED]


def test_a_list_that_was_withdrawn_vouches_for_nothing_and_says_why() -> None:
    why = Refusal(rule=Rule.CERTIFICATE_REVOKED, detail="Jo's certificate is revoked")
    found = ask(listed(1), subscription(accepted(listed(1)), withdrawn=why))
    assert rules(found) == [Rule.CERTIFICATE_REVOKED]
    assert "Jo's certificate" in str(found)


def test_an_expired_image_is_refused_though_its_list_holds() -> None:
    old = vouched(listed(1), until=NOW - timedelta(seconds=1))
    assert rules(ask(listed(1), subscription(accepted(old)))) == [Rule.IMAGE_EXPIRED]


def test_an_image_without_the_word_that_is_asked_for_is_refused() -> None:
    why = Refusal(rule=Rule.ENDORSEMENT, detail="nobody signed for it")
    found = ask(listed(1), subscription(accepted(vouched(listed(1), refusal=why))))
    assert rules(found) == [Rule.ENDORSEMENT]


def test_a_revoked_image_is_refused_with_the_reason() -> None:
    revoked = Revocation(
        identifier=listed(1).identifier,
        version="1.0",
        sha512=listed(1).sha512,
        reason="a key was left in it",
        revoked_at=NOW,
    )
    for images in ((listed(2),), (listed(1), listed(2))):
        found = ask(listed(1), subscription(accepted(*images, revoked=(revoked,))))
        assert rules(found) == [Rule.IMAGE_REVOKED]
        assert "a key was left in it" in str(found)


def test_an_image_that_left_its_list_is_refused_as_such() -> None:
    before = subscription(accepted(listed(1), listed(2)))
    after = after_success(before, accepted(listed(2)), now=NOW)
    assert rules(ask(listed(1), after)) == [Rule.IMAGE_REMOVED]
    assert ask(listed(2), after).trusted
    back = after_success(after, accepted(listed(1)), now=NOW)
    assert ask(listed(1), back).trusted
    assert rules(ask(listed(2), back)) == [Rule.IMAGE_REMOVED]


def test_one_list_that_holds_is_enough() -> None:
    old = subscription(accepted(listed(1), until=NOW - DAY))
    short = subscription(accepted(vouched(listed(1), until=NOW + DAY)))
    long = subscription(accepted(listed(1), title="Longer"))
    found = ask(listed(1), old, short, long)
    assert found.trusted
    assert [each.title for each in found.vouchers] == ["Longer", "Images"]
    assert rules(found) == [Rule.EXPIRED]


def test_the_admins_block_comes_before_all_lists() -> None:
    image = listed(1)
    found = admission(
        image.sha512, [subscription(accepted(image))], blocked={image.sha512: "stolen"}, now=NOW
    )
    assert rules(found) == [Rule.BLOCKED]
    assert "stolen" in str(found)


def test_an_image_under_two_names_is_trusted_by_the_better_one() -> None:
    twin = replace(listed(2), sha512=listed(1).sha512)
    why = Refusal(rule=Rule.ENDORSEMENT, detail="no")
    found = ask(listed(1), subscription(accepted(vouched(listed(1), refusal=why), vouched(twin))))
    assert [each.image.title for each in found.vouchers] == ["el2"]


def test_a_refused_image_gives_an_error_with_rule_and_hint() -> None:
    error = ask(listed(1)).error("el1")
    assert isinstance(error, Untrusted)
    assert "image 'el1'" in error.message
    assert "rule 'unendorsed'" in error.message
    assert error.hint == Rule.UNENDORSED.mend


STANDINGS = [
    (subscription(None), Standing.NEVER_SEEN),
    (subscription(accepted()), Standing.TRUSTED),
    (subscription(accepted(until=NOW - DAY)), Standing.EXPIRED),
    (
        subscription(accepted(), withdrawn=Refusal(rule=Rule.ROLE, detail="")),
        Standing.WITHDRAWN,
    ),
]


@pytest.mark.parametrize(("one", "expected"), STANDINGS)
def test_a_list_stands_as_its_record_says(one: Subscription, expected: Standing) -> None:
    assert standing(one, NOW) is expected


def test_running_images_that_lost_their_word_are_found() -> None:
    lists = [subscription(accepted(listed(1)))]
    running = [listed(1).sha512, listed(2).sha512]
    found = dict(no_longer_trusted(running, lists, blocked={}, now=NOW))
    assert found.keys() == {listed(2).sha512}


# --- what an update makes of a record ------------------------------------------------------------

REFUSED = Refusal(rule=Rule.SIGNATURE, detail="changed")


def test_an_offer_that_is_no_good_changes_nothing_but_is_noted() -> None:
    before = subscription(accepted(listed(1)))
    after = after_refusal(before, REFUSED, now=NOW)
    assert after.accepted == before.accepted
    assert after.trouble is not None
    assert after.trouble.refusal == REFUSED
    assert ask(listed(1), after).trusted


def test_trouble_is_dated_from_its_beginning_and_ends_with_success() -> None:
    first = after_failure(subscription(accepted(listed(1))), "no route", now=NOW)
    second = after_refusal(first, REFUSED, now=NOW + DAY)
    assert second.trouble is not None
    assert second.trouble.since == NOW
    after = after_success(second, accepted(listed(1)), now=NOW + 2 * DAY)
    assert after.trouble is None
    assert after.updated_at == NOW + 2 * DAY


@pytest.mark.parametrize("rule", [Rule.CRL_MISSING, Rule.CRL_EXPIRED, Rule.CRL_FUTURE])
def test_a_stale_revocation_list_stops_no_image(rule: Rule) -> None:
    looked = Refusal(rule=rule, detail="")
    after = after_second_look(subscription(accepted(listed(1))), looked)
    assert ask(listed(1), after).trusted


@pytest.mark.parametrize(
    "rule", [Rule.CERTIFICATE_REVOKED, Rule.AUTHORITY, Rule.ENDORSER, Rule.SIGNATURE, Rule.CHAIN]
)
def test_any_other_fault_of_the_list_that_is_held_stops_its_images(rule: Rule) -> None:
    looked = Refusal(rule=rule, detail="")
    after = after_second_look(subscription(accepted(listed(1))), looked)
    assert rules(ask(listed(1), after)) == [rule]
    again = after_second_look(after, accepted(listed(1)))
    assert ask(listed(1), again).trusted


def test_a_stale_revocation_list_does_not_undo_a_withdrawal() -> None:
    gone = subscription(accepted(listed(1)), withdrawn=REFUSED)
    after = after_second_look(gone, Refusal(rule=Rule.CRL_EXPIRED, detail=""))
    assert not ask(listed(1), after).trusted


def test_the_authority_of_an_endorser_is_written_down_with_the_first_list() -> None:
    before = subscription(None, endorsers=(Principal(dn="/CN=Jo"), Principal(dn="/CN=Ann")))
    after = after_success(before, accepted(listed(1)), now=NOW)
    assert after.endorsers == (JO, Principal(dn="/CN=Ann"))


numbers = st.lists(st.integers(1, 5), max_size=4, unique=True)


@given(st.lists(numbers, min_size=1, max_size=6))
def test_only_images_of_the_newest_list_are_trusted(versions: list[list[int]]) -> None:
    followed = subscription(None)
    for each in versions:
        followed = after_success(followed, accepted(*(listed(number) for number in each)), now=NOW)
    for number in range(1, 6):
        found = ask(listed(number), followed)
        assert found.trusted == (number in versions[-1])
        seen = any(number in each for each in versions)
        if not found.trusted:
            assert rules(found) == [Rule.IMAGE_REMOVED if seen else Rule.UNENDORSED]


def test_the_memory_of_former_images_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mayfly.images.lists.subscriptions.FORMER_MOST", 3)
    before = subscription(accepted(*(listed(number) for number in range(1, 9))))
    assert len(after_success(before, accepted(), now=NOW).former) == 3


def test_a_checksum_stands_for_one_image() -> None:
    assert sha512("image 1") == listed(1).sha512 != listed(2).sha512
