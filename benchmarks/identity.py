"""The caller in whose name the benchmarks call: one user of the VO `local` who may submit.

Responsible for a key, a token and a policy that fit together, without Authorization's service:
what a call costs the service under test is the same.
"""

from typing import Final

from gridlane_kit.identity import Principal
from gridlane_kit.policy import Binding, Policy, Role
from gridlane_kit.tokens import StaticKeys, TokenSigner, TokenVerifier, new_key

_ISSUER: Final = "https://benchmarks.example"
_AUDIENCE: Final = "benchmarks"
_SUBJECT: Final = "alice"
_LIFETIME_S: Final = 3600

VO: Final = "local"
PRINCIPAL: Final = Principal(_ISSUER, _SUBJECT, vos=frozenset({VO}))
"""Who the user is to the services."""


class Identity:
    """A user, its token (an hour), and who believes it."""

    def __init__(self) -> None:
        signer = TokenSigner(new_key(), _ISSUER, _AUDIENCE)
        self.token = signer.sign_user(
            _SUBJECT, lifetime_s=_LIFETIME_S, display_name="Alice", vos={VO}
        )
        self.verifier = TokenVerifier({_ISSUER: StaticKeys(signer.jwks())}, _AUDIENCE)
        self.policy = Policy(
            revision=1,
            bindings=[Binding(_ISSUER, _SUBJECT, Role.SUBMITTER, vo=VO)],
            vos=[VO],
        )
