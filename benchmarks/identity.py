"""The caller in whose name the benchmarks call: one user of the VO `local` who may submit; and
others, of whom there is much in large stores.

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

OTHER_VO: Final = "other"
OTHERS: Final = tuple(
    Principal(_ISSUER, f"user-{number}", vos=frozenset({OTHER_VO})) for number in range(50)
)
"""Whose the most is that lies in a large store. They may do the same in their VO: nothing has to be
stopped there.
"""


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
            bindings=[
                Binding(_ISSUER, _SUBJECT, Role.SUBMITTER, vo=VO),
                *(Binding(_ISSUER, other.subject, Role.SUBMITTER, vo=OTHER_VO) for other in OTHERS),
            ],
            vos=[VO, OTHER_VO],
        )
