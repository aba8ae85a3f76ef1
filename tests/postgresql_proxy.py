"""A proxy before a PostgreSQL server: it passes the protocol on, and breaks it where a test says.

Reads the frames that the client sends (PostgreSQL manual, 55.7), so that it knows a COMMIT. What is
to happen at the next ones stands in `Proxy.at_commit`, at the next BEGIN in `Proxy.at_begin`;
elsewhere bytes pass as they are.
"""

import asyncio
import shutil
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import make_url

_SOCKET = ".s.PGSQL.5432"


class Link:
    """One client's connection to the server."""

    def __init__(
        self,
        client: asyncio.StreamWriter,
        server: asyncio.StreamWriter,
        from_server: asyncio.StreamReader,
    ) -> None:
        self._client = client
        self._server = server
        self._from_server = from_server
        self._muted = False
        self._held: bytes | None = None
        self.stranded = False
        self._answered = asyncio.Event()

    def send(self, frame: bytes) -> None:
        """Pass a frame on to the server."""
        self._server.write(frame)

    def mute(self) -> None:
        """From now on the client hears nothing, and its connection stays open."""
        self._muted = True

    def strand(self) -> None:
        """From now on neither side hears of the other, not even that it closed."""
        self._muted = self.stranded = True

    def hold(self) -> None:
        """From now on keep back what the server says."""
        self._held = b""

    def release(self) -> None:
        """Let the client hear what was kept back."""
        held, self._held = self._held or b"", None
        self._client.write(held)

    async def answered(self) -> None:
        """Wait until the server has said something that a muted client does not hear."""
        await asyncio.wait_for(self._answered.wait(), 10)

    def cut(self) -> None:
        """Close both sides."""
        self._client.transport.abort()
        self._server.transport.abort()

    async def pass_answers(self) -> None:
        """Pass on what the server says until it closes."""
        while data := await self._from_server.read(65536):
            if self._muted:
                self._answered.set()
            elif self._held is not None:
                self._held += data
            else:
                self._client.write(data)
        if not self._muted:
            self._client.close()


AtCommit = Callable[[Link, bytes], Awaitable[None]]


async def cut_before(link: Link, _commit: bytes) -> None:
    """The COMMIT does not reach the server."""
    link.cut()


async def cut_after(link: Link, commit: bytes) -> None:
    """The COMMIT is done, and its answer does not reach the client."""
    link.mute()
    link.send(commit)
    await link.answered()
    link.cut()


async def swallow(link: Link, _commit: bytes) -> None:
    """The network ate the connection: neither side learns of it, the server waits for more."""
    link.strand()


async def swallow_answer(link: Link, commit: bytes) -> None:
    """The COMMIT is done, and the client waits for an answer for ever."""
    link.mute()
    link.send(commit)
    await link.answered()


class Proxy:
    """The proxy; made by `proxied`."""

    def __init__(self, upstream: Path) -> None:
        self._upstream = upstream
        self._links: set[Link] = set()
        self._stranded: list[Link] = []
        self.at_commit: deque[AtCommit] = deque()
        self.at_begin: deque[AtCommit] = deque()
        self.commits = 0
        self.connections = 0
        self.refuses = False

    def cut_all(self) -> None:
        """Cut every connection that is open."""
        for link in [*self._links, *self._stranded]:
            link.cut()

    async def serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        """Pass one client's connection on until either side closes it."""
        self.connections += 1
        if self.refuses:
            client.transport.abort()
            return
        try:
            from_server, server = await asyncio.open_unix_connection(str(self._upstream))
        except OSError:
            client.transport.abort()
            return
        link = Link(client, server, from_server)
        self._links.add(link)
        answers = asyncio.create_task(link.pass_answers())
        try:
            await self._pass_frames(reader, link)
        except (asyncio.IncompleteReadError, OSError):
            pass  # the client is gone
        finally:
            self._links.discard(link)
            answers.cancel()
            await asyncio.wait([answers])
            if link.stranded:
                self._stranded.append(link)
            else:
                link.cut()

    async def _pass_frames(self, reader: asyncio.StreamReader, link: Link) -> None:
        started = False
        while True:
            # The first message of a connection has no type.
            kind = await reader.readexactly(1) if started else b""
            length = await reader.readexactly(4)
            body = await reader.readexactly(int.from_bytes(length) - 4)
            started = True
            frame = kind + length + body
            is_commit = kind == b"Q" and body.startswith(b"COMMIT")
            self.commits += is_commit
            if is_commit and self.at_commit:
                await self.at_commit.popleft()(link, frame)
            elif kind == b"Q" and body.startswith(b"BEGIN") and self.at_begin:
                await self.at_begin.popleft()(link, frame)
            else:
                link.send(frame)


@asynccontextmanager
async def proxied(url: str, upstream: Path) -> AsyncIterator[tuple[str, Proxy]]:
    """A proxy before the server of a URL.

    Parameters:
        url: a database on the server.
        upstream: the server's socket.

    Returns:
        The URL of the same database through the proxy, and the proxy.
    """
    # The path of a socket is at most 107 bytes long.
    folder = Path(tempfile.mkdtemp(prefix="gridlane-proxy-"))
    proxy = Proxy(upstream)
    server = await asyncio.start_unix_server(proxy.serve, str(folder / _SOCKET))
    through = make_url(url).update_query_dict({"host": str(folder)})
    try:
        yield through.render_as_string(hide_password=False), proxy
    finally:
        server.close()
        proxy.cut_all()
        shutil.rmtree(folder, ignore_errors=True)
