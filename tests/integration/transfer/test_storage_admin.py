"""Storage elements that administrators make, change and remove, while the service runs."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import ParseDict
from grpc import aio
from sqlalchemy import select

from gridlane.ids import uuid7
from gridlane.transfer.v1 import (
    storage_admin_service_pb2,
    storage_element_pb2,
    storage_service_pb2,
    transfer_job_pb2,
    transfer_service_pb2,
)
from gridlane.type.v1 import checksum_pb2
from gridlane_transfer.store.tables import AUDIT

pytestmark = pytest.mark.parametrize("engine", ["sqlite", "postgresql"], indirect=True)

pb = storage_admin_service_pb2
Element = storage_element_pb2.StorageElement


class Place:
    """A house that may have storage elements below one directory, and its administrator."""

    def __init__(self, house: Any, root: Path) -> None:
        self.house, self.root = house, root
        self.admin, self.sue = house.client("admin"), house.client("sue")

    def folder(self, name: str) -> Path:
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        return folder

    def settings(self, name: str, **fields: Any) -> Element:
        return ParseDict(
            {
                "endpoints": [{"base_url": self.folder(name).as_uri()}],
                "vo_paths": {"local": "/local"},
                **fields,
            },
            Element(),
        )

    async def make(self, name: str, request_id: str = "", **fields: Any) -> Element:
        request = pb.CreateStorageElementRequest(
            storage_element_id=name,
            storage_element=self.settings(name, **fields),
            reason="more room",
            request_id=request_id,
        )
        return steady(await self.admin.storage_admin.CreateStorageElement(request))

    async def make_named(self, name: str) -> Element:
        request = pb.CreateStorageElementRequest(
            storage_element_id=name, storage_element=self.settings("some")
        )
        return await self.admin.storage_admin.CreateStorageElement(request)

    async def update(self, element: Element, *paths: str, revision: int = 0) -> Element:
        request = pb.UpdateStorageElementRequest(
            storage_element=element, update_mask=FieldMask(paths=paths), revision=revision
        )
        return steady(await self.admin.storage_admin.UpdateStorageElement(request))

    async def delete(self, name: str, revision: int = 0) -> None:
        request = pb.DeleteStorageElementRequest(
            name=f"storageElements/{name}", revision=revision, reason="retired"
        )
        await self.admin.storage_admin.DeleteStorageElement(request)

    async def get(self, name: str, user: Any = None) -> Element:
        request = storage_service_pb2.GetStorageElementRequest(name=f"storageElements/{name}")
        return steady(await (user or self.sue).storage.GetStorageElement(request))


def steady(element: Element) -> Element:
    """An element without what others on the machine change."""
    assert element.free_bytes > 0
    element.ClearField("free_bytes")
    return element


@pytest.fixture
async def place(start_house: Any, tmp_path: Path) -> Place:
    root = tmp_path / "open"
    root.mkdir()
    return Place(await start_house(given={"storage_file_roots": [str(root)]}), root)


async def refused(call: Any) -> aio.AioRpcError:
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_an_element_is_named_and_used_as_soon_as_it_is_made(place: Place) -> None:
    made = await place.make("new", site="DESY", limits={"max_active_in": 7})
    assert made.name == "storageElements/new"
    assert made.revision > 0
    assert (made.configured, made.readable, made.writable) == (False, True, True)
    assert made.create_time == made.update_time
    assert made.endpoints[0].protocol == "file"
    assert await place.get("new") == made
    url = f"{place.folder('new').as_uri()}/local/a"
    await place.sue.put(url, b"bytes")
    assert await place.sue.read(url) == b"bytes"
    job = await place.sue.submit((url, "LFN:/local/b"))
    assert (await place.sue.ended(job.name)).files[0].source_storage_element == made.name


async def test_every_field_comes_back_and_survives_a_restart(place: Place) -> None:
    made = await place.make(
        "new",
        vo_paths={"local": "/local", "other": "/other/x"},
        failover_for=["storageElements/local"],
        access={"read": "ACCESS_STATE_DEGRADED", "write": "ACCESS_STATE_PROBING"},
        limits={"max_active_in": 1, "max_bandwidth_out_bytes_per_second": 10**9},
        draining=True,
        site="DESY-HH",
        description="for\npeople",
        checksum_types=["CHECKSUM_TYPE_MD5", "CHECKSUM_TYPE_ADLER32"],
    )
    assert dict(made.vo_paths) == {"local": "/local", "other": "/other/x"}
    assert made.access.read == storage_element_pb2.ACCESS_STATE_DEGRADED
    assert made.access.check == storage_element_pb2.ACCESS_STATE_ACTIVE
    assert (made.readable, made.writable) == (True, False)
    assert made.medium == storage_element_pb2.STORAGE_MEDIUM_DISK
    await place.house.restart()
    after = Place(place.house, place.root)
    assert await after.get("new") == made


async def test_the_end_of_one_that_it_stands_in_for_keeps_no_element_from_being_changed(
    place: Place,
) -> None:
    await place.make("gone")
    await place.make("new", failover_for=["storageElements/gone"])
    await place.delete("gone")
    new = Element(name="storageElements/new", description="still here")
    assert (await place.update(new, "description")).description == "still here"
    new.failover_for.append("storageElements/gone")
    assert (await place.update(new)).failover_for == ["storageElements/gone"]
    new.failover_for.append("storageElements/none")
    error = await refused(place.update(new))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_what_goes_to_an_element_that_copies_strictly_is_tried_again(
    place: Place, words: Any
) -> None:
    await place.make("new", transfer_defaults={"strict_copy": True})
    (place.folder("new") / "local").mkdir()
    source = place.house.storage / "local/a"
    target = f"{place.folder('new').as_uri()}/local/a"
    failed = await place.sue.ended((await place.sue.submit((source.as_uri(), target))).name)
    assert words.job(failed) == "FAILED"
    place.house.file("local/a", b"bytes")
    request = transfer_service_pb2.RetryTransferJobRequest(name=failed.name)
    again = await place.sue.jobs.RetryTransferJob(request)
    assert words.job(await place.sue.ended(again.name)) == "FINISHED"
    assert await place.sue.read(target) == b"bytes"


async def test_the_same_request_makes_one_element(place: Place, words: Any) -> None:
    request_id = uuid7()
    first = await place.make("new", request_id)
    assert await place.make("new", request_id) == first
    other = await refused(place.make("newer", request_id))
    assert words.reason(other) == "REQUEST_ID_REUSED"
    again = await refused(place.make("new", uuid7()))
    assert (again.code(), words.reason(again)) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "ALREADY_EXISTS",
    )
    await place.delete("new")
    assert (await refused(place.make("new", request_id))).code() == grpc.StatusCode.NOT_FOUND


async def test_what_is_only_checked_is_not_stored(place: Place) -> None:
    request = pb.CreateStorageElementRequest(
        storage_element_id="new", storage_element=place.settings("new"), validate_only=True
    )
    checked = await place.admin.storage_admin.CreateStorageElement(request)
    assert (checked.name, checked.revision, checked.HasField("create_time")) == ("", 0, False)
    assert len(checked.endpoints) == 1
    assert (await refused(place.get("new"))).code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("below", ["", "sub", ".."])
async def test_places_of_two_elements_do_not_overlap(place: Place, words: Any, below: str) -> None:
    await place.make("a")
    url = {"": "a", "sub": "a/sub", "..": "b"}[below]
    if below == "..":
        await place.delete("a")
        (place.root / "b").mkdir()
        inner = ParseDict(
            {"endpoints": [{"base_url": f"{(place.root / 'b/in').as_uri()}"}]}, Element()
        )
        await place.admin.storage_admin.CreateStorageElement(
            pb.CreateStorageElementRequest(storage_element_id="inner", storage_element=inner)
        )
    given = ParseDict({"endpoints": [{"base_url": (place.root / url).as_uri()}]}, Element())
    request = pb.CreateStorageElementRequest(storage_element_id="b", storage_element=given)
    error = await refused(place.admin.storage_admin.CreateStorageElement(request))
    assert words.reason(error) == "ALREADY_EXISTS"


async def test_a_configured_element_is_not_changed_nor_made_again(place: Place, words: Any) -> None:
    configured = await place.get("local")
    assert (configured.configured, configured.revision) == (True, 0)
    assert not configured.HasField("create_time")
    for call in (
        place.update(Element(name="storageElements/local", site="X")),
        place.delete("local"),
    ):
        assert words.reason(await refused(call)) == "PRECONDITION"
    assert words.reason(await refused(place.make("local"))) == "ALREADY_EXISTS"


async def test_updates_change_what_they_name_and_count_revisions(place: Place, words: Any) -> None:
    made = await place.make("new", site="DESY", draining=True)
    changed = await place.update(
        Element(name=made.name, site="CERN"), "site", "draining", revision=made.revision
    )
    assert (changed.site, changed.draining, changed.writable) == ("CERN", False, True)
    assert changed.revision > made.revision
    assert changed.create_time == made.create_time
    assert changed.update_time.ToMicroseconds() > made.update_time.ToMicroseconds()
    stale = await refused(
        place.update(Element(name=made.name, site="X"), "site", revision=made.revision)
    )
    assert (stale.code(), words.reason(stale)) == (
        grpc.StatusCode.ABORTED,
        "REVISION_CONFLICT",
    )
    same = await place.update(Element(name=made.name, site="CERN"), "site")
    assert same.revision == changed.revision
    assert words.reason(await refused(place.update(Element(name=made.name), "readable"))) == (
        "INVALID_FIELDS"
    )
    absent = await refused(place.update(Element(name="storageElements/none", site="X")))
    assert absent.code() == grpc.StatusCode.NOT_FOUND


async def test_changes_at_the_same_time_are_all_made(place: Place) -> None:
    made = await place.make("new")
    await asyncio.gather(
        place.update(Element(name=made.name, site="CERN"), "site"),
        place.update(Element(name=made.name, description="big"), "description"),
        place.update(Element(name=made.name, draining=True), "draining"),
    )
    found = await place.get("new")
    assert (found.site, found.description, found.draining) == ("CERN", "big", True)
    assert found.revision == made.revision + 3


async def test_an_element_in_use_stays(place: Place, words: Any) -> None:
    made = await place.make("new")
    url = f"{place.folder('new').as_uri()}/local/a"
    await place.sue.put(url, b"bytes")
    in_use = await refused(place.delete("new"))
    assert words.reason(in_use) == "IN_USE"
    assert metadata(words, in_use) == {"name": made.name, "by": "the replica of LFN:/local/a"}
    other = place.folder("other").as_uri()
    moved = ParseDict({"name": made.name, "endpoints": [{"base_url": other}]}, Element())
    assert words.reason(await refused(place.update(moved, "endpoints"))) == "IN_USE"
    renamed = Element(name=made.name, vo_paths={"local": "/elsewhere"})
    assert words.reason(await refused(place.update(renamed, "vo_paths"))) == "IN_USE"
    await place.sue.storage.DeleteContent(storage_service_pb2.DeleteContentRequest(file=url))
    await place.update(moved, "endpoints")
    await place.delete("new")
    assert (await refused(place.delete("new"))).code() == grpc.StatusCode.NOT_FOUND
    assert (await refused(place.get("new"))).code() == grpc.StatusCode.NOT_FOUND


async def test_elements_are_paged_by_name(place: Place, words: Any) -> None:
    for name in ("b", "a", "z"):
        await place.make(name)
    request = storage_service_pb2.ListStorageElementsRequest
    seen: list[str] = []
    token = ""
    while True:
        page = await place.sue.storage.ListStorageElements(request(page_size=2, page_token=token))
        seen += [one.name.removeprefix("storageElements/") for one in page.storage_elements]
        token = page.next_page_token
        if not token:
            break
    assert seen == ["a", "b", "jobs", "local", "mirror", "z"]


async def test_changes_are_in_the_audit_with_their_reason(place: Place, words: Any) -> None:
    made = await place.make("new")
    await place.update(Element(name=made.name, site="CERN"), "site")
    await place.delete("new")
    rows = await place.house.room._started.db.read(
        lambda conn: conn.execute(select(AUDIT).order_by(AUDIT.c.time_us)).all()
    )
    assert [(row.resource, row.reason, row.actor) for row in rows] == [
        (made.name, "more room", "admin"),
        (made.name, "", "admin"),
        (made.name, "retired", "admin"),
    ]
    assert [bool(row.before_json) for row in rows] == [False, True, True]
    assert [bool(row.after_json) for row in rows] == [True, True, False]


async def test_only_administrators_change_elements(place: Place, words: Any) -> None:
    made = await place.make("new")
    manager = place.house.client("max")
    for call in (
        manager.storage_admin.CreateStorageElement(
            pb.CreateStorageElementRequest(
                storage_element_id="x", storage_element=place.settings("x")
            )
        ),
        manager.storage_admin.UpdateStorageElement(
            pb.UpdateStorageElementRequest(storage_element=Element(name=made.name, site="X"))
        ),
        manager.storage_admin.DeleteStorageElement(pb.DeleteStorageElementRequest(name=made.name)),
    ):
        assert words.reason(await refused(call)) == "PERMISSION_DENIED"


async def test_files_are_written_to_the_first_element_that_takes_them(place: Place) -> None:
    await place.make("second", vo_paths={"other": "/other"})
    await place.make("third", vo_paths={"other": "/other"})
    eve = place.house.client("eve")

    async def put(name: str) -> str:
        answer = await eve.put(f"LFN:/other/{name}", b"x")
        return str(answer.url).removeprefix(place.root.as_uri()).split("/")[1]

    assert await put("a") == "second"
    await place.update(Element(name="storageElements/second", draining=True), "draining")
    assert await put("b") == "third"
    await place.update(Element(name="storageElements/second"), "draining")
    assert await put("c") == "second"
    probing = ParseDict(
        {"name": "storageElements/second", "access": {"write": "ACCESS_STATE_PROBING"}}, Element()
    )
    await place.update(probing, "access.write")
    assert await put("d") == "third"


def metadata(words: Any, error: aio.AioRpcError) -> dict[str, str]:
    """The metadata of an error's reason."""
    return dict(words.info(error).metadata)


@pytest.mark.parametrize(
    ("verify", "accepted"), [("SOURCE", True), ("TARGET", False), ("BOTH", False)]
)
async def test_a_checksum_that_an_end_does_not_compute_is_refused(
    place: Place, words: Any, verify: str, accepted: bool
) -> None:
    made = await place.make("new", checksum_types=["CHECKSUM_TYPE_MD5"])
    assert list(made.checksum_types) == [checksum_pb2.CHECKSUM_TYPE_MD5]
    content = b"summed"
    file = transfer_job_pb2.FileTransfer(
        source=place.house.file("local/a", content),
        target=f"{place.folder('new').as_uri()}/local/a",
        checksum=words.adler32(content),
    )
    mode = transfer_job_pb2.VerifyMode.Value(f"VERIFY_MODE_{verify}")
    if accepted:
        job = await place.sue.submit(file, verify=mode)
        assert words.job(await place.sue.ended(job.name)) == "FINISHED"
        return
    error = await refused(place.sue.submit(file, verify=mode))
    assert words.violations(error) == {
        "transfer_job.files[0].checksum.type": "storageElements/new does not compute it"
    }


async def test_limits_of_a_description_are_kept(place: Place, words: Any) -> None:
    for fields, field in (
        ({"site": "x" * 256}, "storage_element.site"),
        ({"description": "x" * 1025}, "storage_element.description"),
        ({"vo_paths": {"v" * 65: "/v"}}, "storage_element.vo_paths[v"),
        ({"vo_paths": {"v": "/" + "v" * 512}}, "storage_element.vo_paths[v]"),
        ({"limits": {"max_active_in": -1}}, "storage_element.limits.max_active_in"),
        ({"endpoints": []}, "storage_element"),
        (
            {"endpoints": [{"base_url": f"https://x.invalid/{n}"} for n in range(33)]},
            "storage_element.endpoints",
        ),
        (
            {"endpoints": [{"base_url": "https://x.invalid/" + "x" * 512}]},
            "storage_element.endpoints[0].base_url",
        ),
        (
            {"endpoints": [{"base_url": "https://x.invalid/a\x07b"}]},
            "storage_element.endpoints[0].base_url",
        ),
        (
            {"endpoints": [{"base_url": "https://x.invalid/a/%2E%2E/b"}]},
            "storage_element.endpoints[0].base_url",
        ),
    ):
        error = await refused(place.make("new", **fields))
        assert any(one.startswith(field) for one in words.violations(error)), fields
    for name in ("A", "1a", "a" * 64, "a/b", ""):
        assert words.reason(await refused(place.make_named(name))) == "INVALID_FIELDS"
    assert (await refused(place.get("new"))).code() == grpc.StatusCode.NOT_FOUND
