"""URLs and logical names: what stands for what, and what is served at all."""

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridlane_transfer.settings import StorageElementSettings, embedded_storage_elements
from gridlane_transfer.storage_elements import StorageElements

ELEMENTS = StorageElements(embedded_storage_elements(Path("/data/my storage"), Path("/data/jobs")))

components = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="/"), min_size=1
).filter(lambda text: text not in (".", ".."))
paths = st.lists(components, min_size=1, max_size=4).map("/".join)


@given(paths)
def test_a_logical_name_and_its_url_stand_for_each_other(path: str) -> None:
    by_name = ELEMENTS.locate(f"LFN:/local/{path}")
    assert by_name is not None
    assert by_name.location.relative == f"local/{path}"
    assert by_name.location.shown == f"LFN:/local/{path}"
    by_url = ELEMENTS.locate(by_name.location.url)
    assert by_url is not None
    assert by_url.location.shown == by_name.location.url
    location = by_url.location._replace(shown=by_name.location.shown)
    assert by_url._replace(location=location) == by_name
    assert (by_name.vo, by_name.path) == ("local", f"/local/{path}")


@given(st.text())
def test_no_text_leads_out_of_a_storage_element(text: str) -> None:
    for name in (
        text,
        f"LFN:/local/{text}",
        f"LFN:{text}",
        f"file:///data/my storage/local/{text}",
        f"file:///data/my%20storage/local/{quote(text)}",
        f"file:///data/my storage/{text}",
    ):
        located = ELEMENTS.locate(name)
        if located is not None:
            parts = located.location.relative.split("/")
            assert parts[0] == "local"
            assert not {"", ".", ".."} & set(parts)


@pytest.mark.parametrize(
    "name",
    [
        "LFN:/local",
        "LFN:/local/",
        "LFN:/localhost/a",
        "LFN:local/a",
        "lfn:/local/a",
        "LFN:/local/a\n",
        "file:///data/my storage",
        "file:///data/my storagelocal/a",
        "file:///data/my storage/localhost/a",
        "file:/data/my storage/local/a",
        "file://host/data/my storage/local/a",
        "http://data/my storage/local/a",
        "/data/my storage/local/a",
        "",
    ],
)
def test_what_is_not_served(name: str) -> None:
    assert ELEMENTS.locate(name) is None


def test_an_internal_element_is_for_services() -> None:
    url = "file:///data/jobs/0192/1/a"
    assert ELEMENTS.locate(url) is None
    located = ELEMENTS.locate(url, internal=True)
    assert located is not None
    assert (located.internal, located.lfn, located.vo) == (True, "", "")
    assert located.location.shown == "jobs/0192/1/a"


def test_settings_refuse_what_cannot_be_served() -> None:
    for given_ in (
        {"name": "a", "base_url": "srm://x/y"},
        {"name": "a", "base_url": "file:///"},
        {"name": "A b", "base_url": "file:///x"},
        {"name": "a", "base_url": "file:///x", "vo_paths": {"v": "v"}},
        {"name": "a", "base_url": "file:///x", "vo_paths": {"v": "/v/../w"}},
    ):
        with pytest.raises(ValueError, match="validation error"):
            StorageElementSettings(**given_)
