"""What a storage element that administrators make must be."""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from gridlane.transfer.v1 import storage_element_pb2
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_transfer.backends.embedded.webdav.addresses import AddressPolicy
from gridlane_transfer.settings import StorageElementSettings
from gridlane_transfer.storage.element_rules import UPDATABLE, ElementRules, merged, settable
from gridlane_transfer.storage.storage_elements import StorageElements

Settings = storage_element_pb2.StorageElement
REMOTE = "https://192.0.2.7/data"


class Backend:
    """What the rules ask of a backend."""

    name = "embedded"
    protocols = frozenset({"file", "https", "davs"})
    capabilities = frozenset({"STRICT_COPY"})


def rules(roots: tuple[str, ...] = ()) -> ElementRules:
    elements = StorageElements([StorageElementSettings(name="local", base_url="file:///srv/local")])
    backend: Any = Backend()
    return ElementRules(elements, backend, AddressPolicy(["192.0.2.0/24"]), roots)


def settings(*endpoints: str, **fields: Any) -> Settings:
    urls = endpoints or (REMOTE,)
    return ParseDict({"endpoints": [{"base_url": url} for url in urls], **fields}, Settings())


async def refused(given: Settings, roots: tuple[str, ...] = ()) -> GridlaneError:
    with pytest.raises(GridlaneError) as caught:
        await rules(roots).require("new", given, list(UPDATABLE))
    return caught.value


async def test_a_plain_element_is_accepted() -> None:
    await rules().require("new", settings(vo_paths={"atlas": "/atlas"}), ["endpoints"])


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"vo_paths": {"a": "/a/../b"}}, "storage_element.vo_paths[a]"),
        ({"vo_paths": {"a": "/x", "b": "/x"}}, "storage_element.vo_paths[b]"),
        ({"vo_paths": {"a": "/x", "b": "/x/y", "c": "/x-y"}}, "storage_element.vo_paths[b]"),
        ({"vo_paths": {"a\x07": "/x"}}, "storage_element.vo_paths"),
        ({"access": {"read": "ACCESS_STATE_BANNED"}}, "storage_element.access.read"),
        ({"failover_for": ["storageElements/new"]}, "storage_element.failover_for[0]"),
        ({"failover_for": ["storageElements/none"]}, "storage_element.failover_for[0]"),
        ({"site": "DESY\n"}, "storage_element.site"),
        ({"description": "a\x00b"}, "storage_element.description"),
        ({"site": "a\x9b1mb"}, "storage_element.site"),
        ({"vo_paths": {"local": "/.gridlane-x"}}, "storage_element.vo_paths[local]"),
    ],
)
async def test_what_contradicts_itself_is_named(fields: dict[str, Any], field: str) -> None:
    error = await refused(settings(**fields))
    assert error.reason is ErrorReason.INVALID_FIELDS
    assert field in error.message


@pytest.mark.parametrize(
    "url",
    [
        "https://user@192.0.2.7/data",
        "https://192.0.2.7/a/../b",
        "https://192.0.2.7/a/%2e%2e/b",
        "https://192.0.2.7//a",
        "https://192.0.2.7:99999/a",
        "https://192.0.2.7/a%00b",
        "https://192.0.2.7/a\\b",
        "https://192.0.2.7/a%5cb",
        "https://192.0.2.7/a%2Fb",
        "https://192.0.2.7:0/a",
        "https://3221225985/a",
        "https://0x7f.1/a",
        "https://[fe80::1%25eth0]/a",
        "https://\u212aelvin.example.org/a",
        "https:///a",
    ],
)
async def test_a_malformed_url_is_named(url: str) -> None:
    error = await refused(settings(REMOTE, url))
    assert error.reason is ErrorReason.INVALID_FIELDS
    assert "storage_element.endpoints[1].base_url" in error.message


@pytest.mark.parametrize(
    ("given", "field", "capability"),
    [
        (settings("srm://se/a"), "storage_element.endpoints[0].base_url", "SRM"),
        (settings(REMOTE, "s3://se/a"), "storage_element.endpoints[1].base_url", "S3"),
        (settings(medium="STORAGE_MEDIUM_TAPE"), "storage_element.medium", "STAGING"),
        (settings(spacetoken="ATLASDISK"), "storage_element.spacetoken", "SPACE_TOKENS"),
        (
            settings(limits={"max_active_staging": 3}),
            "storage_element.limits.max_active_staging",
            "STAGING",
        ),
        (
            settings(transfer_defaults={"archive_timeout": "60s"}),
            "storage_element.transfer_defaults.archive_timeout",
            "ARCHIVING",
        ),
        (
            ParseDict(
                {"endpoints": [{"base_url": REMOTE, "operations": ["STORAGE_OPERATION_STAGE"]}]},
                Settings(),
            ),
            "storage_element.endpoints[0].operations",
            "STAGING",
        ),
    ],
)
async def test_what_no_backend_does_is_refused(
    given: Settings, field: str, capability: str
) -> None:
    error = await refused(given)
    assert error.reason is ErrorReason.CAPABILITY_MISSING
    assert error.metadata == {"field": field, "capability": capability, "backend": "embedded"}


async def test_what_the_backend_does_is_accepted() -> None:
    await rules().require("new", settings(transfer_defaults={"strict_copy": True}), [])


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/data",
        "https://[::1]/data",
        "https://169.254.169.254/latest",
        "https://10.0.0.5/data",
        "davs://[::ffff:10.0.0.5]/data",
        "https://0.0.0.0/data",
        "https://localhost/data",
    ],
)
async def test_an_internal_address_is_forbidden(url: str) -> None:
    error = await refused(settings(url))
    assert error.reason is ErrorReason.ADDRESS_FORBIDDEN
    assert error.metadata == {"url": url}


async def test_directories_are_closed_unless_their_root_is_configured(tmp_path: Path) -> None:
    root = tmp_path / "open"
    (root / "a").mkdir(parents=True)
    (tmp_path / "closed").mkdir()
    (root / "out").symlink_to(tmp_path / "closed")
    roots = (str(root),)
    await rules(roots).require("new", settings((root / "a").as_uri()), ["endpoints"])
    # Another name for a place that has one, and a way out of the root and in again.
    (root / "same").symlink_to(root / "a")
    (root / "deep").mkdir()
    (root / "deep/up").symlink_to(root)
    closed = [root / name for name in ("out", "same", "same/b", "deep/up/a")]
    for folder in (root, *closed, tmp_path / "closed", tmp_path / "opened"):
        error = await refused(settings(folder.as_uri()), roots)
        assert error.reason is ErrorReason.ADDRESS_FORBIDDEN
    assert (await refused(settings((root / "a").as_uri()))).reason is ErrorReason.ADDRESS_FORBIDDEN


async def test_a_root_may_be_reached_by_a_link_of_the_operator_s(tmp_path: Path) -> None:
    (tmp_path / "disk/a").mkdir(parents=True)
    (tmp_path / "open").symlink_to(tmp_path / "disk")
    roots = (str(tmp_path / "open"),)
    for folder in (tmp_path / "open/a", tmp_path / "disk/a", tmp_path / "open/new"):
        await rules(roots).require("new", settings(folder.as_uri()), ["endpoints"])


async def test_an_endpoint_that_does_not_change_is_not_judged_anew() -> None:
    await rules().require("new", settings("https://127.0.0.1/data"), ["site"])


def test_an_update_changes_what_its_mask_names() -> None:
    stored = settings(
        site="DESY", access={"read": 2, "write": 3}, limits={"max_active_in": 5}, draining=True
    )
    given = settings("https://192.0.2.8/x", site="CERN", access={"read": 3})
    after, changed = merged(stored, given, ["access.read", "limits", "draining"])
    assert changed == ["access", "limits", "draining"]
    assert (after.access.read, after.access.write) == (3, 3)
    assert not after.HasField("limits")
    assert not after.draining
    assert (after.site, after.endpoints[0].base_url) == ("DESY", REMOTE)


def test_an_update_without_a_mask_changes_what_is_set() -> None:
    stored = settings(site="DESY", description="old")
    after, changed = merged(stored, Settings(name="storageElements/x", site="CERN"), [])
    assert changed == ["site"]
    assert (after.site, after.description, len(after.endpoints)) == ("CERN", "old", 1)


@pytest.mark.parametrize(
    "path",
    ["name", "readable", "internal", "revision", "site.x", "access.nothing", "", "endpoints.x"],
)
def test_an_update_of_anything_else_is_refused(path: str) -> None:
    with pytest.raises(GridlaneError) as caught:
        merged(Settings(), Settings(), [path])
    assert caught.value.reason is ErrorReason.INVALID_FIELDS


def test_nothing_that_is_output_only_is_stored() -> None:
    output_only = {
        "name", "readable", "writable", "free_bytes", "internal", "revision", "create_time",
        "update_time", "configured",
    }  # fmt: skip
    names = {field.name for field in Settings.DESCRIPTOR.fields}
    assert names == output_only | set(UPDATABLE)
    given = settings(name="storageElements/x", revision=4, configured=True, internal=True)
    given.endpoints[0].protocol = "https"
    assert settable(given) == settings()
