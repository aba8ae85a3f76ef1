"""URLs and logical names: what stands for what, and what is served at all."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridlane.transfer.v1 import storage_element_pb2
from gridlane_transfer.settings import StorageElementSettings, embedded_storage_elements
from gridlane_transfer.storage.bans import Operation
from gridlane_transfer.storage.storage_elements import StorageElement, StorageElements

ELEMENTS = StorageElements(embedded_storage_elements(Path("/data/my storage"), Path("/data/jobs")))

components = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="/"), min_size=1
).filter(lambda text: not {".", ".."} & set(text.split("\\")))
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
            assert not {".", ".."} & set(located.location.relative.replace("\\", "/").split("/"))


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


@pytest.mark.parametrize(
    "name", [".gridlane-1-1.part", "a/.gridlane-hop-1", ".gridlane-x/a", "%2egridlane-x"]
)
def test_names_that_gridlane_gives_are_nobody_s(name: str) -> None:
    url = f"file:///data/my storage/local/{name}"
    assert ELEMENTS.locate(url) is None
    assert ELEMENTS.locate(url, internal=True) is None
    assert ELEMENTS.locate(url, own=True) is not None
    if "%" not in name:
        assert ELEMENTS.locate(f"LFN:/local/{name}") is None


def test_a_data_directory_may_be_called_anything() -> None:
    elements = StorageElements(
        embedded_storage_elements(Path("/srv/.gridlane-data/storage"), Path("/srv/jobs"))
    )
    assert elements.locate("file:///srv/.gridlane-data/storage/local/a") is not None
    assert elements.locate("LFN:/local/a") is not None


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


def remote(**given: Any) -> StorageElements:
    """Two elements of one VO, the first with several endpoints."""
    first: dict[str, Any] = {
        "name": "first",
        "endpoints": [
            {"base_url": "https://se.example:2880/data", "operations": ["read", "check"]},
            {"base_url": "davs://se.example/pool", "operations": ["write", "remove"]},
            {"base_url": "https://Backup.example:443/data/"},
        ],
        "vo_paths": {"atlas": "/atlas"},
    }
    second: dict[str, Any] = {
        "name": "second",
        "base_url": "file:///srv/x",
        "vo_paths": {"atlas": "/atlas"},
    }
    return StorageElements(
        [StorageElementSettings(**{**first, **given}), StorageElementSettings(**second)]
    )


@pytest.mark.parametrize(
    ("name", "operation", "url"),
    [
        ("LFN:/atlas/a b", Operation.READ, "https://se.example:2880/data/atlas/a%20b"),
        ("LFN:/atlas/a", Operation.WRITE, "davs://se.example/pool/atlas/a"),
        ("LFN:/atlas/a", None, "davs://se.example/pool/atlas/a"),
        ("LFN:/atlas/a", Operation.STAGE, "https://Backup.example:443/data/atlas/a"),
        ("davs://se.example:2880/data/atlas/a", None, "https://se.example:2880/data/atlas/a"),
        ("https://SE.example/pool/atlas/a", Operation.WRITE, "davs://se.example/pool/atlas/a"),
        (
            "https://se.example/pool/atlas/a",
            Operation.READ,
            "https://se.example:2880/data/atlas/a",
        ),
        (
            "https://backup.example/data/atlas/%61",
            Operation.WRITE,
            "https://Backup.example:443/data/atlas/a",
        ),
    ],
)
def test_the_endpoint_is_chosen_by_what_is_to_be_done(
    name: str, operation: Operation | None, url: str
) -> None:
    located = remote().locate(name, operation=operation)
    assert located is not None
    assert located.location.url == url
    assert (located.lfn.partition("/")[0], located.vo) == ("LFN:", "atlas")
    assert located.location.storage_element == "storageElements/first"
    assert url.startswith(located.location.base)


@pytest.mark.parametrize(
    "name",
    [
        "https://se.example:2880/data/cms/a",
        "https://se.example:2880/database/atlas/a",
        "https://se.example:2881/data/atlas/a",
        "http://se.example:2880/data/atlas/a",
        "https://me@se.example:2880/data/atlas/a",
        "https://se.example:2880/data/atlas/a?x=1",
        "https://se.example:2880/data/atlas/a#x",
        "https://se.example:2880/data/atlas/../a",
        "https://se.example:2880/data/atlas/%2e%2e/%2e%2e/cms/a",
        "https://se.example:2880/data/atlas/%2E%2E%2Fa",
        "https://se.example:2880/data/atlas/a%00",
        "https://se.example:2880/data/atlas//a",
        "https://se.example:2880/data/atlas/%ff",
    ],
)
def test_what_no_endpoint_serves(name: str) -> None:
    assert remote().locate(name) is None


def test_nothing_is_written_to_what_is_read_only() -> None:
    elements = remote(endpoints=[{"base_url": "https://se.example/data"}], read_only=True)
    url = "https://se.example/data/atlas/a"
    assert elements.locate(url, operation=Operation.WRITE) is None
    assert elements.locate(url, operation=Operation.REMOVE) is None
    assert elements.locate(url, operation=Operation.READ) is not None
    written = elements.locate("LFN:/atlas/a", operation=Operation.WRITE)
    assert written is not None
    assert written.location.storage_element == "storageElements/second"
    with pytest.raises(ValueError, match="leaves nothing"):
        remote(endpoints=[{"base_url": "https://x/y", "operations": ["write"]}], read_only=True)


def test_what_is_configured_comes_first_and_is_not_replaced() -> None:
    elements = remote()
    settings = storage_element_pb2.StorageElement(vo_paths={"atlas": "/atlas"})
    settings.endpoints.add(base_url="https://other.example/data")
    made = [
        StorageElement.of(name, settings, revision=1, create_us=1, update_us=1)
        for name in ("first", "third")
    ]
    told: list[bool] = []
    elements.subscribe(lambda: told.append(True))
    elements.take((made, []))
    assert told == [True]
    assert [one.name for one in elements.all()] == ["first", "second", "third"]
    first = elements.get("storageElements/first")
    assert first is not None
    assert first.configured
    located = elements.locate("https://other.example/data/atlas/a")
    assert located is not None
    assert located.location.storage_element == "storageElements/third"
    elements.take(([], []))
    assert elements.get("storageElements/third") is None
