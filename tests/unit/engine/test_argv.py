"""QEMU's arguments: what must hold of every plan."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.engine.argv import NO_NETWORK, PORTS, Drive, Plan, cpu_model, qemu_argv
from mayfly.engine.probe import Qemu
from mayfly.model import Shape
from tests.unit.engine.machines import QEMU

qemus = st.builds(
    lambda sandbox, rom, generation: replace(
        QEMU, has_sandbox=sandbox, has_rom_option=rom, has_vmgenid=generation
    ),
    *[st.booleans()] * 3,
)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Any plan; every descriptor in it is another number."""
    formats = draw(st.lists(st.sampled_from(["qcow2", "raw"]), min_size=1, max_size=4))
    fds = iter(draw(st.permutations(range(3, 30))))
    clone = draw(st.booleans())
    wired = draw(st.booleans())
    network = ("-netdev", f"tap,id=n0,fd={(tap := next(fds))}")
    return Plan(
        name="mayfly-abcdefgh",
        shape=Shape(cpus=draw(st.integers(1, 255)), memory_mib=draw(st.integers(1, 1 << 20))),
        accelerator=draw(st.sampled_from(["kvm", "tcg"])),
        memory_fd=next(fds) if not clone or draw(st.booleans()) else None,
        share_memory=not clone,
        incoming=clone,
        disks=tuple(Drive(fd=next(fds), format=name) for name in formats),
        agent_disk_fd=next(fds),
        sockets={name: next(fds) for name in ("qmp", *PORTS)},
        network=network if wired else NO_NETWORK,
        network_fds=(tap,) if wired else (),
    )


def values(argv: list[str], option: str) -> list[str]:
    """Give the values of an option, in order."""
    return [value for name, value in pairwise(argv) if name == option]


def value(argv: list[str], option: str) -> str:
    (only,) = values(argv, option)
    return only


def nodes(argv: list[str]) -> dict[str, dict[str, Any]]:
    """Give the block nodes by name; each must come after those that it names."""
    found: dict[str, dict[str, Any]] = {}
    for text in values(argv, "-blockdev"):
        node = json.loads(text)
        assert node.get("backing") is None or node["backing"] in found
        assert node["node-name"] not in found
        found[node["node-name"]] = node
    return found


def set_of(argv: list[str]) -> dict[str, int]:
    """Give which descriptor stands behind which /dev/fdset."""
    found = {}
    for text in values(argv, "-add-fd"):
        match = re.fullmatch(r"fd=(\d+),set=(\d+)", text)
        assert match is not None
        assert f"/dev/fdset/{match[2]}" not in found
        found[f"/dev/fdset/{match[2]}"] = int(match[1])
    return found


# --- disks ---------------------------------------------------------------------------------------


@given(qemus, plans())
def test_exactly_the_first_disk_is_writable(qemu: Qemu, plan: Plan) -> None:
    argv = qemu_argv(qemu, plan)
    sets = set_of(argv)
    writable = [node for node in nodes(argv).values() if node["read-only"] is not True]
    assert [sets[node["file"]["filename"]] for node in writable] == [plan.disks[0].fd]


@given(qemus, plans())
def test_the_guest_sees_the_first_disk_and_the_agent_disk(qemu: Qemu, plan: Plan) -> None:
    argv = qemu_argv(qemu, plan)
    found, sets = nodes(argv), set_of(argv)
    drives = [dict(item.split("=") for item in text.split(",")[1:]) for text in disks(argv)]
    behind = [sets[found[drive["drive"]]["file"]["filename"]] for drive in drives]
    assert behind == [plan.disks[0].fd, plan.agent_disk_fd]
    assert [drive["serial"] for drive in drives] == ["mayfly-root", "mayfly-agent"]
    assert ["bootindex" in drive for drive in drives] == [True, False]
    assert found[drives[1]["drive"]]["driver"] == "raw"


def disks(argv: list[str]) -> list[str]:
    return [text for text in values(argv, "-device") if text.startswith("virtio-blk-pci,")]


@given(qemus, plans())
def test_layers_lie_on_one_another_in_order(qemu: Qemu, plan: Plan) -> None:
    argv = qemu_argv(qemu, plan)
    found, sets = nodes(argv), set_of(argv)
    assert len(found) == len(plan.disks) + 1
    name: str | None = disks(argv)[0].split("drive=")[1].split(",")[0]
    for drive in plan.disks:
        assert name is not None
        node = found[name]
        assert (node["driver"], sets[node["file"]["filename"]]) == (drive.format, drive.fd)
        # Said of every qcow2, for else QEMU opens what the file itself names.
        assert "backing" in node or drive.format == "raw"
        name = node.get("backing")
    assert name is None


# --- isolation -----------------------------------------------------------------------------------


@given(qemus, plans())
def test_no_file_is_named_but_by_descriptor(qemu: Qemu, plan: Plan) -> None:
    program, *words = qemu_argv(qemu, plan)
    assert program == qemu.path
    for word in words:
        for path in re.findall(r"/[^\",]*", word):
            assert re.fullmatch(r"/proc/self/fd/\d+|/dev/fdset/\d+", path), word


@given(qemus, plans())
def test_every_descriptor_of_the_plan_is_used_once(qemu: Qemu, plan: Plan) -> None:
    text = " ".join(qemu_argv(qemu, plan))
    used = [int(number) for number in re.findall(r"\bfd[=/](\d+)", text)]
    given_fds = [
        *(() if plan.memory_fd is None else (plan.memory_fd,)),
        plan.agent_disk_fd,
        *(drive.fd for drive in plan.disks),
        *plan.sockets.values(),
        *plan.network_fds,
    ]
    assert sorted(used) == sorted(given_fds)


@given(qemus, plans())
def test_the_sandbox_is_strict_wherever_it_can_be_had(qemu: Qemu, plan: Plan) -> None:
    argv = qemu_argv(qemu, plan)
    if not qemu.has_sandbox:
        assert "-sandbox" not in argv
        return
    refused = {"obsolete", "elevateprivileges", "spawn", "resourcecontrol"}
    first, *rest = value(argv, "-sandbox").split(",")
    assert (first, set(rest)) == ("on", {f"{name}=deny" for name in refused})


@given(qemus, plans())
def test_there_is_nothing_that_was_not_asked_for(qemu: Qemu, plan: Plan) -> None:
    argv = qemu_argv(qemu, plan)
    assert {"-nodefaults", "-no-user-config"} <= set(argv)
    assert value(argv, "-display") == "none"
    assert not {"-monitor", "-vnc", "-spice", "-serial", "-daemonize", "-runas"} & set(argv)
    assert "dump-guest-core=off" in value(argv, "-machine")


# --- template and clone --------------------------------------------------------------------------


@given(qemus, plans())
def test_template_and_clone_have_the_same_devices(qemu: Qemu, plan: Plan) -> None:
    template = replace(plan, share_memory=True, incoming=False, disks=plan.disks[:1])
    clone = replace(
        plan,
        name="another",
        share_memory=False,
        incoming=True,
        memory_fd=50,
        network=NO_NETWORK,
        sockets={name: 51 + at for at, name in enumerate(plan.sockets)},
    )
    one, two = qemu_argv(qemu, template), qemu_argv(qemu, clone)
    for option in ("-device", "-global", "-machine", "-cpu", "-smp", "-m", "-rtc", "-accel"):
        assert values(one, option) == values(two, option)


@given(qemus, plans())
def test_only_a_clone_waits_for_its_state(qemu: Qemu, plan: Plan) -> None:
    argv = qemu_argv(qemu, plan)
    assert ("-S" in argv) is plan.incoming
    assert values(argv, "-incoming") == ["defer"] * plan.incoming


@given(qemus, plans())
def test_what_a_clone_writes_reaches_nobodys_memory(qemu: Qemu, plan: Plan) -> None:
    (text,) = [o for o in values(qemu_argv(qemu, plan), "-object") if "memory" in o]
    options = text.split(",")
    if plan.memory_fd is None:
        assert options[0] == "memory-backend-ram"
    else:
        assert f"mem-path=/proc/self/fd/{plan.memory_fd}" in options
    # By this name a saved memory finds its place again, whichever kind it was.
    assert "id=ram0" in options
    assert f"size={plan.shape.memory_mib}M" in options
    assert ("share=on" if plan.share_memory else "share=off") in options
    assert "share=on" not in options or not plan.incoming


@given(qemus, plans())
def test_the_shape_is_that_of_the_plan(qemu: Qemu, plan: Plan) -> None:
    argv = qemu_argv(qemu, plan)
    assert value(argv, "-smp") == str(plan.shape.cpus)
    assert value(argv, "-m") == f"{plan.shape.memory_mib}M"
    assert value(argv, "-accel").split(",")[0] == plan.accelerator
    assert value(argv, "-machine").split(",")[0] == qemu.machine_type
    assert value(argv, "-name") == plan.name


@given(qemus, plans())
def test_every_port_has_its_socket(qemu: Qemu, plan: Plan) -> None:
    argv = qemu_argv(qemu, plan)
    sockets = {
        match[1]: int(match[2])
        for text in values(argv, "-chardev")
        if (match := re.fullmatch(r"socket,id=(\w+),server=on,wait=off,fd=(\d+)", text))
    }
    assert sockets == plan.sockets
    assert value(argv, "-mon") == "chardev=qmp,mode=control"
    ports = [text for text in values(argv, "-device") if text.startswith("virtserialport")]
    assert len(ports) == len(PORTS)
    for name, text in zip(PORTS, ports, strict=True):
        assert f"chardev={name}" in text.split(",")
        assert f"name=org.mayfly.{name}" in text.split(",")


@given(qemus, plans())
def test_the_card_is_on_the_network_of_the_plan(qemu: Qemu, plan: Plan) -> None:
    argv = qemu_argv(qemu, plan)
    assert value(argv, "-netdev") == plan.network[1]
    (card,) = [text for text in values(argv, "-device") if "virtio-net-pci" in text]
    assert {"netdev=n0", "romfile="} <= set(card.split(","))


@given(plans())
def test_a_guest_hears_of_its_restoring_wherever_qemu_can_tell(plan: Plan) -> None:
    told = {
        has: any("vmgenid" in word for word in qemu_argv(replace(QEMU, has_vmgenid=has), plan))
        for has in (True, False)
    }
    assert told == {True: True, False: False}


def test_a_guest_may_use_all_that_there_is_of_a_cpu() -> None:
    assert cpu_model("kvm") == "host"
    assert cpu_model("tcg").split(",") == ["max", "erms=off", "fsrm=off"]


@pytest.mark.parametrize(("model", "expected"), [("", cpu_model("tcg")), ("Nehalem", "Nehalem")])
def test_a_cpu_model_may_be_asked_for(model: str, expected: str) -> None:
    plan = Plan(
        name="x",
        shape=Shape(cpus=1, memory_mib=256),
        accelerator="tcg",
        memory_fd=3,
        share_memory=True,
        incoming=False,
        disks=(Drive(fd=4, format="qcow2"),),
        agent_disk_fd=5,
        sockets={name: 6 + at for at, name in enumerate(("qmp", *PORTS))},
        cpu_model=model,
    )
    assert value(qemu_argv(QEMU, plan), "-cpu") == expected
