"""Which addresses a candidate may lead to."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2v_tasks.domain.ssrf import may_connect

PUBLIC = ["93.184.215.14", "2606:2800:220:1::1", "::ffff:93.184.215.14", "64:ff9b::5db8:d70e"]
PRIVATE = [
    "127.0.0.1",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "::1",
    "fd12::1",
    "::ffff:127.0.0.1",
    "2002:7f00:1::",
    "64:ff9b::7f00:1",
]
NEVER = [
    "169.254.169.254",
    "169.254.0.1",
    "fe80::1",
    "fe80::1%eth0",
    "fd00:ec2::254",
    "100.100.100.200",
    "168.63.129.16",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::",
    "224.0.0.1",
    "239.1.2.3",
    "ff02::1",
    "0.0.0.0",  # noqa: S104 - an address that must not be connected to
    "::",
    "0.1.2.3",
    "192.0.0.192",
    "fd20:ce::254",
    "::a9fe:a9fe",
    "::ffff:0:a9fe:a9fe",
    "64:ff9b:1::a9fe:a9fe",
    "2001:0:4136:e378:8000:63bf:5601:5601",
]
REFUSED = [
    "240.0.0.1",
    "255.255.255.255",
    "192.0.2.1",
    "2001:db8::1",
    "::7f00:1",
    "64:ff9b:1::1",
    "198.18.0.1",
    "192.0.0.100",
    "192.88.99.1",
    "fec0::1",
    "3fff::1",
    "5f00::1",
    "4000::1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_may_be_connected_to(address: str) -> None:
    """The world is open, by whatever notation."""
    assert may_connect(address)
    assert may_connect(address, allow_private=True)


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_needs_permission(address: str) -> None:
    """A candidate must not reach into the network of who runs this, even wrapped into IPv6."""
    assert not may_connect(address)
    assert may_connect(address, allow_private=True)


@pytest.mark.parametrize("address", NEVER)
def test_no_permission_opens_metadata_and_link_local_addresses(address: str) -> None:
    """Such services hand out credentials."""
    assert not may_connect(address)
    assert not may_connect(address, allow_private=True)


@pytest.mark.parametrize("address", REFUSED)
def test_an_address_of_no_host_is_rejected(address: str) -> None:
    """Reserved and documentation networks are not the world."""
    assert not may_connect(address)


@given(st.ip_addresses(v=4), st.booleans())
def test_an_address_in_a_wrapping_is_checked_by_what_is_inside(
    ip: ipaddress.IPv4Address, allow: bool
) -> None:
    """Mapped, NAT64 and 6to4: none opens what is closed, and none closes what is open."""
    inside = int(ip)
    mapped = ipaddress.IPv6Address(int(ipaddress.IPv6Address("::ffff:0:0")) | inside)
    nat64 = ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) | inside)
    six_to_four = ipaddress.IPv6Address(0x2002 << 112 | inside << 80)
    for wrapped in (mapped, nat64, six_to_four):
        assert may_connect(str(wrapped), allow) == may_connect(str(ip), allow)


@given(st.ip_addresses())
def test_permission_opens_and_never_closes(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """What is public stays public when private addresses are allowed."""
    assert may_connect(str(ip), allow_private=True) >= may_connect(str(ip))
