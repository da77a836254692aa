"""Every kind of address that a URL may not lead to, and that the public internet stays open."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinora.storage.guard.addresses import METADATA, refusal

REFUSED = [
    ("0.0.0.0", "unspecified"),
    ("0.1.2.3", "of this network"),
    ("10.0.0.1", "private"),
    ("10.255.255.255", "private"),
    ("172.16.0.1", "private"),
    ("172.31.255.255", "private"),
    ("192.168.0.1", "private"),
    ("127.0.0.1", "loopback"),
    ("127.255.255.254", "loopback"),
    ("100.64.0.0", "shared"),
    ("100.100.100.201", "shared"),
    ("100.127.255.255", "shared"),
    ("100.100.100.200", "metadata"),
    ("169.254.169.254", "metadata"),
    ("169.254.170.2", "metadata"),
    ("169.254.170.23", "metadata"),
    ("168.63.129.16", "metadata"),
    ("192.0.0.192", "metadata"),
    ("169.254.0.1", "link-local"),
    ("192.0.0.1", "protocols"),
    ("192.0.2.1", "documentation"),
    ("198.51.100.9", "documentation"),
    ("203.0.113.255", "documentation"),
    ("192.88.99.1", "6to4 relay"),
    ("198.18.0.1", "benchmarking"),
    ("198.19.255.255", "benchmarking"),
    ("224.0.0.1", "multicast"),
    ("239.255.255.255", "multicast"),
    ("240.0.0.1", "reserved"),
    ("255.255.255.254", "reserved"),
    ("255.255.255.255", "broadcast"),
    ("::", "unspecified"),
    ("::1", "loopback"),
    ("::ffff:127.0.0.1", "IPv4-mapped"),
    ("::ffff:8.8.8.8", "IPv4-mapped"),
    ("::ffff:a9fe:a9fe", "IPv4-mapped"),
    ("::ffff:0:127.0.0.1", "IPv4-translated"),
    ("::127.0.0.1", "IPv4-compatible"),
    ("::8.8.8.8", "IPv4-compatible"),
    ("64:ff9b::127.0.0.1", "NAT64"),
    ("64:ff9b::8.8.8.8", "NAT64"),
    ("64:ff9b:1::10.0.0.1", "local NAT64"),
    ("64:ff9b:1:ffff::1", "local NAT64"),
    ("100::1", "discard"),
    ("2001::1", "Teredo"),
    ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "Teredo"),
    ("2001:2::1", "benchmarking"),
    ("2001:db8::1", "documentation"),
    ("3fff::1", "documentation"),
    ("2001:10::1", "ORCHID"),
    ("2001:2f::1", "ORCHID"),
    ("2001:1ff::1", "protocols"),
    ("2002:7f00:1::1", "6to4"),
    ("2002:808:808::1", "6to4"),
    ("fc00::1", "unique local"),
    ("fdff::1", "unique local"),
    ("fd00:ec2::254", "metadata"),
    ("fe80::1", "link-local"),
    ("febf::1", "link-local"),
    ("fe80::a9fe:a9fe", "metadata"),
    ("fec0::1", "site-local"),
    ("feff::1", "site-local"),
    ("ff02::1", "multicast"),
    ("ff0e::1", "multicast"),
    ("4000::1", "reserved"),
    ("5f00::1", "reserved"),
    ("8000::1", "reserved"),
    ("2606:4700::5efe:7f00:1", "ISATAP"),
    ("2606:4700::200:5efe:a00:1", "ISATAP"),
    ("fe80::1%eth0", "zone"),
    ("2606:4700::1111%1", "zone"),
    ("localhost", "no IP"),
    ("", "no IP"),
    ("0177.0.0.1", "no IP"),
    ("127.1", "no IP"),
    ("2130706433", "no IP"),
    ("0x7f000001", "no IP"),
    ("8.8.8.8 ", "no IP"),
    ("８.8.8.8", "no IP"),
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.1",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "47.88.1.1",
    "2606:4700:4700::1111",
    "2400:3200::1",
    "2a00:1450:4001::1",
]


@pytest.mark.parametrize(("address", "word"), REFUSED)
def test_refused(address: str, word: str) -> None:
    reason = refusal(address)
    assert reason is not None
    assert word in reason


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    assert refusal(address) is None


def test_a_scope_survives_no_typed_address() -> None:
    assert refusal(ipaddress.IPv6Address("2606:4700::1111%1")) == "has a zone id"


def test_metadata_is_told_apart() -> None:
    assert {refusal(address) for address in METADATA} == {"a cloud's metadata service"}


@given(st.ip_addresses())
def test_nothing_passes_that_python_calls_special(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if refusal(address) is None:
        assert address.is_global
        special = (address.is_multicast, address.is_reserved, address.is_link_local, address.is_loopback)
        assert not any(special)
