"""A real agent for the tests of one file; sessions run as the user of the tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.guest.host import Agent, Peer, assert_soon, running_agent


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    with running_agent(tmp_path_factory.mktemp("root"), "--test-unclaimed") as agent:
        yield agent


@pytest.fixture
def session(agent: Agent) -> Iterator[Peer]:
    """Give the session port; whatever a test does, the agent keeps nothing of it."""
    agent.session.sync()
    before = agent.descriptors()
    yield agent.session
    agent.session.generous = True
    agent.session.sync()
    assert_soon(lambda: agent.descriptors() == before)
    assert_soon(lambda: not agent.children())
