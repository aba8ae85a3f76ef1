"""The walk: every served method, by a caller of every role, about a thing of every relation, and
what the reviewed table says to it.

Responsible for making each call and for holding code, reason and what is in the answer against
`permission_cells.txt`. What is asked is `requests`', who asks `world`'s.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final

import grpc
from integration.contract_promises.walk.requests import LISTED, About, requests_for
from integration.contract_promises.walk.wire import Answer, reason_of
from integration.contract_promises.walk.world import World

from gridlane_kit.validation import validate
from permission_cells import RELATIONS, Block, Cell, blocks

AT_ONCE: Final = 8
OK: Final = ("OK", "OK")
DENIED: Final = ("PERMISSION_DENIED", "PERMISSION_DENIED")
VETOED: Final = ("PERMISSION_DENIED", "CALLER_VETOED")
HIDDEN: Final = ("NOT_FOUND", "NOT_FOUND")
LATER: Final = ("UNIMPLEMENTED", "NOT_IMPLEMENTED")
NO_VO: Final = DENIED
UNNAMED: Final[Mapping[str, tuple[str, str]]] = {
    "VoService/CreateVo": OK,
    "IssuerService/CreateIssuer": OK,
    "ChannelAdminService/CreateChannel": OK,
    "StorageAdminService/CreateStorageElement": OK,
    "AuthorizationService/CheckPermission": OK,
    "AuthorizationService/BatchCheckPermissions": OK,
    "RoleService/CreateRoleBinding": NO_VO,
    "GroupService/CreateGroup": NO_VO,
    "TransferService/SubmitTransferJob": NO_VO,
    "TransferService/BatchSubmitTransferJobs": NO_VO,
    "TransferService/SubmitTransferJobStream": NO_VO,
    "TransferService/SubmitStagingJob": NO_VO,
    "TransferService/SubmitDeletionJob": NO_VO,
    "JobService/SubmitJob": NO_VO,
    "JobService/BatchSubmitJobs": NO_VO,
    "TaskService/SubmitTask": NO_VO,
    "StorageService/PutContent": OK,
    "ReplicaService/RegisterReplica": OK,
    "ReplicaService/BatchRegisterReplicas": OK,
}
"""What those get who reach everything, naming what is not there, where that is not NOT_FOUND: what
is made is never there before; anybody may be asked about, and some may be known to their issuer
alone; in a VO that does not exist nothing is made (`place`); and of paths, the storage knows more
than Authorization."""
SEVERAL: Final = ("bulk", "places")
NOTHING_TO_DO: Final[Mapping[str, tuple[str, str]]] = {
    "BackendAdminService/PushBackendConfiguration": ("FAILED_PRECONDITION", "PRECONDITION"),
    "TransferService/SubmitStagingJob": ("INVALID_ARGUMENT", "CAPABILITY_MISSING"),
    "TransferAdminService/UpdateTransferJob": ("FAILED_PRECONDITION", "ILLEGAL_TRANSITION"),
}
"""What those get who may, where nothing of this server can be done it to: the embedded backend has
no configuration of its own and no tape, and the transfers of the world have ended."""


@dataclass(frozen=True)
class Step:
    """One call of the walk."""

    block: Block
    method: str
    kind: str
    role: str
    relation: str
    readable: bool = True

    @property
    def cell(self) -> Cell:
        cells = self.block.cells if self.readable else self.block.closed
        return cells[self.role]

    @property
    def let_in(self) -> bool:
        """Whether the permission lets the caller in, whatever it names."""
        return self.cell.word != "-" and not self.block.via

    @property
    def answer(self) -> str:
        """The word of the table, `permission_cells.Cell.answer`."""
        return self.cell.answer(self.kind, self.relation) if self.let_in else "denied"

    @property
    def refusal(self) -> tuple[str, str]:
        return VETOED if self.role == "vetoed" else DENIED

    def __str__(self) -> str:
        return f"{self.method}, {self.role}, {self.relation}"


@dataclass
class Walked:
    """What a walk found."""

    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    methods: set[str] = field(default_factory=set)
    later: set[str] = field(default_factory=set)


def steps(world: World) -> Iterator[Step]:
    """Every cell of every served method; where jobs are not readable within their VO, those that
    are others then."""
    for block in blocks():
        if not world.readable and block.closed == block.cells:
            continue
        for method, kind in block.methods.items():
            if method in world.wire.methods:
                for role in block.cells:
                    for relation in RELATIONS:
                        yield Step(block, method, kind, role, relation, world.readable)


def named(step: Step) -> Sequence[Step]:
    """What a call names, each as though it were named alone: the thing, and of several the caller's
    own beside it."""
    return [step, replace(step, relation="own")] if step.kind == "bulk" else [step]


def heard(step: Step, about: About, answer: Answer) -> Sequence[tuple[str, str]]:
    """What an answer says of each thing that the call named, as code and reason; one that was
    refused as a whole says the same of all."""
    if answer.code != "OK":
        return [answer.short for _ in named(step)]
    if step.kind in SEVERAL:
        return [_item(result) for result in answer.message.results]
    if step.kind == "list":
        field, key, wanted = LISTED[step.method]
        rows = getattr(answer.message, field)
        if any(getattr(row, key) == wanted(about) for row in rows):
            return [OK]
        return [("OK", "FILTERED" if rows or step.role != "vetoed" else "EMPTY")]
    return [OK]


def _item(result: Any) -> tuple[str, str]:
    if result.WhichOneof("result") != "status":
        return OK
    code = next(c.name for c in grpc.StatusCode if c.value[0] == result.status.code)
    return code, reason_of(result.status)


def wanted(step: Step, later: Collection[str]) -> tuple[str, str]:
    """What the table says of the thing that a call names first."""
    if not step.let_in:
        return step.refusal
    if step.method in later:
        return LATER
    if step.relation == "absent" and step.cell.word == "all" and step.method in UNNAMED:
        return UNNAMED[step.method]
    return {
        "allowed": NOTHING_TO_DO.get(step.method, OK),
        "denied": step.refusal,
        "hidden": HIDDEN,
        "filtered": ("OK", "FILTERED"),
        "empty": ("OK", "EMPTY"),
    }[step.answer]


def walk(world: World, chosen: Iterable[Step]) -> Walked:
    """Makes the calls, several at once."""

    def go(step: Step) -> tuple[Step, Sequence[tuple[str, str]]]:
        about = About(
            world,
            step.role,
            step.relation,
            acts=step.answer == "allowed",
            acts_on_own=replace(step, relation="own").answer == "allowed",
        )
        token = world.callers[step.role].token if step.block.permission != "anonymous" else ""
        requests = requests_for(step.method, about)
        for request in requests:
            validate(request)
        answer = world.wire.call(step.method, token, *requests)
        return step, heard(step, about, answer)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        heard_of = list(pool.map(go, chosen))
    found = Walked(later={step.method for step, said in heard_of if said[0] == LATER})
    for step, said in heard_of:
        found.calls[said[0]] += 1
        found.methods.add(step.method)
        found.wrong += differences(step, said, found.later)
    return found


def differences(
    step: Step, said: Sequence[tuple[str, str]], later: Collection[str]
) -> Iterator[str]:
    """Where an answer is not the table's, of whatever the call named."""
    for each, heard_of in zip(named(step), said, strict=True):
        hoped = wanted(each, later)
        if heard_of != hoped:
            told, table = " ".join(heard_of), " ".join(hoped)
            yield f"{step}: of {each.relation} {told}, the table says {table}"
