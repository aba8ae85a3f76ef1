"""What a workload backend is to the rest of the service.

Responsible for the vocabulary between the steps of a job and whatever runs its payload: an attempt,
what is known of it, how it ended. A backend knows nothing of states, events or transfers.

Every verb may be called again after a crash: the intent (attempt number, directory) is committed
before the first call, and a backend finds out for itself what is there already. At most one payload
of an attempt ever runs.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from pathlib import Path


class DataOwner(Enum):
    """Who brings inputs and moves outputs."""

    GRIDLANE = auto()
    """Workload, by transfer jobs between the storage and the attempt's working directory."""
    BACKEND = auto()
    """The backend itself, from the description."""


class Capability(StrEnum):
    """What a field of a job's description may need and not every backend has.

    The contract's `WorkloadCapability`, in the words of the error's metadata. Which field needs
    which: `gridlane_workload.capabilities`.
    """

    ACCOUNTING = "ACCOUNTING"
    BACKEND_PARAMETERS = "BACKEND_PARAMETERS"
    CONCURRENCY_LIMITS = "CONCURRENCY_LIMITS"
    CPU_TIME = "CPU_TIME"
    DESTINATION = "DESTINATION"
    DIRECTORIES = "DIRECTORIES"
    IMAGES = "IMAGES"
    MIN_MEMORY = "MIN_MEMORY"
    OUTPUT_PATTERNS = "OUTPUT_PATTERNS"
    OUTPUT_SANDBOX = "OUTPUT_SANDBOX"
    REMOTE_INPUTS = "REMOTE_INPUTS"
    RETRIES = "RETRIES"
    STORAGE_CHOICE = "STORAGE_CHOICE"
    WHOLE_NODE = "WHOLE_NODE"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do; what it cannot is refused at submission.

    Parameters:
        data_owner: who moves the data.
        max_cpu_cores: the most processors that one payload can ask for.
        logs_while_running: whether output can be read before the payload has ended.
        offers: what it has beyond what all have.
    """

    data_owner: DataOwner
    max_cpu_cores: int
    logs_while_running: bool
    offers: frozenset[Capability] = frozenset()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of one job.

    Parameters:
        job: the job's uuid.
        number: from 1.
    """

    job: str
    number: int


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a payload.

    Parameters:
        arguments: the program and its arguments.
        environment: variables of its own.
        workdir: below the working directory; empty for that itself.
        stdin, stdout, stderr: files below the working directory; empty for none, and for the log.
        ignore_error: whether the payload goes on, and can end well, though it fails.
        run_always: whether it runs although an earlier one failed.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str]
    workdir: str = ""
    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    ignore_error: bool = False
    run_always: bool = False


@dataclass(frozen=True, slots=True)
class Work:
    """What an attempt's payload is to do.

    Parameters:
        commands: run one after the other until one fails.
        walltime_s: seconds from the start.
        memory_bytes, disk_bytes: limits as the contract defines them; 0 for none.
        token: the job's own token. A secret.
        traceparent: the span under which the payload's is to stand.
        contents: files that are put into the working directory, by path.
        executables: paths in the working directory that are made executable.
    """

    commands: Sequence[Command]
    walltime_s: float
    memory_bytes: int
    disk_bytes: int
    token: str = field(repr=False)
    traceparent: str
    contents: Mapping[str, bytes] = field(default_factory=dict)
    executables: Sequence[str] = ()


class Standing(Enum):
    """What is known of an attempt at its backend."""

    ABSENT = auto()
    """It was never started."""
    STARTING = auto()
    """It is being started; its payload may or may not run yet."""
    RUNNING = auto()
    ENDED = auto()
    LOST = auto()
    """It was started, is not alive, and left no word of its end."""


class EndKind(Enum):
    """How a payload ended."""

    EXITED = "exited"
    SIGNALED = "signaled"
    NOT_FOUND = "not_found"
    WALLTIME = "walltime"
    KILLED = "killed"
    OUTPUT_LIMIT = "output_limit"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class End:
    """How a payload ended, and what it used.

    Parameters:
        exit_code: of the first command that failed, else 0; None unless EXITED.
        signal: that ended it; None unless SIGNALED.
        executor: index of the command that decided.
        message: in the backend's words.
        end_us: when, microseconds since 1970-01-01 UTC.
        wall_us, cpu_us: microseconds.
        peak_memory_bytes: largest resident memory of one process.
        disk_bytes: in the working directory at the end.
    """

    kind: EndKind
    exit_code: int | None
    signal: int | None
    executor: int
    message: str
    end_us: int
    wall_us: int
    cpu_us: int
    peak_memory_bytes: int
    disk_bytes: int


@dataclass(frozen=True, slots=True)
class Observation:
    """An attempt as its backend sees it now.

    Parameters:
        start_us: when the payload started; None before.
        end: set when ENDED.
    """

    standing: Standing
    start_us: int | None = None
    end: End | None = None


@dataclass(frozen=True, slots=True)
class OutputFile:
    """An output that the payload was to leave behind.

    Parameters:
        size_bytes: None when there is no regular file of that path.
    """

    path: str
    size_bytes: int | None


class BackendUnavailableError(Exception):
    """The backend cannot answer now; ask again later."""


class BackendRefusedError(Exception):
    """The backend will not take the work; the message is for the job's owner."""


class Backend(ABC):
    """A backend; `name` is the one in the configuration and in the API."""

    name: str
    capabilities: Capabilities

    @abstractmethod
    async def open(self, changed: Callable[[str], None]) -> None:
        """Begin; called once.

        Parameters:
            changed: to be called, in the event loop, with a job's uuid whenever its attempt may
                have changed.
        """

    @abstractmethod
    async def close(self) -> None:
        """End; what runs goes on running."""

    @abstractmethod
    async def check(self) -> None:
        """See whether it could start a payload now.

        Raises:
            BackendUnavailableError: why it could not.
        """

    @property
    @abstractmethod
    def places(self) -> int:
        """How many attempts it takes at once."""

    @abstractmethod
    async def prepare(self, attempt: Attempt, input_paths: Sequence[str]) -> None:
        """Make the working directory, and what is needed of it for the inputs to be brought."""

    @abstractmethod
    def url(self, attempt: Attempt, path: str) -> str:
        """The URL of a file in the working directory, as Transfer knows it."""

    @abstractmethod
    async def start(self, attempt: Attempt, work: Work) -> Observation:
        """Start the payload, or adopt it when it was started before.

        Raises:
            BackendUnavailableError, BackendRefusedError
        """

    @abstractmethod
    async def observe(self, attempt: Attempt) -> Observation:
        """Look at an attempt, and from now on tell when it ends.

        Raises:
            BackendUnavailableError
        """

    @abstractmethod
    async def kill(self, attempt: Attempt) -> Observation:
        """Ask for the end of the payload; one that was never started never will be (ABSENT).

        Raises:
            BackendUnavailableError
        """

    @abstractmethod
    async def outputs(self, attempt: Attempt, paths: Sequence[str]) -> list[OutputFile]:
        """Look what the payload left behind."""

    @abstractmethod
    def log_file(self, attempt: Attempt, error_stream: bool) -> Path:
        """The file that holds, or will hold, the payload's standard output or error."""

    @abstractmethod
    async def directories(self) -> list[str]:
        """The jobs (uuids) of which something is kept."""

    @abstractmethod
    async def remove(self, job: str) -> None:
        """Delete all that is kept of a job that has ended."""
