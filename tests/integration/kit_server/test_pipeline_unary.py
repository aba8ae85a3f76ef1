"""Unary calls: one order of steps, and every failure in Gridlane's form."""

import asyncio
import io
import logging
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from integration.kit_server.served import Serve

from gridlane_kit import errors, logs
from gridlane_kit.admission import Limits
from gridlane_kit.call import CURRENT
from gridlane_kit.policy import Binding, Policy, Role

SECRET = "the text of an internal error"


class Things:
    """An implementation that does what a test asks of it by the name of the thing."""

    def __init__(self, messages: SimpleNamespace) -> None:
        self.m = messages
        self.calls: list[Any] = []
        self.release = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.entered = asyncio.Event()

    async def GetThing(self, request: Any, call: Any) -> Any:
        self.calls.append(call)
        verb = request.name.removeprefix("things/")
        if verb == "boom":
            raise RuntimeError(SECRET)
        if verb == "cancels-itself":
            raise asyncio.CancelledError
        if verb == "wrong-type":
            return request
        if verb == "gone":
            raise errors.not_found(request.name)
        if verb == "huge":
            return self.m.Thing(name="x" * (4 * 1024 * 1024))
        if verb == "numbers":
            wrong: Any = {"count": 3}
            raise errors.precondition("x", "y", metadata=wrong)
        if verb == "long":
            raise errors.precondition("x" * 9000, "y" * 9000)
        if verb == "slow":
            self.entered.set()
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return self.m.Thing(name=request.name)

    async def BatchGetThings(self, request: Any, call: Any) -> Any:
        return self.m.Thing(name=request.name)

    async def ListThings(self, request: Any, call: Any) -> Any:
        return self.m.Thing(name="things/none" if call.visibility.nothing else "things/some")

    async def CreateThing(self, request: Any, call: Any) -> Any:
        self.calls.append(call)
        return request.thing


@pytest.fixture
def things(messages: SimpleNamespace) -> Things:
    return Things(messages)


def get(messages: SimpleNamespace, name: str) -> Any:
    return messages.GetThingRequest(name=f"things/{name}")


async def test_a_good_call_is_answered_and_its_handler_sees_who_calls(
    serve: Serve, things: Things, messages: SimpleNamespace
) -> None:
    served = await serve(things)
    answer = await served.unary("GetThing", get(messages, "a"), timeout=7)
    assert messages.Thing.FromString(answer).name == "things/a"
    (call,) = things.calls
    assert call.principal.owner == "https://issuer.test/|ada"
    assert call.visibility.owner == call.principal.owner
    assert call.visibility.vos == {"local"}
    assert 5 < call.remaining() < 7.5, "gRPC's clock and ours differ by milliseconds"
    assert call.method == "gridlane.transfer.sample.v1.SampleService/GetThing"


async def test_nothing_of_a_call_is_left_in_the_context_after_it(
    serve: Serve, things: Things, messages: SimpleNamespace
) -> None:
    served = await serve(things)
    for _ in range(3):
        await served.unary("GetThing", get(messages, "a"))
    assert CURRENT.get() is None


async def test_without_a_token_nothing_else_is_looked_at(serve: Serve, things: Things) -> None:
    served = await serve(things)
    for metadata in ((), (("authorization", "Basic YTpi"),), (("authorization", "Bearer "),)):
        failure = await served.refused("GetThing", b"\xff\xff", metadata=metadata)
        assert (failure.code, failure.reason) == (
            grpc.StatusCode.UNAUTHENTICATED,
            "TOKEN_MISSING",
        )


async def test_garbage_is_an_invalid_argument_and_tells_no_parser_text(
    serve: Serve, things: Things
) -> None:
    served = await serve(things)
    failure = await served.refused("GetThing", b"\xff\xff\xff")
    assert (failure.code, failure.reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "MALFORMED_MESSAGE",
    )
    assert "decode" not in failure.raw.lower()
    assert "wire" not in failure.raw.lower()


async def test_no_bytes_whatever_are_answered_with_unknown_or_internal(
    serve: Serve, things: Things
) -> None:
    served = await serve(things)
    seen: set[grpc.StatusCode] = set()

    async def send(method: str, raw: bytes) -> None:
        try:
            await served.unary(method, raw)
            seen.add(grpc.StatusCode.OK)
        except grpc.aio.AioRpcError as error:
            seen.add(error.code())

    cases: list[tuple[str, bytes]] = []

    @given(st.sampled_from(["GetThing", "CreateThing", "ForgetThing"]), st.binary(max_size=200))
    @settings(
        max_examples=300,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    def collect(method: str, raw: bytes) -> None:
        cases.append((method, raw))

    collect()
    await asyncio.gather(*(send(method, raw) for method, raw in cases))
    assert seen <= {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
    assert grpc.StatusCode.INVALID_ARGUMENT in seen


async def test_every_broken_rule_is_named_with_its_field(
    serve: Serve, things: Things, messages: SimpleNamespace
) -> None:
    served = await serve(things)
    thing = messages.Thing(name="x" * 41, count=11, labels=["ok", ""])
    failure = await served.refused("CreateThing", messages.CreateThingRequest(thing=thing))
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")
    assert set(failure.fields) == {"thing.name", "thing.count", "thing.labels[1]"}
    assert not things.calls


async def test_a_thousand_violations_still_fit_into_the_answer(
    serve: Serve, things: Things, messages: SimpleNamespace
) -> None:
    served = await serve(things)
    thing = messages.Thing(labels=[""] * 1000)
    failure = await served.refused("CreateThing", messages.CreateThingRequest(thing=thing))
    assert failure.reason == "INVALID_FIELDS"
    assert "thing.labels[0]" in failure.fields
    assert "more" in failure.fields["…"]


async def test_an_error_with_very_long_texts_still_reaches_the_client(
    serve: Serve, things: Things, messages: SimpleNamespace
) -> None:
    served = await serve(things)
    failure = await served.refused("GetThing", get(messages, "long"))
    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PRECONDITION")


async def test_an_error_with_metadata_of_the_wrong_type_keeps_its_reason(
    serve: Serve, things: Things, messages: SimpleNamespace
) -> None:
    served = await serve(things)
    assert (await served.refused("GetThing", get(messages, "numbers"))).reason == "PRECONDITION"


async def test_a_sink_that_fails_does_not_fail_the_call(
    serve: Serve, things: Things, messages: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    served = await serve(things)

    def fails(span: Any) -> None:
        raise OSError("full")

    served.pipeline.telemetry.add_sink(fails)
    await served.unary("GetThing", get(messages, "a"))
    assert "a sink refused a span" in caplog.text


async def test_permission_is_decided_before_validation_and_also_for_what_is_not_implemented(
    serve: Serve, things: Things, messages: SimpleNamespace
) -> None:
    served = await serve(things, roles=())
    for method, request in (
        ("CreateThing", messages.CreateThingRequest()),
        ("ForgetThing", messages.GetThingRequest(name="not valid")),
    ):
        failure = await served.refused(method, request)
        assert (failure.code, failure.reason, failure.metadata) == (
            grpc.StatusCode.PERMISSION_DENIED,
            "PERMISSION_DENIED",
            {"permission": "workload.jobs.submit", "roles": "ADMIN SUBMITTER"},
        )


async def test_a_method_that_the_implementation_lacks_is_unimplemented_for_those_who_may(
    serve: Serve, things: Things, messages: SimpleNamespace
) -> None:
    served = await serve(things)
    failure = await served.refused("ForgetThing", get(messages, "a"))
    assert (failure.code, failure.reason) == (grpc.StatusCode.UNIMPLEMENTED, "NOT_IMPLEMENTED")
    failure = await served.refused("ForgetThing", get(messages, "a"), metadata=())
    assert failure.reason == "TOKEN_MISSING"


async def test_a_vetoed_caller_is_denied_but_its_listings_are_empty(
    serve: Serve, things: Things, messages: SimpleNamespace
) -> None:
    served = await serve(things, roles=(Role.ADMIN, Role.VETOED))
    failure = await served.refused("GetThing", get(messages, "a"))
    assert (failure.code, failure.reason) == (
        grpc.StatusCode.PERMISSION_DENIED,
        "CALLER_VETOED",
    )
    answer = await served.unary("ListThings", get(messages, "a"))
    assert messages.Thing.FromString(answer).name == "things/none"


async def test_a_narrow_token_is_told_which_scope_it_lacks(
    serve: Serve, things: Things, messages: SimpleNamespace
) -> None:
    served = await serve(things)
    headers = served.headers(served.token(scopes=["storage.read:/local"]))
    failure = await served.refused("GetThing", get(messages, "a"), metadata=headers)
    assert failure.reason == "SCOPE_TOO_NARROW"
    assert failure.metadata == {
        "permission": "workload.jobs.view",
        "scopes_needed": "compute.read",
    }


async def test_a_replaced_policy_decides_the_next_call(
    serve: Serve, things: Things, messages: SimpleNamespace
) -> None:
    served = await serve(things)
    thing = messages.CreateThingRequest(thing=messages.Thing(name="a"))
    await served.unary("CreateThing", thing)
    served.policy.replace(Policy(2))
    assert (await served.refused("CreateThing", thing)).reason == "PERMISSION_DENIED"


@pytest.mark.parametrize("name", ["boom", "cancels-itself", "wrong-type", "huge"])
async def test_a_defect_is_internal_with_a_trace_id_and_its_text_only_in_the_log(
    name: str,
    serve: Serve,
    things: Things,
    messages: SimpleNamespace,
    caplog: pytest.LogCaptureFixture,
) -> None:
    served = await serve(things)
    with caplog.at_level(logging.ERROR):
        failure = await served.refused("GetThing", get(messages, name), timeout=5)
    assert (failure.code, failure.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert failure.metadata == {"trace_id": failure.trace_id}
    assert SECRET not in failure.raw
    (record,) = [r for r in caplog.records if "unexpected error" in r.getMessage()]
    assert failure.trace_id in record.getMessage()


@pytest.mark.parametrize("json", [True, False])
async def test_a_logged_traceback_holds_no_token(
    json: bool, serve: Serve, things: Things, messages: SimpleNamespace
) -> None:
    served = await serve(things)
    token = served.token()
    out = io.StringIO()
    logs.configure(json=json, stream=out)
    try:
        metadata = served.headers(token)
        await served.refused("GetThing", get(messages, "boom"), metadata=metadata)
        await served.refused("GetThing", b"", metadata=served.headers(token + "x"))
    finally:
        logs.configure(json=True)
    text = out.getvalue()
    assert SECRET in text
    assert "token refused" in text
    assert token.rpartition(".")[2] not in text


async def test_an_error_of_the_handler_keeps_its_code_and_reason(
    serve: Serve, things: Things, messages: SimpleNamespace
) -> None:
    served = await serve(things)
    failure = await served.refused("GetThing", get(messages, "gone"))
    assert (failure.code, failure.reason, failure.metadata) == (
        grpc.StatusCode.NOT_FOUND,
        "NOT_FOUND",
        {"name": "things/gone"},
    )


async def test_a_client_that_leaves_cancels_its_handler_and_frees_its_place(
    serve: Serve, things: Things, messages: SimpleNamespace
) -> None:
    served = await serve(things, limits=Limits(unary=1))
    call = asyncio.ensure_future(served.unary("GetThing", get(messages, "slow")))
    await asyncio.wait_for(things.entered.wait(), 5)
    call.cancel()
    await asyncio.wait_for(things.cancelled.wait(), 5)
    await served.unary("GetThing", get(messages, "a"))


async def test_the_callers_deadline_ends_the_handler(
    serve: Serve, things: Things, messages: SimpleNamespace
) -> None:
    served = await serve(things)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.unary("GetThing", get(messages, "slow"), timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(things.cancelled.wait(), 5)


async def test_a_unary_call_without_a_deadline_gets_the_default_one(
    serve: Serve, things: Things, messages: SimpleNamespace
) -> None:
    served = await serve(things, default_deadline_s=0.2)
    failure = await served.refused("GetThing", get(messages, "slow"), timeout=None)
    assert (failure.code, failure.reason) == (
        grpc.StatusCode.DEADLINE_EXCEEDED,
        "DEADLINE_EXCEEDED",
    )
    assert things.cancelled.is_set()


async def test_a_full_class_refuses_with_retry_info_and_leaves_the_others_alone(
    serve: Serve, things: Things, messages: SimpleNamespace
) -> None:
    served = await serve(things, limits=Limits(unary=2, batch=1, retry_after_s=0.25))
    waiting = [
        asyncio.ensure_future(served.unary("GetThing", get(messages, "slow"))) for _ in range(2)
    ]
    while len(things.calls) < 2:
        await asyncio.sleep(0.01)
    failure = await served.refused("GetThing", get(messages, "a"))
    assert (failure.code, failure.reason, failure.metadata, failure.retry_after_s) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "OVERLOADED",
        {"limit": "unary"},
        0.25,
    )
    await served.unary("BatchGetThings", get(messages, "a"))
    things.release.set()
    await asyncio.gather(*waiting)
    await served.unary("GetThing", get(messages, "a"))


async def test_a_message_over_the_limit_is_refused(serve: Serve, things: Things) -> None:
    served = await serve(things)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.unary("GetThing", b"\x0a" * (4 * 1024 * 1024 + 1))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_the_span_of_a_call_continues_the_callers_trace(
    serve: Serve, things: Things, messages: SimpleNamespace
) -> None:
    served = await serve(things, ratio=0.0)
    traceparent = f"00-{'ab' * 16}-{'cd' * 8}-01"
    await served.unary(
        "GetThing",
        get(messages, "a"),
        metadata=(*served.headers(), ("traceparent", traceparent)),
    )
    (span,) = served.spans
    assert span.trace_id == int("ab" * 16, 16)
    assert span.parent_id == int("cd" * 8, 16)
    assert span.name == "gridlane.transfer.sample.v1.SampleService/GetThing"
    assert span.attributes["rpc.grpc.status"] == "OK"
    assert span.end_ns >= span.start_ns
    await served.unary("GetThing", get(messages, "a"))
    assert len(served.spans) == 1, "an unsampled call leaves no span"


async def test_a_failed_call_is_counted_and_its_span_says_why(
    serve: Serve, things: Things, messages: SimpleNamespace
) -> None:
    served = await serve(things)
    await served.refused("GetThing", get(messages, "gone"))
    (span,) = served.spans
    assert span.error == "NOT_FOUND"
    method = "gridlane.transfer.sample.v1.SampleService/GetThing"
    labels = {"method": method, "code": "NOT_FOUND"}
    assert served.pipeline.metrics.registry.get_sample_value("gridlane_calls_total", labels) == 1


async def test_a_binding_past_its_end_does_not_count(
    serve: Serve, things: Things, messages: SimpleNamespace
) -> None:
    served = await serve(things)
    expired = Binding("https://issuer.test/", "ada", Role.SUBMITTER, vo="local", expires_us=1)
    served.policy.replace(Policy(2, [expired]))
    thing = messages.CreateThingRequest(thing=messages.Thing(name="a"))
    assert (await served.refused("CreateThing", thing)).reason == "PERMISSION_DENIED"
