"""Load on a server that speaks HTTP/1.1 with JSON: the counterpart of gRPC's `Method`.

Responsible for connections that stay open, one a caller, and for as much of HTTP as uvicorn's
answers need: a status, a length, a body.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from benchmarks.load import CallFailedError, Load
from benchmarks.processes import Clock

_TIMEOUT_S: Final = 60.0
_SHOWN: Final = 300


class Connection:
    """An open connection; made by `connect`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, port: int) -> "Connection":
        """Connects to a server on this machine.

        Raises:
            OSError: nobody listens there.
        """
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def call(
        self, verb: str, path: str, headers: Mapping[str, str], body: bytes = b""
    ) -> tuple[int, bytes]:
        """Makes a call; returns the status and the body.

        Raises:
            OSError, EOFError: the connection broke.
            TimeoutError: there was no answer within a minute.
        """
        fields = {"host": "127.0.0.1", "content-length": str(len(body)), **headers}
        lines = [f"{verb} {path} HTTP/1.1", *(f"{name}: {fields[name]}" for name in fields)]
        self._writer.write("\r\n".join((*lines, "", "")).encode() + body)
        async with asyncio.timeout(_TIMEOUT_S):
            return await self._answer()

    async def close(self) -> None:
        """Closes the connection."""
        self._writer.close()
        await self._writer.wait_closed()

    async def _answer(self) -> tuple[int, bytes]:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status_line, *lines = head.strip().split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines)
        body = await self._reader.readexactly(int(fields.get("content-length", "0")))
        return int(status_line.split()[1]), body


class HttpMethod(Load):
    """An operation of an HTTP server that is called with JSON.

    Parameters:
        body: makes the bytes of the next request; called once a call.
        token: bearer token.
        server, database, callers: as in `Load`.
    """

    def __init__(
        self,
        server: Clock,
        port: int,
        path: str,
        body: Callable[[], bytes],
        *,
        database: Clock | None,
        callers: int,
        token: str,
    ) -> None:
        super().__init__(server, database, callers)
        self._port = port
        self._path = path
        self._body = body
        self._headers = {
            "authorization": f"Bearer {token}",
            "content-type": "application/json",
        }
        self._connections: dict[int, Connection] = {}

    async def call(self, caller: int = 0) -> bytes:
        try:
            if caller not in self._connections:
                self._connections[caller] = await Connection.connect(self._port)
            connection = self._connections[caller]
            status, answer = await connection.call("POST", self._path, self._headers, self._body())
        except (OSError, EOFError) as broken:
            raise CallFailedError(f"{self._path}: {broken!r}") from broken
        if status >= 300:
            raise CallFailedError(f"{self._path}: {status}: {answer[:_SHOWN].decode()}")
        return answer

    async def aclose(self) -> None:
        """Closes the connections."""
        for connection in self._connections.values():
            await connection.close()
