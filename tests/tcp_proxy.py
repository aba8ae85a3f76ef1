"""A proxy before a TCP server: passes bytes on, late, or not to the end, as a test says.

Responsible for connections; what is in them it does not know. It runs in a thread of its own.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Awaitable, Callable

_READ_BYTES = 65536
_NO_LINGER = struct.pack("ii", 1, 0)
Trouble = Callable[["_Pipe"], Awaitable[None]]


class TcpProxy:
    """The proxy, which serves until `close`.

    Parameters:
        upstream: the server, `host:port`.
    """

    def __init__(self, upstream: str) -> None:
        host, _, port = upstream.rpartition(":")
        self._upstream = (host, int(port))
        self.delay_s = 0.0
        """How long each piece of data is kept back, both ways."""
        self._trouble: tuple[Trouble, bool, int] | None = None
        self.troubles = 0
        """How many connections met what `at` said."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tcp-proxy")
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    @property
    def address(self) -> str:
        """Where it listens, `host:port`."""
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    def at(self, trouble: Trouble, *, answers: bool, piece: int) -> None:
        """Make one connection meet trouble.

        Parameters:
            answers: after a piece that the server sends, or before it is passed on; else after one
                that the client sends.
            piece: which one from now on; the first is 1.
        """
        self._trouble = (trouble, answers, piece)

    def close(self) -> None:
        """End; connections are cut."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def _end(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection(*self._upstream)
        except OSError:
            writer.transport.abort()
            return
        there = _Pipe(reader, upstream_writer, writer)
        back = _Pipe(upstream_reader, writer, upstream_writer)
        try:
            await asyncio.gather(self._pass(there, answers=False), self._pass(back, answers=True))
        except OSError:
            pass  # one side is gone
        finally:
            writer.transport.abort()
            upstream_writer.transport.abort()

    async def _pass(self, pipe: "_Pipe", *, answers: bool) -> None:
        while data := await pipe.reader.read(_READ_BYTES):
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            trouble = self._due(answers)
            if trouble is None or not answers:
                pipe.writer.write(data)
                await pipe.writer.drain()
            if trouble is not None:
                await trouble(pipe)
        if not pipe.writer.is_closing():
            pipe.writer.write_eof()

    def _due(self, answers: bool) -> Trouble | None:
        if self._trouble is None or self._trouble[1] is not answers:
            return None
        trouble, _, left = self._trouble
        if left > 1:
            self._trouble = (trouble, answers, left - 1)
            return None
        self._trouble = None
        self.troubles += 1
        return trouble


class _Pipe:
    """One direction of a connection.

    Parameters:
        back: writes to where the pipe reads from.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        back: asyncio.StreamWriter,
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.back = back


async def reset(pipe: _Pipe) -> None:
    """Both sides are told, by a reset, that the connection is no more."""
    for writer in (pipe.writer, pipe.back):
        connection: socket.socket = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        writer.transport.abort()


async def half_close(pipe: _Pipe) -> None:
    """The receiver is told that nothing more comes; what it says still arrives."""
    pipe.writer.write_eof()
    while await pipe.reader.read(_READ_BYTES):
        pass
