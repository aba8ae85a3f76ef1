"""Ways through a contract that the style rules share.

Responsible for visiting: everything with a name, and everything that a caller fills.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from contracts.model import Contract, Field, Message, Symbol

Told: TypeAlias = Iterator[tuple[Symbol, str]]
"""What a rule finds: the place and what is wrong there."""


def line(symbol: Symbol) -> str:
    """A comment as one line."""
    return " ".join(symbol.comment.split())


def all_symbols(contract: Contract) -> Iterator[Symbol]:
    """Everything with a name."""
    for file in contract.files:
        yield from file.services
        for service in file.services:
            yield from service.methods
        yield from file.messages
        for message in file.messages:
            yield from message.fields
        yield from file.enums
        for enum in file.enums:
            yield from enum.values


def requests(contract: Contract) -> Iterator[Message]:
    """Every message of ours that a caller fills."""
    return reached(contract, [method.takes for method in contract.methods])


def reached(contract: Contract, names: Iterable[str]) -> Iterator[Message]:
    """These messages and those that their fields lead to, but for what only the server sets."""
    waiting = list(names)
    seen: set[str] = set()
    while waiting:
        message = contract.messages.get(waiting.pop())
        if message is None or message.name in seen:
            continue
        seen.add(message.name)
        yield message
        waiting += [field.type for field in message.fields if not field.output_only]


def request_fields(contract: Contract) -> Iterator[Field]:
    """Every field that a caller may fill."""
    for message in requests(contract):
        yield from (field for field in message.fields if not field.output_only)


def has_request_id(contract: Contract, request: Message) -> bool:
    """Whether the request has one, or the items or the header in it have."""
    inner = [contract.messages.get(field.type) for field in request.fields]
    return any(one and one.field("request_id") for one in (request, *inner))
