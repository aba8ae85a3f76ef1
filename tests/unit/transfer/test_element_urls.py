"""URLs of storage elements: one form for what is one place, and nothing for what is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridlane_transfer.storage.element_urls import Place, not_plain, place_of


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("file:///srv/a%20b/c", Place("file", "", "/srv/a b/c")),
        ("https://SE.example.org/data", Place("https", "se.example.org", "/data")),
        ("https://se.example.org:443/data", Place("https", "se.example.org", "/data")),
        ("davs://se.example.org/data", Place("https", "se.example.org", "/data")),
        ("davs://se.example.org:2880/d", Place("https", "se.example.org:2880", "/d")),
        ("http://se.example.org:80/d", Place("http", "se.example.org", "/d")),
        ("https://se.example.org", Place("https", "se.example.org", "")),
        ("https://[2001:DB8:0:0::1]/d", Place("https", "[2001:db8::1]", "/d")),
        ("https://192.0.2.1/d", Place("https", "192.0.2.1", "/d")),
        ("https://[::ffff:192.0.2.1]/d", Place("https", "192.0.2.1", "/d")),
        ("https://[::ffff:c000:201]:443/d", Place("https", "192.0.2.1", "/d")),
        ("https://se.example.org:00443/d", Place("https", "se.example.org", "/d")),
    ],
)
def test_what_is_one_place_has_one_form(url: str, place: Place) -> None:
    assert place_of(url) == place


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https",
        "https:/se.example.org/a",
        "https:///a",
        "https://user@se.example.org/a",
        "https://user:pass@se.example.org/a",
        "https://se.example.org/a?b",
        "https://se.example.org/a#b",
        "https://se.example.org:0/a",
        "https://se.example.org:70000/a",
        "https://se.example.org:port/a",
        "https://[::1/a",
        "https://[zz::1]/a",
        "https://se_x.example.org/a",
        "https://se.example.org\x00/a",
        "https://se.example.org/%ff",
        "file://host/srv",
        "file:srv",
        "srm://se.example.org/a",
        "HTTPS://se.example.org/a",
        "FILE:///srv",
        "https://se.example.org:65536/a",
        "https://se.example.org:/a",
        "https://se.example.org./a",
        "https://se.example.org\\@evil.example.org/a",
        "https://se.example.org%00/a",
        "https://se.example.org%2fa/b",
        # Addresses in the ways that a resolver reads besides, and that are no other host's name.
        "https://3221225985/a",
        "https://0xc0000201/a",
        "https://0300.0.2.1/a",
        "https://192.0.513/a",
        "https://192.0.2.1.1/a",
        "https://192.0.2.256/a",
        "https://[fe80::1%25eth0]/a",
        "https://[fe80::1%eth0]/a",
        "https://[192.0.2.1]/a",
        # Letters that are none of ASCII: IDNA's, and two that become such when made small or wide.
        "https://sé.example.org/a",
        "https://\u212aelvin.example.org/a",
        "https://\uff53e.example.org/a",
        "https://se\u3002example.org/a",
    ],
)
def test_what_is_no_place(url: str) -> None:
    assert place_of(url) is None


@pytest.mark.parametrize(
    "path",
    ["", "/", "a/", "/a", "a//b", ".", "..", "a/../b", "a\\..\\b", "..\\b", "a\x7f", "a\x9b1m"],
)
def test_a_path_that_is_not_plain(path: str) -> None:
    assert not_plain(path)


@pytest.mark.parametrize("path", ["a", "a/b", "...", ".a", "a..b", "a\\b", "ä/ö", "a b"])
def test_a_plain_path(path: str) -> None:
    assert not not_plain(path)


def test_places_lie_in_each_other_by_whole_components() -> None:
    data = Place("https", "se", "/data")
    assert data.contains(Place("https", "se", "/data"))
    assert data.contains(Place("https", "se", "/data/x"))
    assert not data.contains(Place("https", "se", "/database"))
    assert not data.contains(Place("https", "other", "/data/x"))
    assert not data.contains(Place("http", "se", "/data/x"))
    assert Place("https", "se", "").contains(data)
    assert not data.contains(Place("https", "se", ""))


@given(st.text())
def test_no_text_is_read_with_an_error(text: str) -> None:
    for url in (text, f"https://{text}", f"https://se/{text}", f"file://{text}"):
        place_of(url)
