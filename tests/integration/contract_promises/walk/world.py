"""A Gridlane in which everybody of the table of permissions is, and everything that they may name.

Responsible for preparing it once: virtual organisations, a channel that somebody manages, a user
for each role, and things of each relation to them (`permission_cells.RELATIONS`). Asks for all of
it as users do, but for the channel, which no method of this version makes. Knows nothing of what
anybody may do, beyond that an administrator may prepare a world.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

from google.protobuf.message import Message
from integration.contract_promises.walk.wire import Wire
from sqlalchemy import Connection, insert
from support import Deployment

from gridlane.authorization.v1 import policy_pb2
from gridlane.ids import uuid7
from gridlane.transfer.v1 import storage_service_pb2, transfer_job_pb2
from gridlane.workload.v1 import job_pb2
from gridlane_authorization.settings import AuthorizationSettings
from gridlane_authorization.tokens import read_signer
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_kit.tokens import TokenSigner, new_key
from gridlane_transfer.room import MIGRATIONS
from gridlane_transfer.store.tables import CHANNEL, METADATA
from permission_cells import RELATIONS, ROLES

ISSUER: Final = AuthorizationSettings().issuer
TEAM, REST, MAKERS = "/bound/team", "/bound/rest", "/left/makers"
VO_OF: Final = {
    "own": "left",
    "group": "bound",
    "bound": "bound",
    "vo": "its",
    "managed": "managed",
    "channel": "foreign",
    "foreign": "foreign",
    "absent": "nowhere",
}
"""Where a thing of a relation belongs. Callers belong to `bound` and `its`: what is their own they
made in a VO that they have left. There is no VO `nowhere`."""
BELONGS: Final = ("bound", "its")
WALKED_ISSUER: Final = "walked"
NOBODYS: Final = "01939f5e-0000-7000-8000-000000000001"
MANAGED_UID: Final = "01939f5e-0000-7000-8000-00000000c4a1"
MANAGED: Final = "to-far"
PLACES: Final = ("left", "bound", "its", "managed", "foreign", "nowhere")
CONTENT: Final = b"secret"
WAIT_S: Final = 60.0
_R: Final = policy_pb2
_ROLES: Final[Mapping[str, Mapping[str, Any]]] = {
    "admin": {"role": _R.ROLE_ADMIN},
    "channel manager": {"role": _R.ROLE_CHANNEL_MANAGER, "channel_uid": MANAGED_UID},
    "VO manager": {"role": _R.ROLE_VO_MANAGER, "vo": "managed"},
    "submitter": {"role": _R.ROLE_SUBMITTER, "vo": "bound"},
    "job sharer": {"role": _R.ROLE_JOB_SHARER, "vo": "bound"},
    "pilot": {"role": _R.ROLE_PILOT, "vo": "bound"},
    "job monitor": {"role": _R.ROLE_JOB_MONITOR, "vo": "bound"},
    "vetoed": {"role": _R.ROLE_VETOED_USER},
}

_OPEN: Final = (
    "AuthorizationService/WhoAmI",
    "StorageService/GetTransferStatus",
    "JobService/GetWorkloadStatus",
    "AccountingService/GetReportingStatus",
    "TaskService/Ping",
)
"""Of each service a method that is open to everybody."""


@dataclass(frozen=True)
class Things:
    """What there is of a relation to a caller; what is absent has names all the same."""

    vo: str
    subject: str
    """The person who holds `binding`."""
    job: str
    transfer: str
    failed_transfer: str
    lfn: str
    url: str
    binding: str
    entry: str
    """Of the audit: that of the binding."""
    transfer_entry: str
    """Of Transfer's audit: that of a ban for the VO, which is lifted."""
    group: str
    issuer: str
    key: str
    """That signs the walk's tokens."""
    channel: str
    channel_uid: str
    element: str
    ban: str
    backend: str
    token: str
    token_subject: str


@dataclass(frozen=True)
class Caller:
    """Who calls. `maker` is a token with which the same person makes things in the VO it left."""

    role: str
    subject: str
    token: str
    maker: str


class World:
    """The prepared world.

    Parameters:
        readable: whether jobs are readable within their VO.
    """

    def __init__(
        self, server: Deployment, wire: Wire, signer: TokenSigner, *, readable: bool
    ) -> None:
        self.server = server
        self.readable = readable
        self.issuer = ISSUER
        self.belongs = BELONGS
        self.wire = wire
        self._signer = signer
        self.bob = {
            relation: self.sign("bob", [VO_OF[relation]], [REST if relation == "bound" else TEAM])
            for relation in RELATIONS
        }
        """Tokens of the user to whom everything belongs that is nobody else's."""
        self.callers = {role: self._caller(role) for role in ROLES}
        self._shared: dict[str, Things] = {}
        self._own: dict[str, Things] = {}

    @cached_property
    def admin(self) -> str:
        """The token of the first user, who prepares everything and calls nothing in the walk."""
        return self.server.token

    def things(self, role: str, relation: str) -> Things:
        """What a caller of a role names."""
        return self._own[role] if relation == "own" else self._shared[relation]

    def owner(self, role: str, relation: str) -> str:
        """A token of whoever things of a relation belong to."""
        return self.callers[role].maker if relation == "own" else self.bob[relation]

    def done(self, method: str, token: str, *requests: Message) -> Any:
        """The answer of a call that must succeed."""
        answer = self.wire.call(method, token, *requests)
        assert answer.code == "OK", (method, answer, requests)
        return answer.message

    def sign(self, subject: str, vos: list[str], groups: list[str]) -> str:
        return self._signer.sign_user(subject, vos=vos, groups=groups, lifetime_s=3600)

    def job_token(self, role: str) -> str:
        """A token of the caller's own job."""
        caller, job = self.callers[role], self._own[role].job
        return self._signer.sign_job(
            ISSUER, caller.subject, job=job, attempt=1, vos=BELONGS, lifetime_s=3600
        )

    def bind(self, **binding: Any) -> policy_pb2.RoleBinding:
        """Gives a role."""
        given = policy_pb2.RoleBinding(**binding)
        if not given.group:
            given.issuer = ISSUER
        request = self.wire.request("RoleService/CreateRoleBinding", role_binding=given)
        found: policy_pb2.RoleBinding = self.done(
            "RoleService/CreateRoleBinding", self.admin, request
        )
        return found

    def recorded_token(self, subject: str) -> str:
        """Has a token made for somebody; returns its name, or nobody's where none can be made."""
        method = "TokenService/CreateToken"
        answer = self.wire.call(method, self.admin, self.wire.request(method, subject=subject))
        if answer.code == "UNIMPLEMENTED":
            return f"tokens/{NOBODYS}"
        assert answer.code == "OK", answer
        return str(answer.message.resource.name)

    def put(self, token: str, lfn: str) -> str:
        """Puts a file; returns its URL."""
        header = storage_service_pb2.PutContentHeader(file=lfn, size_bytes=len(CONTENT))
        parts = [
            storage_service_pb2.PutContentRequest(header=header),
            storage_service_pb2.PutContentRequest(chunk=CONTENT),
        ]
        return str(self.done("StorageService/PutContent", token, *parts).url)

    def prepare(self) -> None:
        """Makes everything; each role is given when its holder's things are there."""
        for vo in PLACES[:-1]:
            request = self.wire.request("VoService/CreateVo", vo_id=vo, vo={})
            self.done("VoService/CreateVo", self.admin, request)
            self.declare(vo, f"/{vo}/team", "team")
        self.add_issuer(WALKED_ISSUER)
        self.declare("left", MAKERS, "makers")
        self.bind(group=MAKERS, vo="left", role=_R.ROLE_SUBMITTER)
        self.bind(subject="bob", role=_R.ROLE_SUBMITTER)
        self._wait_for_followers()
        self._ban = self.harmless_ban("storageElements/local")
        url = self.put(self.bob["foreign"], "LFN:/foreign/bob/known")
        with ThreadPoolExecutor(8) as pool:
            shared = {
                relation: pool.submit(self._make, relation, self.bob[relation], "bob")
                for relation in RELATIONS
                if relation != "absent"
            } | {"absent": pool.submit(_nobodys, url)}
            own = {
                role: pool.submit(self._make, "own", caller.maker, caller.subject)
                for role, caller in self.callers.items()
            }
            self._shared = {relation: made.result() for relation, made in shared.items()}
            self._own = {role: made.result() for role, made in own.items()}
        self.bind(subject=self.callers["vetoed"].subject, role=_R.ROLE_ADMIN)
        for role, given in _ROLES.items():
            self.bind(subject=self.callers[role].subject, **given)
        self._wait_for_followers()

    def _caller(self, role: str) -> Caller:
        subject = role.replace(" ", "-")
        return Caller(
            role,
            subject,
            token=self.sign(subject, list(BELONGS), [TEAM]),
            maker=self.sign(subject, ["left"], [MAKERS]),
        )

    def declare(self, vo: str, path: str, name: str) -> None:
        """Declares a group of a virtual organisation."""
        method = "GroupService/CreateGroup"
        request = self.wire.request(method, parent=f"vos/{vo}", group_id=name, group={"path": path})
        self.done(method, self.admin, request)

    def add_issuer(self, id_: str) -> str:
        """Adds an issuer that is not believed; returns its name."""
        method = "IssuerService/CreateIssuer"
        request = self.wire.request(method, issuer_id=id_, issuer=issuer_fields(id_))
        return str(self.done(method, self.admin, request).name)

    def _make(self, relation: str, token: str, owner: str) -> Things:
        """Has somebody make one of everything."""
        vo = VO_OF[relation]
        lfn = f"LFN:/{vo}/{owner}/{relation}"
        url = self.put(token, lfn)
        holder = owner if relation == "own" else f"person-{relation}"
        binding = self.bind(subject=holder, **self.harmless(relation)).name
        return Things(
            vo=vo,
            subject=holder,
            job=self.ended(token, self.submit_job(token, vo)),
            transfer=self.transfer(token, relation, lfn),
            failed_transfer=self.transfer(token, relation, f"{lfn}-missing"),
            lfn=lfn,
            url=url,
            binding=binding,
            entry=self._entry(binding),
            transfer_entry=self._transfer_entry(vo),
            group=f"vos/{vo}/groups/team",
            issuer=f"issuers/{WALKED_ISSUER}",
            key=f"signingKeys/{self._signer.key.kid}",
            channel=f"channels/{MANAGED if relation == 'channel' else 'default'}",
            channel_uid=MANAGED_UID if relation == "channel" else NOBODYS,
            element="storageElements/local",
            ban=self._ban,
            backend="transferBackends/embedded",
            token=self.recorded_token(owner),
            token_subject=owner,
        )

    @staticmethod
    def harmless(relation: str) -> Mapping[str, Any]:
        """A role to give that somebody else's, or one's own, is related so."""
        if relation == "channel":
            return {"role": _R.ROLE_CHANNEL_MANAGER, "channel_uid": MANAGED_UID}
        return {"role": _R.ROLE_JOB_MONITOR, "vo": VO_OF[relation]}

    def open_place(self) -> Mapping[str, Any]:
        """What a storage element is made of that administrators may make."""
        folder = self.server.data_dir / "open" / uuid7()
        return {"endpoints": [{"base_url": folder.as_uri()}]}

    def new_element(self) -> str:
        """Makes a storage element; returns its name."""
        method = "StorageAdminService/CreateStorageElement"
        request = self.wire.request(
            method, storage_element_id=f"w{uuid7()}", storage_element=self.open_place()
        )
        return str(self.done(method, self.admin, request).name)

    def new_channel(self) -> str:
        """Makes a channel on which nothing lies; returns its name."""
        method = "ChannelAdminService/CreateChannel"
        ends = {"source": "local", "target": "far"}
        request = self.wire.request(method, channel_id=f"w{uuid7()}", channel=ends)
        return str(self.done(method, self.admin, request).name)

    def harmless_ban(self, element: str, vo: str = "nowhere") -> str:
        """Lays a ban on a storage element that keeps nobody from anything; returns its name."""
        ban = {"operations": ["STORAGE_OPERATION_STAGE"], "action": "BAN_ACTION_WAIT"}
        method = "StorageAdminService/BanStorage"
        request = self.wire.request(
            method, parent=element, storage_ban={**ban, "vo": vo, "reason": "walked"}
        )
        return str(self.done(method, self.admin, request).name)

    def submit_job(self, token: str, vo: str) -> str:
        """Has a job run; returns its name."""
        description = job_pb2.JobDescription(executors=[job_pb2.Executor(command=["true"])])
        job = job_pb2.Job(vo=vo, description=description)
        request = self.wire.request("JobService/SubmitJob", job=job)
        return str(self.done("JobService/SubmitJob", token, request).name)

    def ended(self, token: str, job: str) -> str:
        """Waits until a job has ended and is accounted for."""
        listing = self.wire.request(
            "AccountingService/ListAccountingRecords", filter=f'job = "{job}"'
        )
        method = "AccountingService/ListAccountingRecords"
        self._until(lambda: self.done(method, token, listing).records)
        return job

    def transfer(self, token: str, relation: str, source: str) -> str:
        """Has a file copied within its VO, and waits for the end; returns the transfer's name."""
        vo = VO_OF[relation]
        folder = "far" if relation == "channel" else vo
        file = transfer_job_pb2.FileTransfer(source=source, target=f"LFN:/{folder}/{uuid7()}")
        job = transfer_job_pb2.TransferJob(vo=vo, files=[file])
        request = self.wire.request("TransferService/SubmitTransferJob", transfer_job=job)
        name = str(self.done("TransferService/SubmitTransferJob", token, request).name)
        get = self.wire.request("TransferService/GetTransferJob", name=name)
        self._until(
            lambda: self.done("TransferService/GetTransferJob", token, get).HasField("end_time")
        )
        return name

    def large_transfer(self, relation: str) -> str:
        """A transfer job with as many files as one may have, of sources that are not there, and
        canceled at once; returns its name."""
        folder = f"LFN:/{VO_OF[relation]}/large"
        files = [
            transfer_job_pb2.FileTransfer(source=f"{folder}/no-{n}", target=f"{folder}/{uuid7()}")
            for n in range(1000)
        ]
        job = transfer_job_pb2.TransferJob(vo=VO_OF[relation], files=files)
        token = self.bob[relation]
        request = self.wire.request("TransferService/SubmitTransferJob", transfer_job=job)
        name = str(self.done("TransferService/SubmitTransferJob", token, request).name)
        cancel = self.wire.request("TransferService/CancelTransferJob", name=name)
        self.done("TransferService/CancelTransferJob", token, cancel)
        return name

    def _entry(self, binding: str) -> str:
        method = "AuditService/ListAuditEntries"
        request = self.wire.request(method, filter=f'resource = "{binding}"')
        (entry,) = self.done(method, self.admin, request).audit_entries
        return str(entry.name)

    def _transfer_entry(self, vo: str) -> str:
        ban = self.harmless_ban("storageElements/local", vo)
        listing = self.wire.request(
            "TransferAuditService/ListAuditEntries", filter=f'resource = "{ban}"'
        )
        found = self.done("TransferAuditService/ListAuditEntries", self.admin, listing)
        self.done(
            "StorageAdminService/UnbanStorage",
            self.admin,
            self.wire.request("StorageAdminService/UnbanStorage", name=ban),
        )
        (entry,) = found.audit_entries
        return str(entry.name)

    def _wait_for_followers(self) -> None:
        """Waits until every service has what was given so far: the last of it is a veto."""
        subject = f"watched-{uuid7()}"
        self.bind(subject=subject, role=_R.ROLE_VETOED_USER)
        token = self.sign(subject, [], [])
        for method in _OPEN:
            ask = self.wire.request(method)
            self._until(partial(self._is_vetoed, method, token, ask))

    def _is_vetoed(self, method: str, token: str, ask: Message) -> bool:
        return self.wire.call(method, token, ask).reason == "CALLER_VETOED"

    def _until(self, holds: Callable[[], Any]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not holds():
            assert time.monotonic() < deadline, f"it does not come true:\n{self.server.output}"
            time.sleep(0.05)


def issuer_fields(id_: str) -> Mapping[str, Any]:
    """An issuer whose keys need not be fetched, since they are there."""
    jwks = TokenSigner(new_key(), ISSUER, "").jwks()
    return {"url": f"https://issuer.test/{id_}", "vo": "bound", "jwks": json.dumps(jwks)}


def _nobodys(url: str) -> Things:
    return Things(
        vo="nowhere",
        subject="nobody",
        job=f"jobs/{NOBODYS}",
        transfer=f"transfers/{NOBODYS}",
        failed_transfer=f"transfers/{NOBODYS}",
        lfn="LFN:/nowhere/nobodys",
        url=url.replace("/foreign/bob/known", "/nowhere/nobodys"),
        binding=f"roleBindings/{NOBODYS}",
        entry=f"auditEntries/{NOBODYS}",
        transfer_entry=f"auditEntries/{NOBODYS}",
        group="vos/nowhere/groups/team",
        issuer="issuers/nobodys",
        key="signingKeys/nobodys",
        channel="channels/nobodys",
        channel_uid=NOBODYS,
        element="storageElements/nobodys",
        ban=f"storageElements/nobodys/bans/{NOBODYS}",
        backend="transferBackends/nobodys",
        token=f"tokens/{NOBODYS}",
        token_subject="nobody",
    )


@contextmanager
def prepared(server: Deployment, *, readable: bool = True) -> Iterator[World]:
    """A world on a deployment that was made with `world_environment`, and is started here."""
    server.start()
    server.part("transfer").stop()
    asyncio.run(_add_channel(server.database_url("transfer")))
    server.start()
    signer = read_signer(server.token_key, ISSUER, AuthorizationSettings().audience)
    with Wire(server) as wire:
        world = World(server, wire, signer, readable=readable)
        world.prepare()
        yield world


async def _add_channel(database_url: str) -> None:
    def write(conn: Connection) -> None:
        row = {
            "uid": MANAGED_UID,
            "name": MANAGED,
            "source": "*",
            "target": "far",
            "state": 1,
            "max_files": 4,
            "on_exhausted": 1,
            "create_us": now_us(),
        }
        conn.execute(insert(CHANNEL).values(row))

    db = await Database.open(database_url, metadata=METADATA, migrations=MIGRATIONS, migrate=False)
    await db.write(write)
    await db.close()


def world_environment(root: Path, *, readable: bool = True) -> Mapping[str, str]:
    """What a deployment must be set to whose folder is `root`: storage for every VO, and one
    element more, to which the managed channel leads.

    Parameters:
        readable: whether jobs are readable within their VO.
    """
    data = root / "data"
    elements = [
        {
            "name": "local",
            "base_url": (data / "storage").as_uri(),
            "vo_paths": {vo: f"/{vo}" for vo in ("local", *PLACES)},
        },
        {"name": "far", "base_url": (root / "far").as_uri(), "vo_paths": {"foreign": "/far"}},
        {"name": "jobs", "base_url": (data / "jobs").as_uri(), "internal": True},
    ]
    return {
        "GRIDLANE_TRANSFER_STORAGE_ELEMENTS": json.dumps(elements),
        "GRIDLANE_TRANSFER_STORAGE_FILE_ROOTS": json.dumps([str(data / "open")]),
        "GRIDLANE_AUTHORIZATION_JOBS_VO_READABLE": str(readable).lower(),
    }
