"""Authorization as a room of a server: start, handlers, stop.

Responsible for the order of things at start: database, first users, policy in force, token file.
Everything is in place before the first call is served, since every call is decided under the
policy.
"""

import asyncio
import contextlib
import getpass
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from gridlane.authorization.v1 import (
    credential_service_pb2,
    quota_service_pb2,
)
from gridlane_authorization.changes import Changes, Denials
from gridlane_authorization.given_issuers import GivenIssuers
from gridlane_authorization.groups import Groups
from gridlane_authorization.issuers import Issuers
from gridlane_authorization.key_files import KeyFiles
from gridlane_authorization.key_upkeep import KeyUpkeep
from gridlane_authorization.policy_feed import PolicyFeed
from gridlane_authorization.retention import Retention
from gridlane_authorization.roles import Roles
from gridlane_authorization.service import (
    AuditShell,
    AuthorizationShell,
    GroupShell,
    IssuerShell,
    PolicyShell,
    RoleShell,
    SigningKeyShell,
    TokenShell,
    VoShell,
)
from gridlane_authorization.settings import AuthorizationSettings
from gridlane_authorization.signing_keys import SigningKeys
from gridlane_authorization.store import (
    METADATA,
    MIGRATIONS,
    LocalUser,
    create_first_admin,
    create_local_user,
    open_policy,
)
from gridlane_authorization.store.tables import AUDIT
from gridlane_authorization.tokens import LocalTokenFile
from gridlane_authorization.user_tokens import UserTokens
from gridlane_authorization.vos import Vos
from gridlane_kit.addresses import Addresses
from gridlane_kit.audit_reading import AuditReader
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_kit.failpoints import failpoint
from gridlane_kit.issuers import TrustedIssuers
from gridlane_kit.metrics import POLICY_STALENESS_SECONDS, Metrics
from gridlane_kit.policy import PolicyHolder
from gridlane_kit.tokens import TokenSigner

USERS_COMMITTED = failpoint("authorization.users.committed")

LOCAL_VO: Final = "local"
"""The virtual organisation of an embedded server's user; its files lie below `LFN:/local`."""

PROMISED: Final = tuple(
    service.full_name
    for module in (
        credential_service_pb2,
        quota_service_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
)
"""Services of the contract that nothing implements yet. They are served all the same: a call is
decided like any other, and then answered with NOT_IMPLEMENTED."""


class AuthorizationRoom:
    """Authorization, embedded: its own issuer, with a local user.

    Parameters:
        settings: what is in force.
        database_url: where its database lies.
        signer: the deployment's signer.
        keys: the files of its key, which are followed.
        policy: the holder that the whole process decides from; filled at start.
        token_file: where the local user's token goes; None: no local user is made.
        metrics: where the policy's staleness is reported.
        migrate: bring an older schema up to date at start.
        stale_after_s: so long the policy is good while the database does not answer, seconds.
        issuers: the outside issuers that the process believes, for how their keys are.
    """

    name = "authorization"

    def __init__(
        self,
        settings: AuthorizationSettings,
        *,
        database_url: str,
        signer: TokenSigner,
        keys: KeyFiles,
        policy: PolicyHolder,
        token_file: Path | None,
        metrics: Metrics,
        issuers: TrustedIssuers,
        migrate: bool = True,
        stale_after_s: float = 60.0,
    ) -> None:
        self._settings = settings
        self._database_url = database_url
        self._signer = signer
        self._key_files = keys
        self._policy = policy
        self._token_file = token_file
        self._metrics = metrics
        self._migrate = migrate
        self._stale_after_s = stale_after_s
        self._issuers = issuers
        self._db: Database | None = None
        self._feed: PolicyFeed | None = None
        self._upkeep: KeyUpkeep | None = None
        self._keys: SigningKeys | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._pruning: asyncio.Task[None] | None = None
        self._denials: Denials | None = None

    async def start(self) -> None:
        """Opens the database, makes the first users, puts the policy in force, writes the token."""
        db = await Database.open(
            self._database_url, metadata=METADATA, migrations=MIGRATIONS, migrate=self._migrate
        )
        self._db = db
        user = await db.write(self._make_users)
        USERS_COMMITTED()
        self._feed = PolicyFeed(db, self._policy, stale_after_s=self._stale_after_s)
        self._metrics.watch(POLICY_STALENESS_SECONDS, self.name, self._feed.staleness_s)
        await self._feed.start()
        self._upkeep = KeyUpkeep(
            db, self._key_files, self._signer, self._settings.token_lifetime_days
        )
        await self._upkeep.start()
        if user is not None and self._token_file is not None:
            token = LocalTokenFile(
                self._token_file, self._signer, user, self._settings.token_lifetime_days
            )
            token.write()
            self._renewal = asyncio.create_task(token.keep_fresh())
        self._pruning = asyncio.create_task(
            Retention(self._settings, db).run(), name="authorization-retention"
        )

    def handlers(self) -> Sequence[tuple[str, object]]:
        """Returns the services and their implementations, None where there is none yet; `start` has
        been awaited."""
        if self._db is None or self._feed is None or self._upkeep is None:
            raise RuntimeError("the room has not been started")
        db, changes = self._db, Changes(self._db, self._feed.refresh)
        self._denials = Denials(db)
        denied = self._denials.keep
        self._keys = SigningKeys(db, changes, self._upkeep)
        given = GivenIssuers(self._settings, self._signer)
        issuers = Issuers(
            db, changes, given, self._issuers, Addresses(self._settings.issuers_networks)
        )
        return [
            ("gridlane.authorization.v1.AuditService", AuditShell(AuditReader(db, AUDIT))),
            (
                "gridlane.authorization.v1.AuthorizationService",
                AuthorizationShell(db, self._policy),
            ),
            ("gridlane.authorization.v1.GroupService", GroupShell(Groups(db, changes), denied)),
            ("gridlane.authorization.v1.IssuerService", IssuerShell(issuers, denied)),
            ("gridlane.authorization.v1.PolicyService", PolicyShell(self._feed)),
            ("gridlane.authorization.v1.RoleService", RoleShell(Roles(db, changes, given), denied)),
            (
                "gridlane.authorization.v1.SigningKeyService",
                SigningKeyShell(self._keys, denied),
            ),
            (
                "gridlane.authorization.v1.TokenService",
                TokenShell(
                    self._signer,
                    UserTokens(db, changes, self._signer, self._settings.max_exchanged_tokens),
                    denied,
                ),
            ),
            ("gridlane.authorization.v1.VoService", VoShell(Vos(db, changes, given.vos), denied)),
            *((name, None) for name in PROMISED),
        ]

    async def drain(self) -> None:
        """Ends the renewal of the token, and pruning; lets rotations of the key come to their end,
        and writes down the last denials."""
        if self._keys is not None:
            await self._keys.drain()
        if self._denials is not None:
            await self._denials.drain()
        for task in filter(None, (self._renewal, self._pruning)):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._renewal = self._pruning = None

    async def stop(self) -> None:
        """Ends what looks after the keys, and the policy's feed; closes the database."""
        if self._upkeep is not None:
            await self._upkeep.stop()
            self._upkeep = None
        if self._feed is not None:
            await self._feed.stop()
            self._feed = None
        if self._db is not None:
            await self._db.close()
            self._db = None

    def _make_users(self, conn: Connection) -> LocalUser | None:
        settings, now = self._settings, now_us()
        open_policy(conn, jobs_vo_readable=settings.jobs_vo_readable, now_us=now)
        if settings.bootstrap_admin:
            issuer, subject = settings.bootstrap_admin.split()
            create_first_admin(conn, issuer, subject, now)
        if self._token_file is None:
            return None
        user = LocalUser(
            issuer=settings.issuer,
            subject=settings.local_user or operating_system_user(),
            vo=LOCAL_VO,
        )
        return create_local_user(conn, user, now)


def operating_system_user() -> str:
    """Returns the name of who runs this process; "local" when it has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "local"
