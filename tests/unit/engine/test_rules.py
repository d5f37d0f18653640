"""What a machine may reach, decided without any network."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.engine.network import rules
from mayfly.engine.network.rules import Allowed, parse_allowed
from mayfly.errors import Denied, Invalid

FIB_TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
        +-- 127.0.0.0/31 1 0 0
           |-- 127.0.0.0
              /8 host LOCAL
           |-- 127.0.0.1
              /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
     +-- 192.0.2.0/24 2 0 2
        |-- 192.0.2.0
           /24 link UNICAST
        |-- 192.0.2.2
           /32 host LOCAL
Local:
        |-- 192.0.2.2
           /32 host LOCAL
"""
IF_INET6 = """\
20010db8000000000000000000000007 02 40 00 80     eth0
00000000000000000000000000000001 01 80 10 80       lo
"""


def test_the_hosts_own_addresses_are_read() -> None:
    found = rules.local_networks(FIB_TRIE, IF_INET6)
    assert {str(network) for network in found} == {
        *("127.0.0.0/8", "127.0.0.1/32", "192.0.2.2/32"),
        *("2001:db8::7/128", "::1/128"),
    }


def test_only_ipv4_resolvers_count() -> None:
    text = (
        "# nameserver 9.9.9.9\nnameserver 127.0.0.53\n nameserver\t192.0.2.9 \nnameserver fe80::1\n"
    )
    assert rules.resolvers(text) == ("127.0.0.53", "192.0.2.9")


@pytest.mark.parametrize("text", ["", "10.0.0.0/33", "example.org", "1.2.3.4-1.2.3.9"])
def test_a_site_network_that_is_none_is_named(text: str) -> None:
    with pytest.raises(Invalid, match=f"'{text}' is no network"):
        rules.site_networks([text])


def test_a_site_network_may_have_host_bits() -> None:
    assert rules.site_networks(["192.0.2.9/24", "2001:db8::/32"]) == (
        ip_network("192.0.2.0/24"),
        ip_network("2001:db8::/32"),
    )


def refused_set(text: str) -> set[str]:
    inside = text.partition("elements = {")[2].partition("}")[0]
    return set(inside.replace(" ", "").split(","))


def test_the_packet_rules_refuse_what_they_are_given() -> None:
    host = (ip_network("203.0.113.4/32"), ip_network("2001:db8::7/128"))
    text = rules.packet_rules((*rules.NEVER, *rules.PRIVATE, *host), dns=False)
    assert refused_set(text) == {
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15"),
        # 224.0.0.0/4 and 240.0.0.0/4 in one.
        *("203.0.113.4/32", "224.0.0.0/3"),
    }


def test_overlapping_networks_become_one() -> None:
    networks = map(ip_network, ("10.0.0.0/8", "10.1.0.0/16", "11.0.0.0/8"))
    assert refused_set(rules.packet_rules(networks, dns=False)) == {"10.0.0.0/7"}


def test_the_resolver_is_let_through_before_the_refusals_and_only_over_udp() -> None:
    lines = rules.packet_rules([ip_network("10.0.0.0/8")], dns=True).splitlines()
    ask = next(number for number, line in enumerate(lines) if "daddr 10.0.3.3" in line)
    refuse = next(number for number, line in enumerate(lines) if "daddr @refused" in line)
    assert ask < refuse
    assert lines[ask].strip() == "ip daddr 10.0.3.3 udp dport 53 accept"


def test_without_a_resolver_nothing_private_is_let_through() -> None:
    assert "10.0.3.3" not in rules.packet_rules([ip_network("10.0.0.0/8")], dns=False)


def test_every_chain_of_the_filter_refuses_by_default() -> None:
    lines = rules.packet_rules([ip_network("10.0.0.0/8")], dns=True).splitlines()
    hooks = [line for line in lines if "type filter hook" in line]
    assert len(hooks) == 2
    assert all("policy drop;" in line for line in hooks)


def test_what_is_not_let_through_is_answered() -> None:
    text = rules.packet_rules([ip_network("10.0.0.0/8")], dns=True)
    refuse = text.partition("chain refuse {")[2].partition("}")[0].split("\n")
    assert [line.strip() for line in refuse if line.strip()] == [
        "meta l4proto tcp reject with tcp reset",
        "reject with icmpx admin-prohibited",
    ]


ENTRIES = {
    "example.org:443": Allowed(port=443, name="example.org"),
    "Example.ORG.:443": Allowed(port=443, name="example.org"),
    "*.example.org:80": Allowed(port=80, name=".example.org"),
    "localhost:1": Allowed(port=1, name="localhost"),
    "192.0.2.7:65535": Allowed(port=65535, network=ip_network("192.0.2.7")),
    "192.0.2.0/24:80": Allowed(port=80, network=ip_network("192.0.2.0/24")),
    "[2001:db8::7]:80": Allowed(port=80, network=ip_network("2001:db8::7")),
    "[2001:db8::/32]:80": Allowed(port=80, network=ip_network("2001:db8::/32")),
}


@pytest.mark.parametrize("text", ENTRIES)
def test_an_entry_is_read(text: str) -> None:
    assert parse_allowed(text) == ENTRIES[text]


WRONG = [
    *("", ":", "example.org", "example.org:", ":443", "example.org:0", "example.org:65536"),
    *("example.org:http", "*:443", "*.:443", "*.192.0.2.7:80", "a..b:1", "-a.org:1", ".org:1"),
    *("exa mple.org:1", "http://example.org:80", "user@example.org:80", "2001:db8::7:80"),
    *("127.1:80", "0x7f.1:80", "2130706433:80", "192.0.2.0/33:80", "example.org/24:80"),
    *("*.example.org/8:80", "ex*.org:80", "ex\u00e4mple.org:80", "example.org:\u0664", "a\n:1"),
    *("a.org:1\n", f"{'a' * 64}.org:1", f"{'a.' * 127}org:1", "[example.org]:1", "[::1:1"),
]


@pytest.mark.parametrize("text", WRONG)
def test_an_entry_that_is_no_host_and_port_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="is no host and port") as caught:
        parse_allowed(text)
    assert "example.org:443" in caught.value.hint


LISTED = [
    ("example.org:443", "example.org", 443, True),
    ("example.org:443", "example.org", 80, False),
    ("example.org:443", "www.example.org", 443, False),
    ("example.org:443", "evilexample.org", 443, False),
    ("*.example.org:443", "www.example.org", 443, True),
    ("*.example.org:443", "a.b.example.org", 443, True),
    ("*.example.org:443", "example.org", 443, False),
    ("*.example.org:443", "evilexample.org", 443, False),
    ("*.example.org:443", "example.org.evil.net", 443, False),
    ("192.0.2.7:80", "192.0.2.7", 80, True),
    ("192.0.2.7:80", "192.0.2.8", 80, False),
    ("192.0.2.0/24:80", "192.0.2.8", 80, True),
    ("192.0.2.0/24:80", "192.0.2.8", 81, False),
    ("192.0.2.0/24:80", "2001:db8::7", 80, False),
    ("[2001:db8::/32]:80", "2001:db8::7", 80, True),
]


@pytest.mark.parametrize(("entry", "host", "port", "expected"), LISTED)
def test_the_list_decides_by_host_and_port(
    entry: str, host: str, port: int, expected: bool
) -> None:
    wanted = rules.parse_address(host) or host
    assert rules.is_listed([parse_allowed(entry)], wanted, port) is expected


INWARD = [
    *("127.0.0.1", "10.1.2.3", "172.31.0.1", "192.168.1.1", "100.64.0.1", "::1", "fd00::2"),
    *("203.0.113.4", "198.51.100.7", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1"),
    "2002:0a00:0001::1",
]
NEVER = [
    *("0.0.0.0", "169.254.169.254", "224.0.0.1", "255.255.255.255", "240.0.0.1"),
    *("::", "fe80::1", "ff02::1", "::ffff:169.254.169.254", "::ffff:0.0.0.0"),
]
OWN_AND_SITE = tuple(map(ip_network, ("203.0.113.4", "198.51.100.0/24")))


@pytest.mark.parametrize("address", [*INWARD, *NEVER])
def test_a_listed_name_does_not_lead_inwards(address: str) -> None:
    entries = [parse_allowed("example.org:80")]
    with pytest.raises(Denied, match="not let through"):
        rules.permitted(entries, [ip_address(address)], 80, OWN_AND_SITE)


@pytest.mark.parametrize("address", INWARD)
def test_a_listed_address_opens_itself(address: str) -> None:
    plain = rules.unmapped(ip_address(address))
    entries = [Allowed(port=80, network=ip_network(plain))]
    assert rules.permitted(entries, [plain], 80, OWN_AND_SITE) == [plain]
    with pytest.raises(Denied):
        rules.permitted(entries, [plain], 81, OWN_AND_SITE)


@pytest.mark.parametrize("address", NEVER)
def test_some_addresses_cannot_be_listed(address: str) -> None:
    entries = [parse_allowed("0.0.0.0/0:80"), parse_allowed("[::/0]:80")]
    with pytest.raises(Denied):
        rules.permitted(entries, [ip_address(address)], 80, ())


def test_only_the_good_addresses_of_a_name_are_used() -> None:
    found = map(ip_address, ("10.0.0.1", "192.0.2.7", "::1", "2001:db8::7"))
    good = rules.permitted([parse_allowed("example.org:80")], found, 80, ())
    assert list(map(str, good)) == ["192.0.2.7", "2001:db8::7"]


def test_a_name_without_addresses_is_refused() -> None:
    with pytest.raises(Denied, match="leads to no address"):
        rules.permitted([parse_allowed("example.org:80")], [], 80, ())


@given(st.text(max_size=300))
def test_any_text_is_an_entry_or_invalid(text: str) -> None:
    try:
        entry = parse_allowed(text)
    except Invalid:
        return
    assert 0 < entry.port < 1 << 16
    assert bool(entry.name) != (entry.network is not None)


@given(st.ip_addresses())
def test_every_address_is_either_global_or_refused(address: rules.Address) -> None:
    entries = [parse_allowed("example.org:80")]
    try:
        (good,) = rules.permitted(entries, [address], 80, ())
    except Denied:
        return
    # Python's table knows more that is not global (documentation, some assignments).
    assert not good.is_loopback
    assert not good.is_link_local
    assert not good.is_multicast
    assert not good.is_unspecified
