"""URLs of storage elements: one form for what is one place, and nothing for what is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridlane_transfer.storage.element_urls import Place, place_of


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
    ],
)
def test_what_is_no_place(url: str) -> None:
    assert place_of(url) is None


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
