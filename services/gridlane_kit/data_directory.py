"""The data directory of an embedded server: its layout, its file modes, and who may use it.

Responsible for making the folders, for the lock that keeps a second process out, and for writing
secrets. What lies inside a folder belongs to the service that owns it.

    db/<service>.sqlite   the services' databases
    storage/              bytes of the storage element `local`
    sandboxes/            input and output sandboxes
    jobs/                 working directories of running jobs
    keys/                 signing keys
    token                 the local user's token
    server.json           where the running server serves; absent while none does
    lock                  held by the server's process, names its pid
"""

import fcntl
import os
import tempfile
from pathlib import Path

# The root and jobs/ let others pass, not look: payloads may run as another user below jobs/.
_FOLDER_MODES = {"db": 0o700, "storage": 0o700, "sandboxes": 0o700, "jobs": 0o711, "keys": 0o700}
_ROOT_MODE = 0o711


class LockedError(Exception):
    """Another process holds a lock file; `pid` is what it wrote there."""

    def __init__(self, path: Path, pid: str) -> None:
        super().__init__(f"{path} is held by the process with pid {pid}")
        self.pid = pid


class DataDirectoryInUseError(Exception):
    """Another process holds the data directory."""

    def __init__(self, root: Path, pid: str) -> None:
        super().__init__(
            f"the data directory {root} is in use by the process with pid {pid}: stop that one, or"
            " choose another directory with --data-dir or GRIDLANE_DATA_DIR"
        )
        self.root = root
        self.pid = pid


class DataDirectory:
    """A data directory that this process holds; made by `open`.

    The lock is released by `close` or by the end of the process, however it ends. It belongs to the
    open file, which children started by exec do not inherit; never fork without exec.
    """

    def __init__(self, root: Path, lock: int) -> None:
        self.root = root
        self._lock = lock

    @classmethod
    def open(cls, root: Path) -> "DataDirectory":
        """Take the directory, making what is missing of it.

        Raises:
            DataDirectoryInUseError: another process holds it.
            OSError: it cannot be made or written.
        """
        root = root.absolute()
        root.mkdir(mode=_ROOT_MODE, parents=True, exist_ok=True)
        try:
            lock = take_lock(root / "lock")
        except LockedError as error:
            raise DataDirectoryInUseError(root, error.pid) from None
        for name, mode in _FOLDER_MODES.items():
            folder = root / name
            folder.mkdir(mode=mode, exist_ok=True)
            folder.chmod(mode)
        return cls(root, lock)

    @property
    def storage(self) -> Path:
        """Where the bytes of the storage element `local` lie."""
        return self.root / "storage"

    @property
    def sandboxes(self) -> Path:
        """Where sandboxes lie."""
        return self.root / "sandboxes"

    @property
    def jobs(self) -> Path:
        """Where running jobs work."""
        return self.root / "jobs"

    @property
    def keys(self) -> Path:
        """Where signing keys lie."""
        return self.root / "keys"

    @property
    def token_file(self) -> Path:
        """The file with the local user's token."""
        return self.root / "token"

    @property
    def server_file(self) -> Path:
        """Where the running server says its address, for clients on this machine."""
        return self.root / "server.json"

    def database_file(self, service: str) -> Path:
        """The file of a service's database."""
        return self.root / "db" / f"{service}.sqlite"

    def close(self) -> None:
        """Let another process take the directory."""
        os.close(self._lock)


def write_secret(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a file that only its owner may read, whole or not at all, durably.

    Parameters:
        path: the file, replaced when it is there; its folder exists.
        content: all of it.
        mode: for a file that is no secret, and is to be written the same way.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def take_lock(path: Path) -> int:
    """Take a lock file, made when it is missing; held until its descriptor is closed, or the
    process ends.

    Raises:
        LockedError: another process holds it.
        OSError: it cannot be made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 20).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise LockedError(path, holder or "unknown") from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
