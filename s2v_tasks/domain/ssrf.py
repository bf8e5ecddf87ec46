"""SSRF protection for image URLs: which addresses and ports may be connected to. Pure.

Candidates are untrusted, so an address that is not known to be public is rejected. ``ipaddress.is_global``
alone does not decide: it changed between patch releases, and calls multicast and site-local addresses global.
"""

import ipaddress
from typing import Final

WEB_PORTS: Final = frozenset({80, 443, 8080, 8443})
"""Ports that may be connected to unless others are allowed."""

PRIVATE_ALLOWED: Final = (
    "private hosts are allowed: every candidate's URL, and whatever it redirects to, is followed into this "
    "machine's own networks, at any port; only metadata and link-local addresses stay rejected"
)
"""The warning that is logged if private hosts are allowed."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_network = ipaddress.ip_network

_NEVER: Final = tuple(
    map(
        _network,
        (
            "0.0.0.0/8",  # this machine, on Linux
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
            # IPv4 inside IPv6, where the inner address can't be read, or image hosts don't use it:
            "::ffff:0:0:0/96",  # SIIT
            "64:ff9b:1::/48",  # NAT64 of a local network
            "2001::/32",  # Teredo
        ),
    )
)
"""Metadata services hand out credentials: no option allows these."""

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
"""The IPv6 range from which global unicast addresses are assigned."""
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_LOW_32_BITS: Final = 0xFFFF_FFFF


def may_connect(address: str, allow_private: bool = False) -> bool:
    """Whether a connection to this IP address is allowed.

    ``allow_private`` allows networks that are not public, never link-local and metadata addresses.

    Raises:
        ValueError: The text is no IP address.
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
    """Return the IPv4 address that an IPv6 address embeds, or the address itself."""
    if ip.version == 4:
        return ip
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & _LOW_32_BITS)
    return ip.ipv4_mapped or ip.sixtofour or ip


def _compatible(ip: Address) -> bool:
    """Whether this is an "IPv4-compatible" address, ``::a.b.c.d``, which no host has."""
    return ip.version == 6 and 1 < int(ip) <= _LOW_32_BITS
