"""The replica catalogue's calls: many copies at once, GUIDs, and copies that are taken out."""

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2

from gridlane.ids import uuid7
from gridlane.transfer.v1 import replica_pb2, replica_service_pb2
from gridlane_kit.policy import Binding, Policy, Role

pytestmark = pytest.mark.parametrize("engine", ["sqlite", "postgresql"], indirect=True)

CONTENT = b"gridlane\n"
GUID = "0192F0C1-2345-7ABC-8DEF-0123456789AB"
ISSUER = "https://issuer.test/"


class Shelf:
    """Logical files of the VO `local` on the elements `local` and `mirror`."""

    def __init__(self, house: Any, words: Any) -> None:
        self._house = house
        self._words = words

    def url(self, name: str, element: str = "storage") -> str:
        below = getattr(self._house, element)
        return f"{below.as_uri()}/local/{name}"

    def copy(self, name: str, content: bytes = CONTENT, **fields: Any) -> Any:
        given = {
            "lfn": f"LFN:/local/{name}",
            "url": self.url(name),
            "size_bytes": len(content),
            "checksum": self._words.adler32(content),
        }
        return replica_service_pb2.RegisterReplicaRequest(**{**given, **fields})

    def mirrored(self, name: str, **fields: Any) -> Any:
        return self.copy(name, url=self.url(name, "mirror"), **fields)

    @staticmethod
    def out(name: str, replica: str) -> Any:
        return replica_service_pb2.UnregisterReplicaRequest(
            lfn=f"LFN:/local/{name}", replica=replica
        )


@pytest.fixture
def shelf(house: Any, words: Any) -> Shelf:
    return Shelf(house, words)


async def register(client: Any, *requests: Any) -> Sequence[Any]:
    message = replica_service_pb2.BatchRegisterReplicasRequest(requests=requests)
    return list((await client.replicas.BatchRegisterReplicas(message)).results)


async def unregister(client: Any, *requests: Any) -> Sequence[Any]:
    message = replica_service_pb2.BatchUnregisterReplicasRequest(requests=requests)
    return list((await client.replicas.BatchUnregisterReplicas(message)).results)


async def resolve(client: Any, *names: str) -> list[replica_pb2.LogicalFile | None]:
    request = replica_service_pb2.ResolveReplicasRequest(lfns=[f"LFN:/local/{n}" for n in names])
    answer = await client.replicas.ResolveReplicas(request)
    return [result.file if result.HasField("file") else None for result in answer.results]


def reason(result: Any) -> str:
    """The code and reason of an item that was refused; empty for one that was not."""
    if not result.HasField("status"):
        return ""
    info = error_details_pb2.ErrorInfo()
    assert result.status.details[0].Unpack(info)
    return f"{code_pb2.Code.Name(result.status.code)} {info.reason}"


async def refusal(words: Any, call: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as raised:
        await call
    return raised.value.code().name, words.reason(raised.value)


async def test_each_copy_of_a_batch_is_answered_by_itself(house: Any, sue: Any, shelf: Any) -> None:
    foreign = shelf.copy("c", lfn="LFN:/other/c")
    results = await register(
        sue,
        shelf.copy("a"),
        shelf.copy("b", size_bytes=-1),
        shelf.mirrored("a"),
        shelf.copy("a", b"other bytes", url=shelf.url("a", "mirror")),
        shelf.copy("c", lfn="no logical name"),
        foreign,
        shelf.copy("d", url="file:///nowhere/d"),
        shelf.copy("a"),
        shelf.copy("e"),
    )
    assert [reason(result) for result in results] == [
        "",
        "INVALID_ARGUMENT INVALID_FIELDS",
        "",
        "ALREADY_EXISTS ALREADY_EXISTS",
        "INVALID_ARGUMENT INVALID_FIELDS",
        "INVALID_ARGUMENT INVALID_FIELDS",
        "INVALID_ARGUMENT NO_STORAGE_ELEMENT",
        "",
        "",
    ]
    assert [len(results[n].file.replicas) for n in (0, 2, 7, 8)] == [1, 2, 2, 1]
    (a, b, e) = await resolve(sue, "a", "b", "e")
    assert a == results[7].file
    assert b is None
    assert e == results[8].file
    assert (a.vo, a.owner.issuer, a.owner.subject, a.guid) == ("local", ISSUER, "sue", "")
    again = await register(sue, shelf.copy("a"), shelf.mirrored("a"), shelf.copy("e"))
    assert [result.file for result in again] == [a, a, e]


async def test_who_may_not_register_is_told_so_for_each(house: Any, shelf: Any) -> None:
    results = await register(house.client("eve"), shelf.copy("a"), shelf.copy("b"))
    assert {reason(result) for result in results} == {"PERMISSION_DENIED PERMISSION_DENIED"}
    narrow = house.client("sue", scopes=["storage.create:/local/mine"])
    results = await register(narrow, shelf.copy("mine/a"), shelf.copy("b"))
    assert [reason(result) for result in results] == ["", "PERMISSION_DENIED SCOPE_TOO_NARROW"]


async def test_a_guid_is_kept_and_is_one_file_s_alone(sue: Any, shelf: Any, words: Any) -> None:
    first = await sue.replicas.RegisterReplica(shelf.copy("a", guid=GUID))
    assert first.guid == GUID.lower()
    # The same again, in the other case; and another copy that tells none.
    assert await sue.replicas.RegisterReplica(shelf.copy("a", guid=GUID.lower())) == first
    both = await sue.replicas.RegisterReplica(shelf.mirrored("a"))
    assert both.guid == first.guid
    taken = ("ALREADY_EXISTS", "ALREADY_EXISTS")
    other = sue.replicas.RegisterReplica(shelf.copy("a", guid=uuid7()))
    assert await refusal(words, other) == taken
    stolen = sue.replicas.RegisterReplica(shelf.copy("b", guid=GUID))
    assert await refusal(words, stolen) == taken
    assert (await sue.replicas.RegisterReplica(shelf.copy("c"))).guid == ""
    late = sue.replicas.RegisterReplica(shelf.mirrored("c", guid=uuid7()))
    assert await refusal(words, late) == taken
    assert [found is not None for found in await resolve(sue, "a", "b", "c")] == [True, False, True]
    listed = await sue.replicas.ListReplicas(
        replica_service_pb2.ListReplicasRequest(prefix="LFN:/local/")
    )
    assert [file.guid for file in listed.files] == [GUID.lower(), ""]


async def test_of_one_guid_in_a_batch_the_first_file_has_it(sue: Any, shelf: Any) -> None:
    results = await register(sue, shelf.copy("a", guid=GUID), shelf.copy("b", guid=GUID))
    assert [reason(result) for result in results] == ["", "ALREADY_EXISTS ALREADY_EXISTS"]
    wrong = await register(sue, shelf.copy("c", guid="no guid"))
    assert reason(wrong[0]) == "INVALID_ARGUMENT INVALID_FIELDS"


async def test_a_guid_is_free_when_its_file_is_gone(sue: Any, shelf: Any) -> None:
    await sue.replicas.RegisterReplica(shelf.copy("a", guid=GUID))
    await sue.replicas.UnregisterReplica(shelf.out("a", shelf.url("a")))
    assert (await sue.replicas.RegisterReplica(shelf.copy("b", guid=GUID))).guid == GUID.lower()


async def test_a_copy_is_taken_out_by_its_url_or_its_element_and_the_bytes_stay(
    house: Any, sue: Any, shelf: Any, words: Any
) -> None:
    house.file("local/a b", CONTENT)
    await register(sue, shelf.copy("a b"), shelf.mirrored("a b"))
    await sue.replicas.UnregisterReplica(shelf.out("a b", "storageElements/mirror"))
    (left,) = await resolve(sue, "a b")
    assert left is not None
    assert [replica.storage_element for replica in left.replicas] == ["storageElements/local"]
    gone = sue.replicas.UnregisterReplica(shelf.out("a b", "storageElements/mirror"))
    assert await refusal(words, gone) == ("NOT_FOUND", "NOT_FOUND")
    # A URL may be written with its blank as it is, or quoted.
    await sue.replicas.UnregisterReplica(shelf.out("a b", shelf.url("a%20b")))
    assert await resolve(sue, "a b") == [None]
    assert (house.storage / "local/a b").read_bytes() == CONTENT
    gone = sue.replicas.UnregisterReplica(shelf.out("a b", shelf.url("a b")))
    assert await refusal(words, gone) == ("NOT_FOUND", "NOT_FOUND")


async def test_only_owners_managers_and_administrators_take_a_copy_out(
    house: Any, sue: Any, shelf: Any
) -> None:
    another = Binding(ISSUER, "bob", Role.SUBMITTER, "local")
    house.policy.replace(Policy(2, (*house.bindings, another), vos=["local", "other"]))
    names = ["a", "b", "c"]
    await register(sue, *(shelf.copy(name) for name in names))
    requests = [shelf.out("a", shelf.url("a")), shelf.out("none", shelf.url("none"))]
    # Another submitter of the VO sees the file; one of another VO does not.
    answers = await unregister(house.client("bob"), *requests)
    assert [reason(one) for one in answers] == [
        "PERMISSION_DENIED PERMISSION_DENIED",
        "NOT_FOUND NOT_FOUND",
    ]
    foreign, absent = await unregister(house.client("eve"), *requests)
    assert reason(foreign) == reason(absent) == "NOT_FOUND NOT_FOUND"
    assert foreign.status.message.replace("/local/a", "/local/none") == absent.status.message
    assert all(await resolve(sue, *names))
    for user, name in zip(("sue", "max", "admin"), names, strict=True):
        (done,) = await unregister(house.client(user), shelf.out(name, shelf.url(name)))
        assert done.HasField("done"), (user, done)
    assert await resolve(sue, *names) == [None] * 3


async def test_a_token_s_paths_narrow_what_may_be_taken_out(
    house: Any, sue: Any, shelf: Any
) -> None:
    await register(sue, shelf.copy("mine/a"), shelf.copy("b"))
    narrow = house.client("sue", scopes=["storage.modify:/local/mine"])
    results = await unregister(
        narrow,
        shelf.out("mine/a", "storageElements/local"),
        shelf.out("b", "storageElements/local"),
        shelf.out("none", "storageElements/local"),
        shelf.out("mine/../b", "storageElements/local"),
    )
    too_narrow = "PERMISSION_DENIED SCOPE_TOO_NARROW"
    assert [reason(result) for result in results] == ["", too_narrow, too_narrow, too_narrow]


async def test_copies_of_a_batch_are_taken_out_one_by_one(sue: Any, shelf: Any) -> None:
    await register(sue, shelf.copy("a"), shelf.mirrored("a"), shelf.copy("b"))
    results = await unregister(
        sue,
        shelf.out("a", "storageElements/local"),
        shelf.out("a", "storageElements/local"),
        replica_service_pb2.UnregisterReplicaRequest(lfn="LFN:/local/b"),
        shelf.out("a", shelf.url("a", "mirror")),
        shelf.out("a", shelf.url("a", "mirror")),
    )
    assert [reason(result) for result in results] == [
        "",
        "NOT_FOUND NOT_FOUND",
        "INVALID_ARGUMENT INVALID_FIELDS",
        "",
        "NOT_FOUND NOT_FOUND",
    ]
    assert await resolve(sue, "a") == [None]
    assert (await resolve(sue, "b"))[0] is not None


async def test_a_thousand_copies_go_in_and_out_in_one_call(sue: Any, shelf: Any) -> None:
    names = [f"many/{number:04}" for number in range(1000)]
    results = await register(sue, *(shelf.copy(name) for name in names))
    assert [result.file.lfn for result in results] == [f"LFN:/local/{name}" for name in names]
    out = await unregister(sue, *(shelf.out(name, shelf.url(name)) for name in names))
    assert all(result.HasField("done") for result in out)
    assert await resolve(sue, *names) == [None] * 1000


async def test_a_logical_name_is_no_place(sue: Any, shelf: Any, words: Any) -> None:
    nowhere = sue.replicas.RegisterReplica(shelf.copy("a", url="LFN:/local/a"))
    assert await refusal(words, nowhere) == ("INVALID_ARGUMENT", "NO_STORAGE_ELEMENT")
    await sue.replicas.RegisterReplica(shelf.copy("a"))
    (result,) = await unregister(sue, shelf.out("a", "LFN:/local/a"))
    assert reason(result) == "NOT_FOUND NOT_FOUND"


@pytest.mark.parametrize("what", ["BatchRegisterReplicas", "BatchUnregisterReplicas"])
async def test_an_empty_batch_is_refused(house: Any, sue: Any, words: Any, what: str) -> None:
    request = getattr(replica_service_pb2, f"{what}Request")()
    refused = await refusal(words, getattr(sue.replicas, what)(request))
    assert refused == ("INVALID_ARGUMENT", "INVALID_FIELDS")


@pytest.fixture
async def second(engine: str, start_house: Any, sue: Any) -> Any:
    """The same user: of a second server on the same PostgreSQL; on SQLite, of the same."""
    return sue if engine == "sqlite" else (await start_house()).client("sue")


async def test_of_two_that_register_other_bytes_at_once_one_wins(
    shelf: Any, sue: Any, second: Any, words: Any
) -> None:
    for turn in range(10):
        copies = [shelf.copy(f"f{turn}", b"one"), shelf.mirrored(f"f{turn}", guid=uuid7())]
        answers = await asyncio.gather(
            sue.replicas.RegisterReplica(copies[0]),
            second.replicas.RegisterReplica(copies[1]),
            return_exceptions=True,
        )
        refused = [error for error in answers if isinstance(error, grpc.RpcError)]
        assert [words.reason(error) for error in refused] == ["ALREADY_EXISTS"], answers
        (won,) = [answer for answer in answers if isinstance(answer, replica_pb2.LogicalFile)]
        assert await resolve(sue, f"f{turn}") == [won]


async def test_of_two_files_that_take_one_guid_at_once_one_has_it(
    shelf: Any, sue: Any, second: Any, words: Any
) -> None:
    for turn in range(10):
        guid = uuid7()
        answers = await asyncio.gather(
            sue.replicas.RegisterReplica(shelf.copy(f"x{turn}", guid=guid)),
            second.replicas.RegisterReplica(shelf.copy(f"y{turn}", guid=guid)),
            return_exceptions=True,
        )
        refused = [error for error in answers if isinstance(error, grpc.RpcError)]
        assert [words.reason(error) for error in refused] == ["ALREADY_EXISTS"], answers


async def test_what_is_resolved_while_it_is_taken_out_is_whole_or_gone(
    sue: Any, shelf: Any
) -> None:
    name = "busy"
    stop = asyncio.Event()

    async def change() -> None:
        for _ in range(30):
            await register(sue, shelf.copy(name), shelf.mirrored(name))
            await unregister(
                sue,
                shelf.out(name, "storageElements/local"),
                shelf.out(name, "storageElements/mirror"),
            )
        stop.set()

    seen = set()

    async def look() -> None:
        while not stop.is_set():
            (found,) = await resolve(sue, name)
            seen.add(0 if found is None else len(found.replicas))

    async with asyncio.timeout(60):
        await asyncio.gather(change(), look())
    assert seen <= {0, 2}
