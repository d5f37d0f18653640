"""Lists are subscribed and followed; a bad server, a revoked endorser and a kill are survived."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mayfly.errors import Conflict, Invalid, Missing, Unavailable, Untrusted
from mayfly.images.lists.admission import Standing, standing
from mayfly.images.lists.authorities import Anchor, Kind
from mayfly.images.lists.check import Principal
from mayfly.images.lists.openssl import Signer, read_certificate
from mayfly.images.lists.rules import Rule
from mayfly.images.lists.update import Request, subscribe, update, update_all
from tests.unit.images.lists.pki import DAY, NOW, SPACE, Ca, make_ca
from tests.unit.images.lists.samples import LIST, image_list, listed, signed_list
from tests.unit.images.lists.sites import URL, Server, Site, make_site, principal

NEXT = "20260101000001"


@pytest.fixture
def site(tmp_path: Path, grid: Path, jo: Signer) -> Site:
    return make_site(tmp_path / "trust", grid, signed_list(jo))


def trusted(site: Site, number: int = 1) -> bool:
    return site.store.admission(listed(number).sha512, NOW).trusted


def why_not(site: Site, number: int = 1) -> list[Rule]:
    return [each.rule for each in site.store.admission(listed(number).sha512, NOW).refusals]


def trouble(site: Site) -> Rule | str | None:
    found = site.store.subscription(LIST).trouble
    return None if found is None else found.refusal.rule if found.refusal else found.words


def test_a_subscribed_list_makes_its_images_trusted(site: Site, jo: Signer) -> None:
    assert not trusted(site)
    site.subscribe(jo)
    assert trusted(site)
    assert site.server.asked == [URL]
    found = site.store.subscription(LIST)
    assert found.endorsers == (Principal(dn=principal(jo).dn, ca=f"{SPACE}/CN=Root CA"),)


def test_a_list_is_subscribed_once(site: Site, jo: Signer) -> None:
    site.subscribe(jo)
    with pytest.raises(Conflict):
        site.subscribe(jo)


def test_a_list_that_breaks_a_rule_is_not_subscribed(site: Site, jo: Signer) -> None:
    site.server.message = signed_list(jo, replace(image_list(), expires_at=NOW - DAY))
    with pytest.raises(Untrusted, match="rule 'expired'"):
        site.subscribe(jo)
    assert site.store.subscriptions() == ()


def test_a_list_of_somebody_else_is_not_subscribed(site: Site, root_ca: Ca) -> None:
    with pytest.raises(Untrusted, match="rule 'endorser'"):
        site.subscribe(root_ca.issue("not Jo"))


@pytest.mark.parametrize(
    "request_for",
    [
        lambda who: Request(url="ftp://x/y", endorsers=(who,)),
        lambda who: Request(url="/etc/passwd", endorsers=(who,)),
        lambda who: Request(url=URL, endorsers=()),
        lambda who: Request(url=URL, endorsers=(Principal(dn="Jo"),)),
        lambda who: Request(url=URL, endorsers=(who,), image_endorsers=(Principal(dn=""),)),
        lambda who: Request(url=URL, endorsers=(replace(who, ca="CA"),)),
    ],
)
def test_a_wish_that_cannot_be_is_refused_before_anything_is_fetched(
    site: Site, jo: Signer, request_for: Callable[[Principal], Request]
) -> None:
    with pytest.raises(Invalid):
        subscribe(site.store, request_for(principal(jo)), site.settings, now=NOW, ask=site.server)
    assert site.server.asked == []


def test_a_newer_version_takes_the_place_of_the_older(site: Site, jo: Signer) -> None:
    site.subscribe(jo)
    site.server.message = signed_list(jo, image_list(listed(2), version=NEXT))
    assert site.update().changed
    assert trusted(site, 2)
    assert why_not(site, 1) == [Rule.IMAGE_REMOVED]


def test_the_same_message_again_changes_nothing(site: Site, jo: Signer) -> None:
    site.subscribe(jo)
    done = site.update(NOW + DAY)
    assert not done.changed
    assert done.after.updated_at == NOW + DAY
    assert trusted(site)


def test_an_empty_list_takes_all_images_away(site: Site, jo: Signer) -> None:
    site.subscribe(jo)
    site.server.message = signed_list(jo, replace(image_list(version=NEXT), images=()))
    site.update()
    assert why_not(site) == [Rule.IMAGE_REMOVED]


def bad_offers(jo: Signer) -> dict[Rule, bytes]:
    newer = image_list(listed(2), version=NEXT)
    return {
        Rule.VERSION: signed_list(jo, image_list(listed(2), version="20250101000000")),
        Rule.SIGNATURE: signed_list(jo, newer).replace(b"el2.qcow2", b"xx2.qcow2"),
        Rule.SIGNED: b"<html>please log in</html>",
        Rule.EXPIRED: signed_list(jo, replace(newer, expires_at=NOW - DAY)),
        Rule.FUTURE: signed_list(jo, replace(newer, created_at=NOW + DAY)),
        Rule.IDENTIFIER: signed_list(jo, replace(newer, identifier=LIST.replace("1", "2"))),
    }


@pytest.mark.parametrize(
    "rule",
    [
        Rule.VERSION,
        Rule.SIGNATURE,
        Rule.SIGNED,
        Rule.EXPIRED,
        Rule.FUTURE,
        Rule.IDENTIFIER,
    ],
)
def test_a_bad_offer_is_noted_and_stops_nothing(site: Site, jo: Signer, rule: Rule) -> None:
    site.subscribe(jo)
    site.server.message = bad_offers(jo)[rule]
    assert not site.update().changed
    assert trouble(site) is rule
    assert trusted(site, 1)
    assert not trusted(site, 2)


def test_a_server_that_is_gone_is_noted_and_stops_nothing(site: Site, jo: Signer) -> None:
    site.subscribe(jo)
    site.server.message = None
    site.update()
    assert "no route to host" in str(trouble(site))
    assert trusted(site)
    site.server.message = signed_list(jo)
    site.update()
    assert trouble(site) is None


def test_a_list_that_nobody_renews_ends(site: Site, jo: Signer) -> None:
    site.subscribe(jo)
    later = NOW + 30 * DAY
    site.update(later)
    found = site.store.subscription(LIST)
    assert standing(found, later) is Standing.EXPIRED
    assert not site.store.admission(listed(1).sha512, later).trusted


def own_site(tmp_path: Path) -> tuple[Ca, Signer, Site]:
    """Make a site that follows a list of an authority of its own."""
    ca = make_ca(tmp_path / "ca", f"{SPACE}/CN=Changing CA")
    signer = ca.issue("Ann")
    ca.install(tmp_path / "changing")
    site = make_site(tmp_path / "trust", tmp_path / "changing", signed_list(signer))
    site.subscribe(signer)
    return ca, signer, site


@pytest.mark.parametrize("reachable", [True, False])
def test_a_revoked_endorser_stops_the_images_at_the_next_update(
    tmp_path: Path, reachable: bool
) -> None:
    ca, signer, site = own_site(tmp_path)
    if not reachable:
        site.server.message = None
    ca.revoke(signer)
    ca.install(tmp_path / "changing")
    assert site.update().changed
    assert why_not(site) == [Rule.CERTIFICATE_REVOKED]


def test_a_stale_revocation_list_stops_new_lists_only(tmp_path: Path) -> None:
    ca, signer, site = own_site(tmp_path)
    ca.install(tmp_path / "changing", crl=ca.crl(last=NOW - 9 * DAY, following=NOW - DAY))
    site.server.message = signed_list(signer, image_list(listed(2), version=NEXT))
    site.update()
    assert trouble(site) is Rule.CRL_EXPIRED
    assert trusted(site, 1)
    assert not trusted(site, 2)
    ca.install(tmp_path / "changing")
    site.update()
    assert trusted(site, 2)


def test_a_key_that_the_admin_removes_stops_its_images_and_comes_back(
    tmp_path: Path, jo: Signer
) -> None:
    site = make_site(tmp_path / "trust", tmp_path / "no grid", signed_list(jo))
    owner = read_certificate(jo.certificate)
    anchor = Anchor(name="jo", kind=Kind.KEY, certificate=owner)
    site.store.add_anchor(anchor)
    site.subscribe(jo)
    site.store.remove_anchor("jo")
    site.update()
    assert why_not(site) == [Rule.AUTHORITY]
    site.store.add_anchor(anchor)
    site.update()
    assert trusted(site)


def test_a_message_that_is_gone_is_no_reason_to_trust(site: Site, jo: Signer) -> None:
    site.subscribe(jo)
    for file in (site.store.directory / "messages").iterdir():
        file.unlink()
    site.server.message = None
    site.update()
    assert why_not(site) == [Rule.SIGNED]


def test_a_directory_that_cannot_be_read_revokes_nobody(site: Site, jo: Signer) -> None:
    site.subscribe(jo)
    (grid,) = site.settings.grids
    for file in grid.iterdir():
        file.unlink()
    grid.rmdir()
    grid.symlink_to(grid)  # reading it fails, as a dead network file system does
    with pytest.raises(Unavailable):
        site.update()
    assert update_all(site.store, site.settings, now=NOW, ask=site.server) == []
    assert trusted(site)


def test_all_lists_are_updated_though_one_fails(site: Site, jo: Signer) -> None:
    site.subscribe(jo)
    other = LIST.replace("5", "6")
    site.server.message = signed_list(jo, replace(image_list(listed(2)), identifier=other))
    request = Request(url=f"{URL}2", endorsers=(principal(jo),))
    subscribe(site.store, request, site.settings, now=NOW, ask=site.server)

    def ask(url: str) -> bytes:
        if url == URL:
            raise Unavailable("gone")
        return signed_list(jo, image_list(listed(3), identifier=other, version=NEXT))

    done = update_all(site.store, site.settings, now=NOW, ask=ask)
    assert [each.changed for each in done] == [False, True]
    assert trusted(site, 1)
    assert trusted(site, 3)


def test_an_unknown_list_is_not_updated(site: Site) -> None:
    with pytest.raises(Missing):
        site.update()


# --- many at once --------------------------------------------------------------------------------


def test_of_two_updaters_the_one_with_the_newer_list_wins(site: Site, jo: Signer) -> None:
    site.subscribe(jo)
    newer = signed_list(jo, image_list(listed(2), version=NEXT))
    old = site.server.message

    def slow(url: str) -> bytes:
        assert url == URL
        # While this one has the old list in hand, another one fetches and writes the new one.
        update(site.store, LIST, site.settings, now=NOW, ask=Server(message=newer))
        assert old is not None
        return old

    update(site.store, LIST, site.settings, now=NOW, ask=slow)
    assert trusted(site, 2)
    assert not trusted(site, 1)
    assert trouble(site) is None  # nobody offered an old list: it was only late


def test_many_updaters_at_once_leave_the_newest(site: Site, jo: Signer) -> None:
    site.subscribe(jo)
    offers = [
        signed_list(jo, image_list(listed(number), version=f"2026010100000{number}"))
        for number in range(2, 6)
    ]
    threads = [
        threading.Thread(
            target=update,
            args=(site.store, LIST, site.settings),
            kwargs={"now": NOW, "ask": Server(message=offer)},
        )
        for offer in offers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = site.store.subscription(LIST)
    assert found.accepted is not None
    (image,) = found.accepted.images
    assert site.store.message(found) == offers[int(image.image.title[-1]) - 2]
    update(site.store, LIST, site.settings, now=NOW, ask=Server(message=offers[-1]))
    assert trusted(site, 5)


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A place for what a killed process leaves, which other users can reach."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        monkeypatch.setattr("tempfile.tempdir", name)
        yield
        monkeypatch.undo()


@pytest.mark.usefixtures("temporary")
@pytest.mark.parametrize("delay_ms", range(0, 800, 100))
def test_an_update_that_is_killed_leaves_what_was_or_what_is(
    site: Site, jo: Signer, delay_ms: int
) -> None:
    site.subscribe(jo)
    site.server.message = signed_list(jo, image_list(listed(2), version=NEXT))
    child = os.fork()
    if child == 0:
        try:
            site.update()
        finally:
            os._exit(0)
    threading.Event().wait(delay_ms / 1000)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert trusted(site, 1) != trusted(site, 2)
    site.update()
    assert trusted(site, 2)
