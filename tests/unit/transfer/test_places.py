"""What a place is called: by every endpoint of its storage element."""

import pytest

from gridlane.transfer.v1 import storage_element_pb2
from gridlane_transfer.settings import StorageElementSettings
from gridlane_transfer.storage.storage_elements import StorageElement, StorageElements
from gridlane_transfer.store.places import AtWork, urls_of

FILE, DAV = "file:///srv/both", "https://host.test/both"
TWO = storage_element_pb2.StorageElement(
    endpoints=[storage_element_pb2.StorageEndpoint(base_url=url) for url in (FILE, DAV)],
    vo_paths={"cms": "/cms"},
)


@pytest.fixture
def elements() -> StorageElements:
    one = StorageElementSettings(name="one", base_url="file:///srv/one", vo_paths={"cms": "/cms"})
    found = StorageElements([one])
    found.take(([StorageElement.of("two", TWO)], []))
    return found


def test_a_place_has_the_same_urls_by_whichever_it_is_named(elements: StorageElements) -> None:
    all_of_it = [f"{FILE}/cms/a%20b", f"{DAV}/cms/a%20b"]
    for url in all_of_it:
        assert urls_of(elements, url, "storageElements/two") == all_of_it


@pytest.mark.parametrize(
    ("url", "element"),
    [
        ("file:///srv/one/cms/a", "storageElements/one"),
        ("file:///srv/gone/cms/a", "storageElements/gone"),
        ("file:///srv/moved/cms/a", "storageElements/two"),
        ("file:///srv/both-not/cms/a", "storageElements/two"),
    ],
)
def test_any_other_place_has_its_url(elements: StorageElements, url: str, element: str) -> None:
    assert list(urls_of(elements, url, element)) == [url]


def test_a_removal_is_at_work_on_the_copies_that_it_names() -> None:
    on_two = ("storageElements/two", "LFN:/cms/a")
    nothing = AtWork(frozenset(), frozenset(), frozenset())
    url = AtWork(frozenset({f"{FILE}/cms/a"}), frozenset(), frozenset())
    copy = AtWork(frozenset(), frozenset({on_two}), frozenset())
    name = AtWork(frozenset(), frozenset(), frozenset({"LFN:/cms/a"}))
    here = [f"{FILE}/cms/a", f"{DAV}/cms/a"], *on_two
    elsewhere = ["file:///srv/one/cms/a"], "storageElements/one", "LFN:/cms/a"
    found = [[one.has(*place) for one in (nothing, url, copy, name)] for place in (here, elsewhere)]
    assert found == [[False, True, True, True], [False, False, False, True]]
