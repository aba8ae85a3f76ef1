"""Streaming calls: parsed and validated message by message, and ended in good order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
import raw_calls
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from integration.kit_server.served import SAMPLE, FailureOf, Serve

from gridlane_kit import errors
from gridlane_kit.admission import Limits
from gridlane_kit.policy import Binding, Policy, Role


class Things:
    """Streams what a test asks for by the name of the thing."""

    def __init__(self, messages: SimpleNamespace) -> None:
        self.m = messages
        self.cleaned_up = asyncio.Event()
        self.release = asyncio.Event()
        self.visibilities: list[Any] = []

    async def WatchThings(self, request: Any, call: Any) -> AsyncIterator[Any]:
        try:
            for count in range(3):
                call.resume_token = f"after-{count}"
                yield self.m.Thing(name=request.name, count=count)
            if request.name == "things/fails":
                raise errors.position_trimmed("e:1", "e:5")
            if request.name == "things/boom":
                raise RuntimeError("secret")
            if request.name == "things/floods":
                while True:
                    yield self.m.Thing(name="x" * 40, labels=["y" * 1000] * 100)
            if request.name == "things/stays":
                while True:
                    await asyncio.sleep(0.01)
                    self.visibilities.append(call.visibility)
        finally:
            self.cleaned_up.set()

    async def PutThings(self, requests: AsyncIterator[Any], call: Any) -> Any:
        count = 0
        async for _ in requests:
            count += 1
        return self.m.Thing(count=count)

    async def ChatThings(self, requests: AsyncIterator[Any], call: Any) -> AsyncIterator[Any]:
        async for request in requests:
            yield request.thing

    async def GetThing(self, request: Any, call: Any) -> Any:
        await self.release.wait()
        return self.m.Thing(name=request.name)


@pytest.fixture
def things(messages: SimpleNamespace) -> Things:
    return Things(messages)


def watch(served: Any, messages: Any, name: str, **options: Any) -> Any:
    request = messages.GetThingRequest(name=f"things/{name}").SerializeToString()
    options.setdefault("metadata", served.headers())
    return raw_calls.unary_stream(served.channel, served.path("WatchThings"))(request, **options)


async def counted(stream: Any, messages: Any) -> list[int]:
    return [messages.Thing.FromString(raw).count async for raw in stream]


async def take(stream: Any, messages: Any, wanted: int) -> list[int]:
    return [messages.Thing.FromString(await stream.read()).count for _ in range(wanted)]


async def until_open(served: Any, wanted: int) -> None:
    async with asyncio.timeout(5):
        while served.pipeline.open_streams != wanted:
            await asyncio.sleep(0.01)


async def test_a_stream_is_sent_whole(
    serve: Serve, things: Things, messages: SimpleNamespace
) -> None:
    served = await serve(things)
    assert await counted(watch(served, messages, "a", timeout=5), messages) == [0, 1, 2]
    await until_open(served, 0)


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("fails", grpc.StatusCode.OUT_OF_RANGE, "POSITION_TRIMMED"),
        ("boom", grpc.StatusCode.INTERNAL, "INTERNAL"),
    ],
)
async def test_a_failure_in_mid_stream_has_its_reason_and_says_where_to_resume(
    name: str,
    code: grpc.StatusCode,
    reason: str,
    serve: Serve,
    things: Things,
    messages: SimpleNamespace,
    failure: FailureOf,
) -> None:
    served = await serve(things)
    stream = watch(served, messages, name, timeout=5)
    assert await take(stream, messages, 3) == [0, 1, 2]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    seen = failure(caught.value)
    assert (seen.code, seen.reason) == (code, reason)
    assert seen.metadata["resume_token"] == "after-2"
    assert "secret" not in seen.raw


async def test_a_client_that_leaves_a_stream_lets_its_handler_clean_up(
    serve: Serve, things: Things, messages: SimpleNamespace
) -> None:
    served = await serve(things, limits=Limits(stream=1))
    stream = watch(served, messages, "stays")
    await take(stream, messages, 3)
    stream.cancel()
    await asyncio.wait_for(things.cleaned_up.wait(), 5)
    await until_open(served, 0)
    assert await counted(watch(served, messages, "a"), messages) == [0, 1, 2]


async def test_full_streams_are_refused_while_short_calls_go_on(
    serve: Serve, things: Things, messages: SimpleNamespace, failure: FailureOf
) -> None:
    served = await serve(things, limits=Limits(stream=1, unary=1))
    things.release.set()
    stream = watch(served, messages, "stays")
    await take(stream, messages, 3)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await counted(watch(served, messages, "a"), messages)
    seen = failure(caught.value)
    assert (seen.reason, seen.metadata) == ("OVERLOADED", {"limit": "stream"})
    assert seen.retry_after_s
    await served.unary("GetThing", messages.GetThingRequest(name="things/a"))


async def put(served: Any, *raws: bytes, method: str = "PutThings") -> bytes:
    async def requests() -> AsyncIterator[bytes]:
        for raw in raws:
            yield raw

    call = served.channel.stream_unary(served.path(method))
    answer: bytes = await call(requests(), timeout=5, metadata=served.headers())
    return answer


async def test_streamed_requests_are_each_parsed_and_validated(
    serve: Serve, things: Things, messages: SimpleNamespace, failure: FailureOf
) -> None:
    served = await serve(things)
    good = messages.CreateThingRequest(thing=messages.Thing(name="a")).SerializeToString()
    bad = messages.CreateThingRequest(thing=messages.Thing(count=99)).SerializeToString()
    assert messages.Thing.FromString(await put(served, good, good)).count == 2
    for raws, reason in (((good, bad), "INVALID_FIELDS"), ((good, b"\xff"), "MALFORMED_MESSAGE")):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await put(served, *raws)
        seen = failure(caught.value)
        assert (seen.code, seen.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)


async def test_both_sides_stream(serve: Serve, things: Things, messages: SimpleNamespace) -> None:
    served = await serve(things)

    async def requests() -> AsyncIterator[bytes]:
        for count in range(3):
            thing = messages.Thing(count=count)
            yield messages.CreateThingRequest(thing=thing).SerializeToString()

    chat = raw_calls.stream_stream(served.channel, served.path("ChatThings"))
    stream = chat(requests(), timeout=5, metadata=served.headers())
    assert await counted(stream, messages) == [0, 1, 2]


async def test_a_denied_stream_never_reaches_its_handler(
    serve: Serve, things: Things, messages: SimpleNamespace, failure: FailureOf
) -> None:
    served = await serve(things, roles=())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await put(served, b"\xff")
    assert failure(caught.value).reason == "PERMISSION_DENIED"


async def test_an_open_stream_is_cut_when_its_caller_loses_the_right(
    serve: Serve, things: Things, messages: SimpleNamespace, failure: FailureOf
) -> None:
    served = await serve(things)
    chat = raw_calls.stream_stream(served.channel, served.path("ChatThings"))
    stream = chat(metadata=served.headers())
    thing = messages.Thing(count=7)
    await stream.write(messages.CreateThingRequest(thing=thing).SerializeToString())
    assert await take(stream, messages, 1) == [7]
    served.policy.replace(Policy(2))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(stream.read(), 5)
    assert failure(caught.value).reason == "PERMISSION_DENIED"


async def test_an_open_stream_that_stays_allowed_sees_what_the_new_policy_lets_it_see(
    serve: Serve, things: Things, messages: SimpleNamespace
) -> None:
    served = await serve(things)
    stream = watch(served, messages, "stays")
    await take(stream, messages, 3)
    served.policy.replace(Policy(2, [Binding("https://issuer.test/", "ada", Role.ADMIN)]))
    async with asyncio.timeout(5):
        while not (things.visibilities and things.visibilities[-1].everything):
            await asyncio.sleep(0.01)
    assert served.pipeline.open_streams == 1
    stream.cancel()


async def test_a_stop_ends_open_streams_with_their_token_and_lets_short_calls_finish(
    serve: Serve, things: Things, messages: SimpleNamespace, failure: FailureOf
) -> None:
    served = await serve(things)
    stream = watch(served, messages, "stays")
    await take(stream, messages, 3)
    short = asyncio.ensure_future(
        served.unary("GetThing", messages.GetThingRequest(name="things/a"))
    )
    await asyncio.sleep(0.1)
    stopping = asyncio.ensure_future(served.server.stop())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(stream.read(), 5)
    seen = failure(caught.value)
    assert (seen.code, seen.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    assert seen.metadata["resume_token"] == "after-2"
    assert seen.retry_after_s
    assert things.cleaned_up.is_set()
    assert served.room.steps == ["start"], "a room drains only after the calls have ended"
    things.release.set()
    assert messages.Thing.FromString(await short).name == "things/a"
    await asyncio.wait_for(stopping, 10)
    assert served.room.steps == ["start", "drain", "stop"]


async def test_health_is_watched_through_a_drain(serve: Serve, things: Things) -> None:
    served = await serve(things)
    served.pipeline.drain_streams()
    async with grpc.aio.insecure_channel(served.server.health_address) as channel:
        watch = raw_calls.unary_stream(channel, "/grpc.health.v1.Health/Watch")(b"", timeout=5)
        assert HealthCheckResponse.FromString(await raw_calls.read(watch)).status == 1
        stopping = asyncio.ensure_future(served.server.stop())
        assert HealthCheckResponse.FromString(await raw_calls.read(watch)).status == 2
        await asyncio.wait_for(stopping, 10)


@pytest.mark.parametrize("probed", ["", SAMPLE, "policy"])
async def test_health_says_that_the_policy_is_stale(
    serve: Serve, things: Things, probed: str
) -> None:
    """And a server that drains does not serve again when the policy opens."""
    served = await serve(things)
    policy = served.policy.current
    closed = Policy(policy.revision, closed=True)
    probe = HealthCheckRequest(service=probed).SerializeToString()
    async with grpc.aio.insecure_channel(served.server.health_address) as channel:
        watch = raw_calls.unary_stream(channel, "/grpc.health.v1.Health/Watch")(probe, timeout=10)

        async def told() -> int:
            return HealthCheckResponse.FromString(await raw_calls.read(watch)).status

        assert await told() == HealthCheckResponse.SERVING
        served.policy.replace(closed)
        assert await told() == HealthCheckResponse.NOT_SERVING
        served.policy.replace(policy)
        assert await told() == HealthCheckResponse.SERVING
        served.policy.replace(closed)
        assert await told() == HealthCheckResponse.NOT_SERVING
        stopping = asyncio.ensure_future(served.server.stop())
        await asyncio.sleep(0)  # it begins
        served.policy.replace(policy)
        after = []
        with suppress(grpc.aio.AioRpcError):  # the server goes away
            while isinstance(message := await watch.read(), bytes):
                after.append(HealthCheckResponse.FromString(message).status)
        assert after == ([HealthCheckResponse.SERVING] if probed == "policy" else [])
        await asyncio.wait_for(stopping, 10)


async def test_a_drain_reaches_a_reader_that_does_not_read(
    serve: Serve, things: Things, messages: SimpleNamespace
) -> None:
    served = await serve(things, grace_s=0.5)
    stream = watch(served, messages, "floods")
    await take(stream, messages, 3)
    await asyncio.sleep(0.3)
    await asyncio.wait_for(served.server.stop(), 10)
    assert things.cleaned_up.is_set()


async def test_a_draining_server_takes_no_new_stream(
    serve: Serve, things: Things, messages: SimpleNamespace, failure: FailureOf
) -> None:
    served = await serve(things)
    served.pipeline.drain_streams()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await counted(watch(served, messages, "a"), messages)
    seen = failure(caught.value)
    assert (seen.code, seen.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
