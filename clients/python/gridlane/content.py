"""Local files on their way into the store and out of it.

Responsible for reading and writing local files, their checksums, and that a file that was not
received whole never shows under its name. `nouns/storage.py` makes the calls.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from gridlane.checksums import Adler32, Digest, digest_for, format_checksum
from gridlane.errors import DataLoss, Internal
from gridlane.transfer.v1 import storage_service_pb2 as rpc
from gridlane.type.v1.checksum_pb2 import Checksum, ChecksumType

CHUNK_BYTES = 1 << 20


def content_of(source: str | os.PathLike[str] | bytes, expected: Checksum | None) -> Content:
    """What is to be sent, summed.

    Parameters:
        source: a path, or the bytes.
        expected: the checksum that the bytes must have; None: ADLER32 is computed.

    Raises:
        OSError: the file cannot be read.
        ValueError: the path does not name a file.
        DataLoss: the bytes do not have the expected checksum.
    """
    if not isinstance(source, bytes) and Path(source).is_dir():
        raise ValueError(f"{os.fspath(source)} is a folder: expected a file")
    content = Content(source, expected)
    if expected is None or digest_for(expected) is not None:
        content.sum(expected)
    return content


class Content:
    """Bytes that can be read more than once.

    Attributes:
        size_bytes: how many there are.
        checksum: what they have, or must have.
    """

    def __init__(self, source: str | os.PathLike[str] | bytes, checksum: Checksum | None) -> None:
        self._source = source
        self.size_bytes = len(source) if isinstance(source, bytes) else Path(source).stat().st_size
        self.checksum = checksum or Checksum()
        self._own_error: OSError | None = None

    def sum(self, expected: Checksum | None) -> None:
        """Compute the checksum, and compare it with the expected one."""
        digest: Digest = (digest_for(expected) if expected else None) or Adler32()
        size = 0
        with self._open() as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
        self.size_bytes = size
        kind = expected.type if expected else ChecksumType.CHECKSUM_TYPE_ADLER32
        self.checksum = Checksum(type=kind, value=digest.hexdigest())
        if expected is not None and self.checksum != expected:
            raise _mismatch(self._name(), expected, self.checksum)

    def requests(
        self, header: rpc.PutContentHeader, progress: Callable[[int, int], None] | None
    ) -> Iterator[rpc.PutContentRequest]:
        """The messages of an upload, from the beginning.

        An error of the local file ends them; gRPC then reports something else, and
        `raise_own_error` this.
        """
        yield rpc.PutContentRequest(header=header)
        sent = 0
        try:
            with self._open() as file:
                while chunk := file.read(CHUNK_BYTES):
                    yield rpc.PutContentRequest(chunk=chunk)
                    sent += len(chunk)
                    if progress is not None:
                        progress(sent, self.size_bytes)
        except OSError as error:
            self._own_error = error
            raise

    def raise_own_error(self) -> None:
        """Raise what went wrong with the local file while it was sent, if anything did."""
        if self._own_error is not None:
            raise self._own_error

    def _open(self) -> BinaryIO:
        if isinstance(self._source, bytes):
            return io.BytesIO(self._source)
        return Path(self._source).open("rb")

    def _name(self) -> str:
        return "the content" if isinstance(self._source, bytes) else os.fspath(self._source)


class Download:
    """A file being received: a temporary file beside the target, renamed when it is whole and
    right.

    Parameters:
        source: what is read, for messages.
        target: the local file, or a folder for it.
        expected: the checksum it must have; None: the one that the server has registered.
        progress: told the bytes received so far and those in all.
    """

    def __init__(
        self,
        source: str,
        target: Path,
        expected: Checksum | None,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._source = source
        self._target = target / source.rstrip("/").rpartition("/")[2] if target.is_dir() else target
        self._expected = expected
        self._progress = progress
        self._digest: Digest | None = None
        self._file: BinaryIO | None = None
        self._temporary: Path | None = None
        self._size_bytes = 0
        self._received_bytes = 0

    def open(self) -> None:
        """Make the temporary file.

        Raises:
            OSError: the target's folder is not there or not writable.
        """
        folder = self._target.parent
        try:
            descriptor, name = tempfile.mkstemp(
                dir=folder, prefix=f".{self._target.name[:100]}.", suffix=".part"
            )
        except OSError as error:  # which names the temporary file, that nobody knows
            raise OSError(error.errno, error.strerror, str(folder)) from error
        self._file, self._temporary = os.fdopen(descriptor, "wb"), Path(name)

    def take(self, part: rpc.GetContentResponse) -> None:
        """One part of the answer: the header of each stream, or bytes."""
        if part.WhichOneof("part") == "header":
            self._take_header(part.header)
        elif self._file is not None:
            self._file.write(part.chunk)
            if self._digest is not None:
                self._digest.update(part.chunk)
            self._received_bytes += len(part.chunk)
            if self._progress is not None:
                self._progress(self._received_bytes, self._size_bytes)

    def _take_header(self, header: rpc.GetContentHeader) -> None:
        self._size_bytes = header.size_bytes
        if self._expected is None and header.HasField("checksum"):
            self._expected = header.checksum
        if self._digest is None and self._expected is not None:
            if self._received_bytes:
                raise Internal(f"{self._source} changed while it was read")
            self._digest = digest_for(self._expected)

    def publish(self) -> Checksum:
        """Verify what came, and give it its name.

        Returns:
            The verified checksum; empty when there was none to verify.

        Raises:
            DataLoss: size or checksum are wrong.
        """
        if self._file is None or self._temporary is None:
            raise RuntimeError("open() comes first")
        if self._received_bytes != self._size_bytes:
            raise DataLoss(
                f"{self._source} has {self._size_bytes} bytes, {self._received_bytes} came",
                reason="CHECKSUM_MISMATCH",
            )
        verified = self._verify()
        umask = os.umask(0)
        os.umask(umask)
        os.fchmod(self._file.fileno(), 0o666 & ~umask)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._temporary.replace(self._target)
        return verified

    def _verify(self) -> Checksum:
        if self._digest is None or self._expected is None:
            return Checksum()
        actual = Checksum(type=self._expected.type, value=self._digest.hexdigest())
        if actual != self._expected:
            raise _mismatch(self._source, self._expected, actual)
        return actual

    def close(self) -> None:
        """Let go of the temporary file, and of what is left of it."""
        if self._file is not None:
            self._file.close()
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)


def _mismatch(name: str, expected: Checksum, actual: Checksum) -> DataLoss:
    texts = {"expected": format_checksum(expected), "actual": format_checksum(actual)}
    return DataLoss(
        f"{name} has the checksum {texts['actual']}, expected was {texts['expected']}",
        reason="CHECKSUM_MISMATCH",
        metadata=texts,
    )
