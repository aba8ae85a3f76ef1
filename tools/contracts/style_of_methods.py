"""Rules about methods and the messages that they take and give: listings, filters, batches.

Responsible for the form of methods; `style` names the rules, knows their exceptions and tells.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from contracts.model import Contract, Field, Message, Method, Rules
from contracts.walk import Told, has_request_id, line, request_fields

PAGE_SIZE_WORDS: Final = "At most this many; 0 means 50, more than 1000 is 1000."
BATCH_MOST: Final = 1000
PAGE_TOKEN_MOST: Final = 1024
FILTER_MOST: Final = 512

_UUID7: Final = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"
_ANY: Final[Rules] = {"of": "its own"}
SAME_EVERYWHERE: Final[Mapping[str, tuple[str, Rules]]] = {
    "request_id": ("string", {"string": {"pattern": _UUID7}, "ignore": "IGNORE_IF_ZERO_VALUE"}),
    "update_mask": ("google.protobuf.FieldMask", _ANY),
    "revision": ("int64", {"int64": {"gte": 0}}),
    "validate_only": ("bool", {}),
}
"""Fields of requests that mean the same in every one, with their type and rules."""

_COMBINATION: Final = re.compile(r"Empty, or [^`]*`\w[^`]* (?:=|<|<=|>|>=) [^`]+`")
_STATUS: Final = "google.rpc.Status"


def permission(contract: Contract) -> Told:
    """Every rpc has a rule with a permission of its own package, and its resource is a field."""
    for method in contract.methods:
        package = method.name.split(".")[1]
        if not re.fullmatch(rf"{package}\.[a-z_]+\.[a-z_]+", method.permission):
            yield method, f"its rule names no permission of the form {package}.<noun>.<verb>"
        elif method.resource and not _is_path(contract, method):
            yield method, f"its rule names the resource {method.resource}, which is no field"


def _is_path(contract: Contract, method: Method) -> bool:
    kind = method.takes
    for part in method.resource.split("."):
        message = contract.messages.get(kind)
        field = message.field(part) if message else None
        if field is None:
            return False
        kind = field.type
    return True


def verbs(contract: Contract) -> Told:
    """Creates, updates and deletes have the same forms everywhere."""
    for method in contract.methods:
        request, answer = contract.messages.get(method.takes), contract.messages.get(method.gives)
        if request is None:
            continue
        if method.short.startswith(("Create", "Submit")) and not has_request_id(contract, request):
            yield method, "creates, and takes no request_id"
        if method.short.startswith("Update"):
            for name in ("update_mask", "revision"):
                if request.field(name) is None:
                    yield method, f"updates, and takes no {name}"
        own = answer is not None and answer.short == f"{method.short}Response"
        if method.short.startswith("Delete") and not own:
            yield method, "deletes, and its answer is not a message of its own"
    for field in request_fields(contract):
        same = SAME_EVERYWHERE.get(field.short)
        if same and not (field.type == same[0] and same[1] in (field.rules, _ANY)):
            yield field, f"is not of the type and rules that every {field.short} has"


def listing(contract: Contract) -> Told:
    """Listings page, all by the same rules."""
    for method in contract.methods:
        request, answer = contract.messages.get(method.takes), contract.messages.get(method.gives)
        is_listing = method.short.startswith("List") or bool(request and request.field("page_size"))
        if not is_listing or request is None or answer is None:
            continue
        for name, problem in _page_problems(request):
            yield method, f"{name} {problem}"
        if method.gives_stream:
            yield method, "lists, and streams: a listing has pages"
        if not _is_string(answer.field("next_page_token")):
            yield method, "its answer has no string next_page_token"
        if not any(field.repeated and field.number == 1 for field in answer.fields):
            yield method, "its answer's first field is not the list"


def _page_problems(request: Message) -> Iterator[tuple[str, str]]:
    size, token = request.field("page_size"), request.field("page_token")
    if size is None or size.type != "int32" or size.rules != {"int32": {"gte": 0}}:
        yield "page_size", "is not an int32 of 0 or more"
    elif line(size) != PAGE_SIZE_WORDS:
        yield "page_size", f"does not say: {PAGE_SIZE_WORDS}"
    if token is None or token.rules != {"string": {"max_len": PAGE_TOKEN_MOST}}:
        yield "page_token", f"is not a string of at most {PAGE_TOKEN_MOST} characters"
    elif not line(token).startswith("`next_page_token` of the page before"):
        yield "page_token", "does not say: `next_page_token` of the page before"


def _is_string(field: Field | None) -> bool:
    return field is not None and field.type == "string" and not field.repeated


def filters(contract: Contract) -> Told:
    """A filter says which combinations there are."""
    for field in request_fields(contract):
        if field.short != "filter":
            continue
        if field.rules != {"string": {"max_len": FILTER_MOST}}:
            yield field, f"is not a string of at most {FILTER_MOST} characters"
        if not _COMBINATION.match(line(field)):
            yield field, 'does not begin with "Empty, or `field = value`", or one of several'


def batch(contract: Contract) -> Told:
    """A batch takes 1 to 1000 and answers each with an item or a status, in the order given."""
    for method in contract.methods:
        if not method.short.startswith("Batch"):
            continue
        if method.admission != "BATCH":
            yield method, "is not admitted as ADMISSION_BATCH"
        request, answer = contract.messages.get(method.takes), contract.messages.get(method.gives)
        if request is None or not any(_is_batch_of_items(field) for field in request.fields):
            yield method, f"its request has no list of 1 to {BATCH_MOST} items"
        results = answer.field("results") if answer else None
        result = contract.messages.get(results.type) if results and results.repeated else None
        if result is None or not _is_item_or_status(result):
            yield method, "its answer has no list `results` of oneof item | status"


def _is_batch_of_items(field: Field) -> bool:
    rules = field.rules.get("repeated", {})
    return (
        field.repeated
        and rules.get("min_items") == 1
        and rules.get("max_items", BATCH_MOST + 1) <= BATCH_MOST
    )


def _is_item_or_status(result: Message) -> bool:
    status = result.field("status")
    return (
        len(result.fields) == 2
        and all(field.oneof == "result" for field in result.fields)
        and status is not None
        and status.type == _STATUS
    )
