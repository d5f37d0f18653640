"""A site in memory and two of its users."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from mayfly.ec2.memory import Memory
from mayfly.ec2.service import Service
from tests.unit.ec2 import calls
from tests.unit.ec2.calls import Client, Clock


class World(NamedTuple):
    """Everything a test of the API needs."""

    clock: Clock
    memory: Memory
    service: Service
    alice: Client
    bob: Client


@pytest.fixture
def world() -> World:
    clock = Clock()
    made = calls.memory(clock)
    serving = calls.service(made, clock)
    alice = calls.client(made, serving, clock)
    bob = calls.client(made, serving, clock, "bob")
    return World(clock, made, serving, alice, bob)
