"""Which hosts a candidate's URL may lead to: addresses and ports. Pure; whoever connects asks here.

Candidates come from strangers, so what is not known to be a public host is refused. The answer does not lean
on ``ipaddress.is_global`` alone: it changed between patch releases, and calls multicast and site-local
addresses global.
"""

import ipaddress
from typing import Final

WEB_PORTS: Final = frozenset({80, 443, 8080, 8443})
"""Ports that are asked for a picture unless others are allowed."""

PRIVATE_ALLOWED: Final = (
    "private hosts are allowed: every candidate's URL, and whatever it redirects to, is followed into this "
    "machine's own networks, at any port; only metadata and link-local addresses stay refused"
)
"""What a log must say, aloud, where they are."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_network = ipaddress.ip_network

_NEVER: Final = tuple(
    map(
        _network,
        (
            "0.0.0.0/8",  # this very machine, on Linux
            "::/128",
            "224.0.0.0/4",  # multicast
            "ff00::/8",
            "169.254.0.0/16",  # link-local, and with it the metadata service of most clouds
            "fe80::/10",
            "100.100.100.200/32",  # metadata: Alibaba Cloud
            "168.63.129.16/32",  # Azure; a public address by every registry
            "192.0.0.192/32",  # Oracle
            "fd00:ec2::/32",  # Amazon
            "fd20:ce::254/128",  # Google
            # IPv4 inside IPv6, where what is inside can't be read, or nobody uses it for a picture:
            "::ffff:0:0:0/96",  # SIIT
            "64:ff9b:1::/48",  # NAT64 of one's own network
            "2001::/32",  # Teredo
        ),
    )
)
"""Metadata services give out credentials: no option opens these."""

_NOT_PUBLIC: Final = tuple(
    map(
        _network,
        (
            "192.0.0.0/24",  # protocol assignments; some Pythons call half of it global
            "192.88.99.0/24",  # 6to4 relays
            "2001::/23",
            "2001:db8::/32",
            "3fff::/20",  # documentation
        ),
    )
)
_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
"""All that was ever given out of IPv6 as globally reachable."""
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_LOW_32_BITS: Final = 0xFFFF_FFFF


def may_connect(address: str, allow_private: bool = False) -> bool:
    """Say whether a host at this address may be asked for a picture.

    ``allow_private`` opens the networks that are not public, never link-local and metadata addresses.

    Raises:
        ValueError: this is no address.

    """
    ip = _unwrapped(ipaddress.ip_address(address))
    if any(ip in network for network in _NEVER) or _compatible(ip):
        return False
    if allow_private:
        return True
    if any(ip in network for network in _NOT_PUBLIC):
        return False
    return ip.is_global and (ip in _UNICAST if ip.version == 6 else not ip.is_reserved)


def _unwrapped(ip: Address) -> Address:
    """Return the IPv4 address that an IPv6 one stands for, where it does."""
    if ip.version == 4:
        return ip
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & _LOW_32_BITS)
    return ip.ipv4_mapped or ip.sixtofour or ip


def _compatible(ip: Address) -> bool:
    """Whether this is one of the "IPv4-compatible" addresses, ``::a.b.c.d``, that no host has."""
    return ip.version == 6 and 1 < int(ip) <= _LOW_32_BITS
