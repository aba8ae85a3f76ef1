"""Which calls between services may be made again, and after how long.

Responsible for the rule, said as data, and for the pauses. Not for making calls (`wire_peers`); the
client has rules of its own, for people who wait.
"""

import random
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from gridlane_kit.errors import GridlaneError

REPEATABLE_VERBS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Get": "reads",
        "BatchGet": "reads",
        "List": "reads",
        "Resolve": "reads",
        "Stat": "reads",
        "Summarize": "reads",
        "Explain": "reads",
        "WhoAmI": "reads",
        "Check": "reads",
        "BatchCheck": "reads",
        "Ack": "an ack never moves backwards",
        "Cancel": "what has ended is answered as it is",
        "BatchCancel": "what has ended is answered as it is",
        "Kill": "what has ended is answered as it is",
        "Register": "the same registration again answers the same",
        "BatchRegister": "the same registration again answers the same",
        "Update": "the same values again change nothing; a named revision that is gone is ABORTED",
        "Release": "what is not held is left as it is",
        "Fail": "what is not held is left as it is",
        "Push": "what agrees is not written",
        "Delete": "NOT_FOUND says that it is gone",
        "Unregister": "NOT_FOUND says that it is gone",
        "BatchUnregister": "NOT_FOUND says that it is gone",
        "Unban": "NOT_FOUND says that it is gone",
        "Put": "the same again takes its own place",
        "Report": "the latest report holds",
        "Revoke": "what is revoked is answered as it is",
        "Mint": "each answer is a token of its own",
        "Exchange": "each answer is a token of its own",
        "Fetch": "a token that does may be answered again",
        "Sign": "each answer is a certificate of its own",
    }
)
"""Verbs of unary methods whose repetition harms nothing, and why (the contracts say so of each).

A method whose request carries a `request_id` is repeatable when it is set, whatever its verb; one
whose request holds such requests, when it is set in each. Any other method is called once.
"""

FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 1.0
PATIENCE_S: Final = 10.0
"""How long a call is made again and again: a peer that restarts is back by then. Whoever waits
longer does so knowingly, with the work stored."""


def repeatable(method: MethodDescriptor) -> Callable[[Any], bool]:
    """Returns what says of a request of this method whether it may be sent twice."""
    if method.client_streaming or method.server_streaming:
        return _never
    fields = method.input_type.fields_by_name
    if "request_id" in fields:
        return _has_request_id
    for field in fields.values():
        if field.message_type is not None and "request_id" in field.message_type.fields_by_name:
            return _Each(field.name)
    return _always if any(_has_verb(method.name, verb) for verb in REPEATABLE_VERBS) else _never


def pause_s(failure: GridlaneError, attempt: int, left_s: float) -> float | None:
    """Returns the seconds until the next attempt; None when there is no time for one.

    Full jitter on an exponential bound, after what the peer itself asked for (RetryInfo).

    Parameters:
        failure: what the last attempt ended with.
        attempt: its number, from 0.
        left_s: seconds in which the next one must begin.
    """
    bound = min(FIRST_PAUSE_S * 2.0**attempt, LONGEST_PAUSE_S)
    pause = asked_s(failure) + bound * random.random()  # noqa: S311 - no secret
    return pause if pause < left_s else None


def asked_s(failure: GridlaneError) -> float:
    """Returns the seconds after which the peer wants to be asked again; 0 when it does not say."""
    for detail in failure.details:
        if isinstance(detail, error_details_pb2.RetryInfo):
            return max(0.0, detail.retry_delay.ToTimedelta().total_seconds())
    return 0.0


def _has_verb(method: str, verb: str) -> bool:
    """Whether a method's name is the verb, or the verb and a noun: "ListJobs", not "Listen"."""
    return method.startswith(verb) and not method[len(verb) :][:1].islower()


def _always(_request: Message) -> bool:
    return True


def _never(_request: object) -> bool:
    return False


def _has_request_id(request: Any) -> bool:
    return bool(request.request_id)


class _Each:
    def __init__(self, field: str) -> None:
        self._field = field

    def __call__(self, request: Any) -> bool:
        return all(item.request_id for item in getattr(request, self._field))
