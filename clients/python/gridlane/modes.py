"""One source for the synchronous and the asyncio facade.

Every verb of the facade is written once, as `async def` in a class that derives from `Noun`, and
decorated with `verb` (one answer) or `stream` (many). Which facade it serves is the class's type
parameter:

* `Jobs[Async]`: calling the verb gives a coroutine or an asynchronous iterator, as written.
* `Jobs[Sync]`: calling it gives the answer or a plain iterator. Beneath a synchronous transport
  nothing ever suspends (each "await" is a blocking call that has returned), so the coroutine is run
  by a single step.

Responsible for that translation and its types; knows nothing of gRPC. `transport.py` has the two
kinds of input and output, `calls.py` what the verbs are made of.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload


class Sync:
    """Marks the facade whose verbs block until they have an answer."""


class Async:
    """Marks the facade whose verbs are awaited."""


Mode = TypeVar("Mode", Sync, Async)
P = ParamSpec("P")
R = TypeVar("R")


class Noun(Generic[Mode]):
    """What verbs are bound to: one kind of resource of one client."""

    _blocking: bool


class Verb(Generic[P, R]):
    """A method that gives one answer; made by `verb`."""

    def __init__(self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]) -> None:
        self._function = function
        self._name = function.__name__
        functools.update_wrapper(self, function)  # type: ignore[arg-type]  # for help() alone

    @overload
    def __get__(self, noun: None, owner: type) -> Verb[P, R]: ...
    @overload
    def __get__(self, noun: Noun[Sync], owner: type) -> Callable[P, R]: ...
    @overload
    def __get__(self, noun: Noun[Async], owner: type) -> Callable[P, Coroutine[Any, Any, R]]: ...
    def __get__(self, noun: Noun[Any] | None, owner: type) -> Any:
        if noun is None:
            return self
        function = self._function

        @functools.wraps(function)
        def bound(*args: P.args, **kwargs: P.kwargs) -> Any:
            coroutine = function(noun, *args, **kwargs)
            return finish(coroutine) if noun._blocking else coroutine

        noun.__dict__[self._name] = bound  # the next look-up finds it at once
        return bound


class Stream(Generic[P, R]):
    """A method that gives many answers, one after the other; made by `stream`."""

    def __init__(self, function: Callable[Concatenate[Any, P], AsyncGenerator[R]]) -> None:
        self._function = function
        self._name = function.__name__
        functools.update_wrapper(self, function)  # type: ignore[arg-type]  # for help() alone

    @overload
    def __get__(self, noun: None, owner: type) -> Stream[P, R]: ...
    @overload
    def __get__(self, noun: Noun[Sync], owner: type) -> Callable[P, Iterator[R]]: ...
    @overload
    def __get__(self, noun: Noun[Async], owner: type) -> Callable[P, AsyncIterator[R]]: ...
    def __get__(self, noun: Noun[Any] | None, owner: type) -> Any:
        if noun is None:
            return self
        function = self._function

        @functools.wraps(function)
        def bound(*args: P.args, **kwargs: P.kwargs) -> Any:
            items = function(noun, *args, **kwargs)
            return iterate(items) if noun._blocking else items

        noun.__dict__[self._name] = bound
        return bound


def verb(function: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]) -> Verb[P, R]:
    """Makes an `async def` a verb of both facades."""
    return Verb(function)


def stream(function: Callable[Concatenate[Any, P], AsyncGenerator[R]]) -> Stream[P, R]:
    """Makes an asynchronous generator a verb of both facades."""
    return Stream(function)


def finish(coroutine: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine that never suspends, and give what it returns.

    Raises:
        RuntimeError: it did suspend: it awaited something of asyncio's beneath a synchronous
            transport.
    """
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: R = stop.value
        return result
    coroutine.close()
    raise RuntimeError("a synchronous verb awaited something: its transport must not suspend")


def iterate(items: AsyncGenerator[R]) -> Iterator[R]:
    """Give the items of an asynchronous generator that never suspends, and close it in the end."""
    try:
        while True:
            try:
                item = finish(items.__anext__())
            except StopAsyncIteration:
                return
            yield item
    finally:
        finish(items.aclose())
