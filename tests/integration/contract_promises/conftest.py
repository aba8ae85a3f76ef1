"""Whoever tries the promises: the local user, and others, of the run's shared server."""

from collections.abc import Callable

import pytest
from integration.contract_promises.stranger import Stranger
from support import EmbeddedServer

from gridlane.ids import uuid7
from gridlane_authorization.settings import AuthorizationSettings
from gridlane_authorization.tokens import open_signer

UserOf = Callable[..., Stranger]


@pytest.fixture
def me(embedded_server: EmbeddedServer) -> Stranger:
    """The local user: an admin and a submitter of the VO `local`."""
    return Stranger(embedded_server)


@pytest.fixture
def folder() -> str:
    """A logical folder of the test's own."""
    return f"LFN:/local/promises/{uuid7()}"


@pytest.fixture
def user_of(embedded_server: EmbeddedServer) -> UserOf:
    """Makes users: `user_of("bob", "local")` is of the VO `local`, without a role."""
    settings = AuthorizationSettings()
    signer = open_signer(embedded_server.data_dir / "keys", settings.issuer, settings.audience)

    def user(subject: str, *vos: str, scopes: list[str] | None = None) -> Stranger:
        token = signer.sign_user(subject, vos=vos, scopes=scopes, lifetime_s=600)
        return Stranger(embedded_server, token)

    return user
