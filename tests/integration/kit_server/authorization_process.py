"""Authorization in a process of its own, for the tests of those who follow its policy.

Usage: authorization_process.py DATABASE_URL KEYS_FILE PORT READY_FILE STALE_AFTER_S. Its policy is
whatever is in the database.
"""

import json
import sys
from pathlib import Path

from gridlane_authorization.key_files import KeyFiles
from gridlane_authorization.room import AuthorizationRoom
from gridlane_authorization.settings import AuthorizationSettings
from gridlane_kit import logs
from gridlane_kit.admission import Admission
from gridlane_kit.assertions import AssertionVerifier
from gridlane_kit.issuers import TrustedIssuers
from gridlane_kit.metrics import Metrics
from gridlane_kit.policy import Policy, PolicyHolder
from gridlane_kit.registration import Pipeline
from gridlane_kit.server import Server, run
from gridlane_kit.settings import ServerSettings
from gridlane_kit.telemetry import Telemetry
from gridlane_kit.tokens import StaticKeys, TokenSigner, TokenVerifier, dump_key, new_key

DATABASE_URL, KEYS = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
PORT, READY, STALE_AFTER_S = int(sys.argv[3]), Path(sys.argv[4]), float(sys.argv[5])


async def main() -> int:
    settings = AuthorizationSettings.load("authorization")
    signer = TokenSigner(new_key(), settings.issuer, settings.audience)
    policy, metrics = PolicyHolder(Policy(0)), Metrics()
    pipeline = Pipeline(
        verifier=TokenVerifier({settings.issuer: StaticKeys(signer.jwks())}, settings.audience),
        assertions=AssertionVerifier("authorization", KEYS),
        policy=policy,
        telemetry=Telemetry("authorization"),
        metrics=metrics,
        admission=Admission(),
    )
    key = READY.with_suffix(".pem")
    key.write_bytes(dump_key(signer.key))
    room = AuthorizationRoom(
        settings,
        database_url=DATABASE_URL,
        signer=signer,
        keys=KeyFiles(key, None),
        policy=policy,
        token_file=None,
        metrics=metrics,
        issuers=TrustedIssuers(settings.audience),
        stale_after_s=STALE_AFTER_S,
    )
    given = ServerSettings.load("server", port=PORT, health_port=0, ready_file=READY, grace_s=0.5)
    server = Server(given, [room], pipeline)
    await server.start()
    server.stop_on_signals()
    await server.wait()
    await server.stop()
    return 0


if __name__ == "__main__":
    logs.configure(json=True)
    sys.exit(run(main))
