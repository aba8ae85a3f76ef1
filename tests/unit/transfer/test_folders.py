"""Names that are located together stand for what each stands for by itself."""

from hypothesis import given
from hypothesis import strategies as st

from gridlane_transfer.settings import StorageElementSettings
from gridlane_transfer.storage.bans import Operation
from gridlane_transfer.storage.folders import Folders
from gridlane_transfer.storage.storage_elements import StorageElements

ELEMENTS = StorageElements(
    [
        StorageElementSettings(name="inner", base_url="file:///a/b", vo_paths={"n": "/a"}),
        StorageElementSettings(
            name="outer", base_url="file:///a", vo_paths={"m": "/a/b", "n": "/a", "o": "/b"}
        ),
        StorageElementSettings(name="jobs", base_url="file:///b", internal=True),
        StorageElementSettings(name="web", base_url="https://h/a b", vo_paths={"n": "/a"}),
    ]
)

# Few parts, so that names often meet elements, paths of VOs and each other.
parts = st.sampled_from(
    ["a", "b", "x", "a.b", "a b", "a%20b", "", ".", "..", ".gridlane-x", "é", "%2e%2e", "?", "a#b"]
)
starts = st.sampled_from(["LFN:", "LFN:/", "file:///a/", "file:///b/", "file://", "https://h/a b/"])
names = st.builds(lambda start, rest: start + "/".join(rest), starts, st.lists(parts, max_size=4))


@given(
    st.lists(names, max_size=20),
    st.sampled_from([Operation.READ, Operation.WRITE]),
    st.booleans(),
)
def test_a_name_beside_others_stands_for_what_it_stands_for_alone(
    together: list[str], operation: Operation, internal: bool
) -> None:
    folders = Folders(ELEMENTS, operation, internal=internal)
    for name in together:
        alone = ELEMENTS.locate(name, internal=internal, operation=operation)
        assert folders.locate(name) == alone


def test_many_names_are_located() -> None:
    folders = Folders(ELEMENTS, Operation.READ, internal=False)
    found = [folders.locate(f"file:///a/a/x/{number}") for number in range(3)]
    assert [one.location.relative for one in found if one] == ["a/x/0", "a/x/1", "a/x/2"]
