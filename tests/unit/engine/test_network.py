"""Plans of networks, and what is said where one cannot be had; nothing is built here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mayfly.engine.network import attach as network
from mayfly.engine.network import netns
from mayfly.engine.network.attach import NetworkPlan, check_plan, start_network
from mayfly.engine.privileges import namespace_hint
from mayfly.errors import Denied, Invalid, Unavailable
from mayfly.model import NetworkMode


def test_no_network_needs_nothing_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netns, "TUN", "/nowhere/tun")
    with start_network(NetworkPlan(mode=NetworkMode.NONE)) as attachment:
        assert attachment.qemu_args == ("-netdev", "hubport,id=n0,hubid=0")
        assert attachment.pass_fds == ()
        assert attachment.guest is None
        assert not attachment.env


@pytest.mark.parametrize("mode", [NetworkMode.NONE, NetworkMode.OPEN])
def test_a_list_is_only_for_restricted(mode: NetworkMode) -> None:
    with pytest.raises(Invalid, match=f"no meaning with network '{mode.value}'") as caught:
        check_plan(NetworkPlan(mode=mode, allow=("example.org:443",)))
    assert "restricted" in caught.value.hint


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (NetworkPlan(mode=NetworkMode.RESTRICTED, allow=("example.org",)), "'example.org'"),
        (NetworkPlan(mode=NetworkMode.OPEN, site_networks=("10.0.0/8",)), "'10.0.0/8'"),
    ],
)
def test_a_wrong_plan_is_refused_before_anything_is_built(plan: NetworkPlan, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        start_network(plan).__enter__()


def test_a_host_without_tun_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netns, "TUN", "/nowhere/tun")
    with pytest.raises(Unavailable, match="cannot open /nowhere/tun") as caught:
        start_network(NetworkPlan(mode=NetworkMode.OPEN)).__enter__()
    assert caught.value.hint == "sudo modprobe tun"


def test_a_user_who_may_not_open_tun_gets_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(Denied) as caught:
        network.require_tun()
    assert caught.value.hint == (
        "sudo chmod 0666 /dev/net/tun; for good: "
        """echo 'KERNEL=="tun", MODE="0666"' | sudo tee /etc/udev/rules.d/50-mayfly-tun.rules"""
    )


def test_what_is_unknown_about_the_host_is_not_taken_for_safe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unreadable(path: str, **_: str) -> str:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(network, "_text", unreadable)
    with pytest.raises(Unavailable, match="this host's own addresses"):
        network.own_networks()


def test_the_hosts_loopback_is_among_its_own_networks() -> None:
    assert "127.0.0.1/32" in map(str, network.own_networks())


SETTINGS = [
    ({}, "inside a container: run Mayfly outside of it, or as root"),
    ({"user/max_user_namespaces": "0"}, "sudo sysctl -w user.max_user_namespaces=15000"),
    (
        {"kernel/unprivileged_userns_clone": "0", "user/max_user_namespaces": "99"},
        "sudo sysctl -w kernel.unprivileged_userns_clone=1",
    ),
    (
        {"kernel/apparmor_restrict_unprivileged_userns": "1"},
        "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    (
        {"kernel/apparmor_restrict_unprivileged_userns": "0"},
        "inside a container: run Mayfly outside of it, or as root",
    ),
]


@pytest.mark.parametrize(("settings", "hint"), SETTINGS)
def test_the_setting_that_forbids_namespaces_is_named(
    settings: dict[str, str], hint: str, tmp_path: Path
) -> None:
    for name, value in settings.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{value}\n")
    assert namespace_hint(tmp_path) == hint


def test_pasta_forwards_nothing_inwards_and_nothing_to_the_host() -> None:
    words = netns.pasta_argv("/usr/bin/pasta", "/proc/7/ns/net")
    assert "--no-map-gw" in words
    assert "--ipv4-only" in words
    for option in ("--tcp-ports", "--udp-ports", "--tcp-ns", "--udp-ns"):
        assert words[words.index(option) + 1] == "none"
    assert words[-2:] == ["--netns", "/proc/7/ns/net"]
