"""What every implementation of the ports must do; each is one of ``MAKERS``."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Protocol, cast

import pytest

from mayfly.ec2.fault import Fault, TokenReused
from mayfly.ec2.ports import Catalogue, KeyPairs, Machines, Tags
from mayfly.ec2.values import Instance, KeyPair, Order, Phase, Tag, Verb
from mayfly.errors import Conflict, Missing, Quota
from mayfly.providers.fake import FakePlace
from mayfly.reconcile.loop import Reconciler
from mayfly.server.ec2.machines import LeasedMachines
from mayfly.server.ec2.notes import Notes
from mayfly.server.site import Site
from mayfly.site.people import Roles, asker_of
from mayfly.site.quota import Amounts, Quotas
from tests.unit.ec2 import calls
from tests.unit.store.databases import sqlite_at

SOON_S = 60.0


class Whole(Machines, KeyPairs, Tags, Catalogue, Protocol):
    """All ports in one."""


@contextlib.contextmanager
def in_memory(_directory: Path) -> Iterator[Whole]:
    yield calls.memory(most=10)


@contextlib.contextmanager
def leased(directory: Path) -> Iterator[Whole]:
    """Give a real site: its database, its loop; only the machines are files."""
    database = sqlite_at(directory)
    place = FakePlace(directory / "machines")
    loop = Reconciler(database=database, place=place, interval_s=0.02)
    quotas = Quotas(user=Amounts(machines=10))
    leases = Site(
        database=database,
        place=place,
        reconciler=loop,
        quotas=quotas,
        clock=time.time,
        wake=loop.wake,
    )
    machines = LeasedMachines(
        site=leases,
        sizes=calls.TYPES,
        people=lambda name: asker_of(name, (name,), Roles(), "ec2"),
    )
    notes = Notes(database)
    parts = {name: getattr(machines, name) for name in (*MACHINES, "images", "types")}
    parts |= {name: getattr(notes, name) for name in NOTES}
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        yield cast("Whole", SimpleNamespace(**parts))
    finally:
        loop.stop()
        thread.join()
        database.close()


MACHINES = ("check", "run", "instances", "change", "console")
NOTES = ("key_pairs", "add_key_pair", "remove_key_pair", "tags", "put_tags", "remove_tags")
MAKERS = {"memory": in_memory, "leased": leased}
"""Each gives a site where a user may have ten instances."""


@pytest.fixture(params=MAKERS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Whole]:
    with MAKERS[request.param](tmp_path) as made:
        yield made


def where_offered(act: Callable[[], object]) -> None:
    """Do it, or be told that this site does not offer it."""
    try:
        done = act() is not None
    except Fault as fault:
        done = fault.code == "UnsupportedOperation"
    assert done


def order(site: Whole, count: int = 1, token: str = "t", least: int | None = None) -> Order:
    return Order(
        image=site.images("alice")[0].id,
        type=site.types()[0].name,
        least=count if least is None else least,
        most=count,
        tags=(("a", "b"),),
        token=token,
    )


def wait(site: Whole, instance: str, phase: Phase) -> Instance:
    """Look until it is in this state."""
    end = time.monotonic() + SOON_S
    while True:
        found = {each.id: each for each in site.instances("alice")}[instance]
        if found.phase is phase:
            return found
        time.sleep(0.005)  # between two looks
        assert time.monotonic() < end, f"{instance} did not become {phase}: {found}"


def test_an_order_is_granted(site: Whole) -> None:
    made = site.run("alice", order(site, 3))
    assert all(re.fullmatch("i-[0-9a-f]{17}", each.id) for each in made)
    assert len({each.id for each in made}) == 3
    assert [each.index for each in made] == [0, 1, 2]
    assert len({each.reservation for each in made}) == 1
    assert re.fullmatch("r-[0-9a-f]{17}", made[0].reservation)
    assert {each.token for each in made} == {"t"}
    assert {each.id for each in site.instances("alice")} == {each.id for each in made}
    assert {tag.resource for tag in site.tags("alice")} == {each.id for each in made}
    assert site.instances("bob") == ()
    assert wait(site, made[0].id, Phase.RUNNING).launched_at == made[0].launched_at


def test_a_token_of_our_own_is_not_shown(site: Whole) -> None:
    (made,) = site.run("alice", order(site, token="signature 0123"))
    assert made.token == ""


def test_a_token_makes_one_order(site: Whole) -> None:
    first = site.run("alice", order(site, 2))
    assert [each.id for each in site.run("alice", order(site, 2))] == [each.id for each in first]
    with pytest.raises(TokenReused):
        site.run("alice", order(site, 3))
    with pytest.raises(TokenReused):
        site.run("alice", replace(order(site, 2), tags=()))
    assert len(site.instances("alice")) == 2
    assert site.run("bob", order(site, 2))[0].id not in {each.id for each in first}


def test_one_token_many_times_at_once_makes_one_order(site: Whole) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: site.run("alice", order(site, 2)), range(24)))
    assert len({each.id for those in made for each in those}) == 2


def test_an_order_that_does_not_fit_makes_nothing(site: Whole) -> None:
    with pytest.raises(Quota):
        site.check("alice", order(site, 11))
    with pytest.raises(Quota):
        site.run("alice", order(site, 11))
    assert site.instances("alice") == ()
    site.check("alice", order(site, 10))
    assert site.instances("alice") == ()
    assert len(site.run("alice", order(site, 20, least=1))) == 10


def test_an_instance_stops_starts_and_ends(site: Whole) -> None:
    (made,) = site.run("alice", order(site))
    wait(site, made.id, Phase.RUNNING)
    (change,) = site.change("alice", Verb.STOP, (made.id,))
    assert change.before is Phase.RUNNING
    wait(site, made.id, Phase.STOPPED)
    with pytest.raises(Conflict):
        site.change("alice", Verb.REBOOT, (made.id,))
    site.change("alice", Verb.START, (made.id,))
    wait(site, made.id, Phase.RUNNING)
    where_offered(lambda: site.change("alice", Verb.REBOOT, (made.id,)))
    site.change("alice", Verb.TERMINATE, (made.id,))
    wait(site, made.id, Phase.TERMINATED)
    (again,) = site.change("alice", Verb.TERMINATE, (made.id,))
    assert (again.before, again.after) == (Phase.TERMINATED, Phase.TERMINATED)
    with pytest.raises(Conflict):
        site.change("alice", Verb.START, (made.id,))


@pytest.mark.parametrize("verb", Verb)
def test_another_users_instance_is_missing(site: Whole, verb: Verb) -> None:
    (hers,) = site.run("alice", order(site))
    (his,) = site.run("bob", order(site))
    wait(site, hers.id, Phase.RUNNING)
    with pytest.raises(Missing):
        site.change("bob", verb, (hers.id, his.id))
    with pytest.raises(Missing):
        site.console("bob", hers.id)
    where_offered(lambda: site.console("alice", hers.id))
    assert wait(site, hers.id, Phase.RUNNING).id == hers.id


def test_key_pairs(site: Whole) -> None:
    made = site.images("alice")[0].created_at
    pair = KeyPair(
        id="key-1", name="k", kind="ed25519", public="a b", fingerprint="f", created_at=made
    )
    site.add_key_pair("alice", pair)
    site.put_tags("alice", [Tag(resource="key-1", key="a", value="")], most=1)
    with pytest.raises(Conflict):
        site.add_key_pair("alice", pair)
    assert (site.key_pairs("alice"), site.key_pairs("bob")) == ((pair,), ())
    site.remove_key_pair("bob", "k")
    assert site.key_pairs("alice") == (pair,)
    site.remove_key_pair("alice", "k")
    site.remove_key_pair("alice", "k")
    assert (site.key_pairs("alice"), site.tags("alice")) == ((), ())


def test_tags(site: Whole) -> None:
    one, two = (Tag(resource="i-1", key=key, value="v") for key in ("a", "b"))
    site.put_tags("alice", [one, two], most=2)
    with pytest.raises(Quota):
        site.put_tags("alice", [replace(one, key="c"), replace(one, resource="i-2")], most=2)
    assert set(site.tags("alice")) == {one, two}
    site.put_tags("alice", [replace(one, value="w")], most=2)
    site.remove_tags("bob", [("i-1", "a", None)])
    site.remove_tags("alice", [("i-1", "a", "v"), ("i-1", "none", None), ("i-1", "b", "v")])
    assert site.tags("alice") == (replace(one, value="w"),)
    site.remove_tags("alice", [("i-1", "a", None)])
    assert site.tags("alice") == ()
