"""The issuers that are believed whatever the policy says: Gridlane's own, and those of settings.

Responsible for their names and for how the contract shows them. Nothing of them is stored, and no
call changes them. What administrators add is `issuers`'.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from sqlalchemy import Connection

from gridlane.authorization.v1 import issuer_pb2
from gridlane_authorization.settings import AuthorizationSettings
from gridlane_authorization.store import issuers
from gridlane_kit.policy_messages import issuer_message
from gridlane_kit.tokens import TokenSigner

OWN: Final = "issuers/own"
SETTINGS_PREFIX: Final = "issuers/settings-"
_DIGITS: Final = 16


class GivenIssuers:
    """The issuers that no call changes.

    Parameters:
        settings: what is in force.
        signer: signs Gridlane's own tokens.
    """

    def __init__(self, settings: AuthorizationSettings, signer: TokenSigner) -> None:
        self._signer = signer
        self._configured = {settings_name(issuer.url): issuer for issuer in settings.issuers}

    @property
    def urls(self) -> Mapping[str, str]:
        """The names of all, by their URLs."""
        of_settings = {issuer.url: name for name, issuer in self._configured.items()}
        return {self._signer.issuer: OWN, **of_settings}

    @property
    def vos(self) -> Mapping[str, str]:
        """The VO that each speaks for, by its name; Gridlane's own speaks for none."""
        return {OWN: "", **{name: issuer.vo for name, issuer in self._configured.items()}}

    def believed(self, conn: Connection) -> frozenset[str]:
        """Returns the URLs of all that are believed: these, and those of the policy that are
        switched on."""
        return issuers.believed_urls(conn) | self.urls.keys()

    def get(self, name: str) -> issuer_pb2.Issuer | None:
        """Returns one as the contract shows it."""
        if name == OWN:
            return self._own()
        configured = self._configured.get(name)
        if configured is None:
            return None
        return issuer_message(configured, name, issuer_pb2.ISSUER_ORIGIN_SETTINGS)

    def _own(self) -> issuer_pb2.Issuer:
        keys = self._signer.jwks()
        return issuer_pb2.Issuer(
            name=OWN,
            url=self._signer.issuer,
            jwks=json.dumps(keys, separators=(",", ":")),
            enabled=True,
            description="Gridlane's own",
            origin=issuer_pb2.ISSUER_ORIGIN_OWN,
            keys=issuer_pb2.IssuerKeys(key_ids=[key["kid"] for key in keys["keys"]]),
        )


def settings_name(url: str) -> str:
    """Returns the name of an issuer of the settings: the same as long as its URL is."""
    return SETTINGS_PREFIX + sha256(url.encode()).hexdigest()[:_DIGITS]
