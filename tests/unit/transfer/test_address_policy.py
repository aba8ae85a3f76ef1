"""Which addresses the mover may reach."""

import socket
from ipaddress import ip_address

import pytest

from gridlane_transfer.backends.embedded.webdav.addresses import AddressPolicy
from gridlane_transfer.backends.embedded.webdav.connections import allowed_addresses
from gridlane_transfer.backends.embedded.webdav.troubles import Kind, TroubleError
from gridlane_transfer.backends.embedded.webdav.urls import Origin, origin_of, target_of

FORBIDDEN = [
    "127.0.0.1",
    "127.1.2.3",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.5.5",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "2001:db8::1",
]
PUBLIC = ["8.8.8.8", "188.184.9.234", "2001:1458:d00:34::100:125", "64:ff9b::808:808"]


@pytest.mark.parametrize("text", FORBIDDEN)
def test_what_is_not_public_is_refused(text: str) -> None:
    assert AddressPolicy([]).refusal(ip_address(text)), text


@pytest.mark.parametrize("text", PUBLIC)
def test_what_is_public_is_allowed(text: str) -> None:
    assert AddressPolicy([]).refusal(ip_address(text)) == ""


def test_a_network_is_allowed_by_name_and_no_other() -> None:
    policy = AddressPolicy(["10.1.0.0/16", "::1/128"])
    assert policy.refusal(ip_address("10.1.2.3")) == ""
    assert policy.refusal(ip_address("::ffff:10.1.2.3")) == ""
    assert policy.refusal(ip_address("::1")) == ""
    assert policy.refusal(ip_address("10.2.0.1"))
    assert policy.refusal(ip_address("127.0.0.1"))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "0x7f.1", "2130706433", "127.1"])
def test_a_name_is_judged_by_what_it_resolves_to(host: str) -> None:
    """Also the odd ways in which the resolver lets an address be written."""
    with pytest.raises(TroubleError) as raised:
        allowed_addresses(Origin("https", host, 443), AddressPolicy([]))
    assert raised.value.kind is Kind.FORBIDDEN_ADDRESS


def test_of_several_addresses_only_allowed_ones_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def both(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        found = ["169.254.169.254", "8.8.8.8"]
        return [(socket.AF_INET, 1, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    (left,) = allowed_addresses(Origin("https", "two.example.org", 443), AddressPolicy([]))
    assert left.sockaddr == ("8.8.8.8", 443)


@pytest.mark.parametrize(
    "url",
    ["https:///path", "ftp://host/x", "https://user@host/x", "https://u:p@host/x", "file:///x"],
)
def test_what_is_no_url_of_a_storage_has_no_origin(url: str) -> None:
    with pytest.raises(ValueError, match="it "):
        origin_of(url)


def test_what_a_redirect_left_unquoted_is_quoted() -> None:
    assert target_of("https://se/a b/%20?x=ä&y=1") == "/a%20b/%20?x=%C3%A4&y=1"
    assert target_of("https://se") == "/"


def test_davs_is_https() -> None:
    assert origin_of("davs://SE.example.org:2880/x") == Origin("https", "se.example.org", 2880)
    assert origin_of("dav://[::1]/x").authority == "[::1]"
