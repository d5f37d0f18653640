"""What the verifier answers for a job."""

from __future__ import annotations

import pytest

from mayfly.batch.gridengine.request import VARIABLE, read_request
from mayfly.batch.gridengine.verifier import (
    Params,
    answer_for,
    converse,
    options_of,
)
from mayfly.batch.wish import Wish
from mayfly.errors import Denied

PLAIN = {"USER": "eve", "GROUP": "users", "CLIENT": "qmaster", "N": "job"}


def _answer(params: Params, *, enabled: bool = True, image: str | None = None) -> list[str]:
    def look(wish: Wish, _: Params) -> str:
        if wish.image == "forbidden":
            raise Denied("image forbidden is denied:\nsee é", hint="ask")
        return wish.image if image is None else image

    return answer_for({**PLAIN, **params}, look, enabled=enabled, images=lambda: "el9 debian-12")


def _environment(lines: list[str]) -> str:
    found = [line for line in lines if line.startswith(f"ENV ADD {VARIABLE} ")]
    assert len(found) == 1
    return found[0].split(" ", 3)[3]


def test_line_of_2011() -> None:
    lines = _answer({"q_hard": "virt", "l_hard": "vmem=2g", "ac": "vm_name=ccin2p3"})
    request = read_request(_environment(lines))
    assert (request.options, request.guest_mib) == ({"image": "ccin2p3"}, 2048)
    assert "PARAM l_hard vmem=2176M,vm_ready=TRUE" in lines
    assert "PARAM ac vm_name=ccin2p3,vm_image=ccin2p3" in lines
    assert lines[-1] == "RESULT STATE CORRECT"


def test_resource_becomes_context_and_others_stay() -> None:
    lines = _answer({"l_hard": "arch=lx-amd64,vm_image=el9,h_rt=3600,h_vmem=1G", "l_soft": "a=1"})
    assert "PARAM l_hard arch=lx-amd64,h_rt=3600,h_vmem=1G,vmem=1024M,vm_ready=TRUE" in lines
    assert "PARAM l_soft a=1,vm_hot=*el9*" in lines
    request = read_request(_environment(lines))
    assert (request.whole_mib, request.guest_mib, request.wall_s) == (1024, 0, 3600)


def test_plain_job_is_left_alone_but_for_what_a_user_might_have_written() -> None:
    lines = _answer({"l_hard": "h_rt=10"})
    assert read_request(_environment(lines)).options == {}
    assert lines[1:] == ["RESULT STATE CORRECT"]


def test_image_of_the_queue() -> None:
    lines = _answer({}, image="el9")
    assert "PARAM l_hard vmem=640M,vm_ready=TRUE" in lines
    assert read_request(_environment(lines)).options == {}


def test_switched_off() -> None:
    assert _answer({}, enabled=False) == [f"ENV DEL {VARIABLE}", "RESULT STATE CORRECT"]
    assert "switched off" in _answer({"ac": "vm_image=el9"}, enabled=False)[0]


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"ac": "vm_image=forbidden"}, "image forbidden is denied: see ; ask"),
        ({"ac": "vm_image=a b"}, "no name of an image"),
        ({"ac": "vm_image=el9,vm_root=perhaps"}, "yes or no"),
        ({"l_hard": "vm_image=el9,vmem=much"}, "no size"),
        ({"ac": "vm_image=el9", "CLIENT": "qrsh"}, "interactive"),
        ({"ac": "vm_image=list"}, "el9 debian-12"),
    ],
)
def test_refused_in_one_plain_line(params: Params, told: str) -> None:
    lines = _answer(params)
    assert len(lines) == 1
    assert lines[0].startswith("RESULT STATE REJECT mayfly: ")
    assert told in lines[0]
    assert lines[0].isprintable()
    assert lines[0].isascii()


def test_context_goes_before_resources_and_lists_have_their_own_comma() -> None:
    params = {"l_hard": "vm_image=a", "ac": "vm_image=b,vm_network=restricted,vm_allow=x:1;y:2"}
    assert options_of(params) == {"image": "b", "network": "restricted", "allow": "x:1,y:2"}


def test_conversation_forgets_the_job_before_and_ignores_nonsense() -> None:
    said: list[str] = []
    seen: list[Params] = []

    def answer(params: Params) -> list[str]:
        seen.append(dict(params))
        return ["RESULT STATE ACCEPT"]

    lines = [
        "START\n",
        "PARAM ac a=b c\n",
        "ENV ADD x y\n",
        "BEGIN\n",
        "\n",
        "garbage\n",
        "PARAM\n",
    ]
    converse(
        [*lines, "START\n", "PARAM b y\n", "BEGIN\n", "QUIT\n", "BEGIN\n"], said.append, answer
    )
    assert seen == [{"ac": "a=b c"}, {"b": "y"}]
    assert said == ["STARTED", "RESULT STATE ACCEPT"] * 2
