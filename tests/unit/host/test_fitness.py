"""Whether machines can be made on a host, as far as the last ones tell."""

from __future__ import annotations

from mayfly.errors import Denied, Failed, Missing, Quota
from mayfly.host.fitness import FAILURES, PROBATION_S, Fitness

BROKEN = Failed("QEMU did not start")


def sick() -> Fitness:
    fitness = Fitness()
    for _ in range(FAILURES):
        fitness.failed("el9", BROKEN, 10.0)
    return fitness


def test_a_host_that_fails_again_and_again_is_sick_and_says_why() -> None:
    fitness = Fitness()
    for _ in range(FAILURES - 1):
        fitness.failed("el9", BROKEN, 10.0)
    assert fitness.trouble(10.0) == ""
    fitness.failed("el8", Quota("no room"), 11.0)
    assert fitness.trouble(11.0) == f"the last {FAILURES} machines could not be made: no room"


def test_one_machine_that_is_made_makes_it_well() -> None:
    fitness = sick()
    fitness.made("el9", 11.0)
    assert fitness.trouble(11.0) == ""


def test_an_image_that_boots_nowhere_is_no_fault_of_the_host() -> None:
    fitness = Fitness()
    fitness.made("el8", 10.0)
    for at in (1000.0, 1001.0, 1002.0, 1003.0):
        fitness.failed("el9", BROKEN, at)
    assert fitness.trouble(1003.0) == ""
    # Until that one fails, too.
    fitness.failed("el8", BROKEN, 1004.0)
    assert "the last 5 machines" in fitness.trouble(1004.0)


def test_after_a_while_it_is_tried_again() -> None:
    fitness = sick()
    assert fitness.trouble(10.0 + PROBATION_S - 1) != ""
    assert fitness.trouble(10.0 + PROBATION_S) == ""
    fitness.failed("el9", BROKEN, 10.0 + PROBATION_S)
    assert fitness.trouble(10.0 + PROBATION_S) == ""


def test_mistakes_of_requests_do_not_count() -> None:
    fitness = Fitness()
    for error in (Denied("no"), Missing("none"), Denied("no"), Missing("none")):
        fitness.failed("el9", error, 10.0)
    assert fitness.trouble(10.0) == ""
