"""A job that Mayfly failed on one host goes to the others."""

from __future__ import annotations

import pytest

from mayfly.batch.gridengine.elsewhere import elsewhere, joined, parse_resources

SHOWN = """\
job_number:                 7
hard resource_list:         vmem=1g,vm_ready=TRUE
soft resource_list:         vm_hot=*debian-12*
"""
HOSTS = ("n1", "n2", "n3")


def test_a_job_is_kept_from_the_host_where_it_failed() -> None:
    resources = parse_resources(SHOWN)
    assert resources == {"vmem": "1g", "vm_ready": "TRUE"}
    once = elsewhere(resources, "n1", HOSTS)
    assert joined(once) == "vmem=1g,vm_ready=TRUE,hostname=!n1"
    twice = elsewhere(once, "n3", HOSTS)
    assert twice["hostname"] == "!n1&!n3"


@pytest.mark.parametrize(
    ("resources", "here", "others"),
    [
        ({"hostname": "n1"}, "n1", HOSTS),
        ({"h": "n*"}, "n1", HOSTS),
        ({"hostname": "!n1&n[23]"}, "n2", HOSTS),
        ({}, "n1", ("n1",)),
        ({}, "n1", ()),
        ({"hostname": "!n2&!n3"}, "n1", HOSTS),
        ({"hostname": "!n1"}, "n1", HOSTS),
        ({}, "", HOSTS),
    ],
)
def test_what_the_job_says_stays_and_it_may_always_go_somewhere(
    resources: dict[str, str], here: str, others: tuple[str, ...]
) -> None:
    assert elsewhere(resources, here, others) == {}


@pytest.mark.parametrize("text", ["", "hard resource_list", "error: no such job\n", "a:b:c"])
def test_nothing_is_read_from_nonsense(text: str) -> None:
    assert parse_resources(text) == {}
