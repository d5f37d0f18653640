"""What a machine may reach: pure decisions, for the packet filter and for the proxy alike."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    collapse_addresses,
    ip_address,
    ip_network,
)

from mayfly.errors import Denied, Invalid

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

GUEST = "guest"
UPLINK = "uplink"
GUEST_ADDRESS = "10.0.2.15"
DNS_ADDRESS = "10.0.3.3"
"""Nobody has it: pasta hands what is sent there, on port 53, to the host's own resolver."""

NEVER = tuple(
    map(
        ip_network,
        (
            # "This host": connecting to 0.0.0.0 reaches what listens on loopback.
            *("0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4"),
            *("::/128", "fe80::/10", "fec0::/10", "ff00::/8"),
        ),
    )
)
"""Refused whatever a list says: unspecified, link-local (cloud metadata), multicast, reserved."""

PRIVATE = tuple(
    map(
        ip_network,
        (
            *("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12"),
            *("192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15"),
            # The last four carry an IPv4 address inside: NAT64, 6to4, Teredo.
            *("::1/128", "100::/64", "fc00::/7"),
            *("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"),
        ),
    )
)
"""Refused unless a list names the address: loopback, private, shared (carrier) address space."""


def site_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Read the site's own networks; raises ``Invalid``."""
    networks = []
    for text in texts:
        try:
            networks.append(ip_network(text, strict=False))
        except ValueError as error:
            raise Invalid(
                f"site_networks: '{text}' is no network", hint="write it as 192.0.2.0/24"
            ) from error
    return tuple(networks)


def local_networks(fib_trie: str, if_inet6: str) -> tuple[Network, ...]:
    """Give the host's own addresses, from the text of the files of those names in /proc/net."""
    found: set[Network] = set()
    prefix = ""
    for line in fib_trie.splitlines():
        words = line.split()
        if words[:1] == ["|--"]:
            prefix = words[1]
        elif words[-1:] == ["LOCAL"]:
            found.add(ip_network(prefix + words[0], strict=False))
    for line in if_inet6.splitlines():
        found.add(ip_network(int(line.split()[0], 16).to_bytes(16, "big")))
    return tuple(sorted(found, key=str))


def resolvers(resolv_conf: str) -> tuple[str, ...]:
    """Give the IPv4 resolvers that a resolv.conf names."""
    found = re.findall(r"^\s*nameserver\s+(\d+\.\d+\.\d+\.\d+)\s*$", resolv_conf, re.MULTILINE)
    return tuple(found)


def packet_rules(refused: Iterable[Network], *, dns: bool) -> str:
    """Give the nft rules of the namespace around a machine with an open network.

    Refusals are answered, so that programs in the machine fail at once. TCP by a reset: Linux
    ignores an ICMP message that arrives while the program is still within connect(2), as happens
    in a slow machine on a fast host, and tries again a second later.
    """
    ours = [network for network in refused if isinstance(network, IPv4Network)]
    networks = ", ".join(map(str, collapse_addresses(ours)))
    ask = f"ip daddr {DNS_ADDRESS} udp dport 53 accept" if dns else ""
    return f"""
table inet mayfly {{
  set refused {{
    type ipv4_addr; flags interval;
    elements = {{ {networks} }}
  }}
  chain refuse {{
    meta l4proto tcp reject with tcp reset
    reject with icmpx admin-prohibited
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    ct state invalid drop
    iifname != "{GUEST}" drop
    oifname != "{UPLINK}" goto refuse
    ip saddr != {GUEST_ADDRESS} drop
    {ask}
    ip daddr @refused goto refuse
    meta nfproto ipv4 meta l4proto {{ tcp, udp, icmp }} accept
    goto refuse
  }}
  chain input {{
    type filter hook input priority filter; policy drop;
    iifname "lo" accept
    ct state established,related accept
    iifname "{GUEST}" icmp type echo-request accept
    iifname "{GUEST}" goto refuse
  }}
  chain leave {{
    type nat hook postrouting priority srcnat;
    oifname "{UPLINK}" masquerade
  }}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """One entry of the list of a restricted network: a host by name, or addresses, and a port."""

    port: int
    name: str = ""
    """In small letters; with a leading dot: every name that ends so."""
    network: Network | None = None

    def has_name(self, host: str, port: int) -> bool:
        """Tell whether a host name is meant."""
        same = host.endswith(self.name) if self.name[:1] == "." else host == self.name
        return bool(self.name) and same and port == self.port

    def has_address(self, address: Address, port: int) -> bool:
        """Tell whether an address is meant."""
        return self.network is not None and port == self.port and address in self.network


_AUTHORITY = re.compile(
    r"(?:\[([0-9A-Fa-f:.]+)(/[0-9]+)?\]|([0-9A-Za-z._-]+)(/[0-9]+)?):([0-9]{1,5})"
)
_LABEL = re.compile(r"[0-9a-z_]([0-9a-z_-]{0,61}[0-9a-z_])?")


def parse_allowed(text: str) -> Allowed:
    """Read ``example.org:443``, ``*.example.org:443``, ``192.0.2.7:80``, ``[2001:db8::/32]:80``."""
    any_below = text.startswith("*.")
    match = _AUTHORITY.fullmatch(text[2:] if any_below else text)
    if match is None or not 0 < int(match[5]) < 1 << 16:
        raise _not_allowed_entry(text)
    port = int(match[5])
    host, size = match[1] or match[3], match[2] or match[4] or ""
    try:
        network = ip_network(host + size, strict=False)
    except ValueError:
        network = None
    name = canonical_name(host)
    if network is not None and not any_below:
        return Allowed(port=port, network=network)
    if network is not None or size or not name:
        raise _not_allowed_entry(text)
    return Allowed(port=port, name="." + name if any_below else name)


def _not_allowed_entry(text: str) -> Invalid:
    return Invalid(
        f"'{text}' is no host and port",
        hint="write example.org:443, *.example.org:443, 192.0.2.7:80 or [2001:db8::7]:80",
    )


def canonical_name(host: str) -> str:
    """Give a host name in small letters, without the final dot; "" when it is none."""
    name = host.lower().removesuffix(".")
    labels = name.split(".")
    # A number at the end would be read as an address by the resolver: 127.1, 0x7f.1.
    plausible = len(name) <= 253 and not labels[-1][:1].isdigit()
    return name if plausible and all(map(_LABEL.fullmatch, labels)) else ""


def is_listed(allowed: Iterable[Allowed], host: str | Address, port: int) -> bool:
    """Tell whether a host may be asked for at all, before its name is looked up."""
    if isinstance(host, str):
        return any(entry.has_name(host, port) for entry in allowed)
    return any(entry.has_address(host, port) for entry in allowed)


def permitted(
    allowed: Sequence[Allowed],
    found: Iterable[Address],
    port: int,
    refused: Sequence[Network],
) -> list[Address]:
    """Give those addresses of a listed host that may be connected to; raises ``Denied`` if none.

    A name that leads to this host or into a private network does not open it: that takes an entry
    with the address itself.
    """
    reasons = []
    good = []
    for address in map(unmapped, found):
        named = any(entry.has_address(address, port) for entry in allowed)
        never = _within(address, NEVER)
        if never or (_within(address, (*PRIVATE, *refused)) and not named):
            reasons.append(str(address))
        else:
            good.append(address)
    if not good:
        raise Denied(f"it leads to {', '.join(reasons) or 'no address'}, which is not let through")
    return good


def unmapped(address: Address) -> Address:
    """Give the IPv4 address that is meant by ::ffff:1.2.3.4."""
    inner = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return inner or address


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)


def parse_address(text: str) -> Address | None:
    """Read an IP address as people and URLs write it; None when it is none."""
    try:
        return ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
