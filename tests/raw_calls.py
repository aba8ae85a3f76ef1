"""Methods by their paths, bytes in and bytes out: what no stub sends, and what it never shows."""

from typing import TypeAlias

from grpc import aio

Readable: TypeAlias = "aio.UnaryStreamCall[bytes, bytes] | aio.StreamStreamCall[bytes, bytes]"


def unary(channel: aio.Channel, path: str) -> "aio.UnaryUnaryMultiCallable[bytes, bytes]":
    """One message each way."""
    return channel.unary_unary(path)


def unary_stream(channel: aio.Channel, path: str) -> "aio.UnaryStreamMultiCallable[bytes, bytes]":
    """One message, and a stream of answers."""
    return channel.unary_stream(path)


def stream_stream(channel: aio.Channel, path: str) -> "aio.StreamStreamMultiCallable[bytes, bytes]":
    """A stream each way."""
    return channel.stream_stream(path)


async def read(
    stream: "aio.UnaryStreamCall[bytes, bytes] | aio.StreamStreamCall[bytes, bytes]",
) -> bytes:
    """A stream's next message; fails at its end."""
    message = await stream.read()
    assert isinstance(message, bytes), message
    return message
