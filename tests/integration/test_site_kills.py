"""The server is killed at random moments: each lease has its machine afterwards, and no more."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Iterator
from signal import SIGKILL

import pytest

from mayfly.client import Client
from mayfly.errors import MayflyError
from mayfly.providers.fake import FakePlace
from tests.integration.people import somebody
from tests.integration.site import Server, server_of
from tests.integration.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

KILLS = int(os.environ.get("MAYFLY_SITE_KILLS", "20"))


@pytest.fixture
def server() -> Iterator[Server]:
    with somebody("mayfly-kills-t") as user, server_of(user, "", start=False) as server:
        fake = server.top / "fake"
        more = "[quota.user]\nmachines = 0\n"
        server.write_config(f'place = "fake"\nfake_directory = "{fake}"\n{more}')
        server.start()
        yield server


def load(server: Server, seed: int, over: threading.Event, wished: set[str]) -> None:
    """Create and delete machines as fast as the server lets one; notes what was promised."""
    chance = random.Random(seed)
    mine: list[str] = []
    while not over.is_set():
        with contextlib.suppress(MayflyError), Client(server.url) as client:
            if mine and chance.random() < 0.4:
                name = chance.choice(mine)
                # Once it was asked for, its end is promised by nobody, nor its stay.
                mine.remove(name)
                wished.discard(name)
                client.delete(name)
            else:
                lease = client.create("debian-12", for_s=3600)
                mine.append(lease.id)
                wished.add(lease.id)
            continue
        time.sleep(0.01)


def test_killed_at_random_moments(server: Server) -> None:
    seed = int(os.environ.get("MAYFLY_SITE_SEED", "0")) or random.randrange(1, 1 << 30)
    print(f"MAYFLY_SITE_SEED={seed}")
    chance = random.Random(seed)
    over, wished = threading.Event(), [set[str]() for _ in range(3)]
    threads = [
        threading.Thread(target=load, args=(server, seed + number, over, each))
        for number, each in enumerate(wished)
    ]
    for thread in threads:
        thread.start()
    try:
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.0, 0.4))
            server.end(SIGKILL)
            server.start()
    finally:
        over.set()
        for thread in threads:
            thread.join()
    place = FakePlace(server.top / "fake")
    wait_until(lambda: settled(server, place), "leases and machines to agree", limit_s=60.0)
    with server.client() as client:
        leases = {lease.id: lease for lease in client.leases()}
    # What was promised is there. One whose answer was lost may be there too, and is a lease.
    assert set().union(*wished) <= set(leases), f"seed {seed}"
    assert all(lease.state == "running" for lease in leases.values()), f"seed {seed}"


def settled(server: Server, place: FakePlace) -> bool:
    with server.client() as client:
        leases = {lease.id: lease.machine for lease in client.leases()}
        calm = all(lease.state == "running" for lease in client.leases())
    return calm and {one.key: one.id for one in place.machines()} == leases
