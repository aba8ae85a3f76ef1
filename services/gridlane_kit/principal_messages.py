"""The contract's form of a principal.

Responsible for `identity.Principal` as `gridlane.type.v1.Principal`, which all services answer. Not
for reading one: what a caller says of itself is proven by its token (`token_profile`,
`assertions`).
"""

from collections.abc import Mapping
from typing import Final

from gridlane.type.v1 import principal_pb2
from gridlane_kit.identity import Principal, PrincipalKind

_KINDS: Final[Mapping[PrincipalKind, principal_pb2.PrincipalKind.ValueType]] = {
    PrincipalKind.USER: principal_pb2.PRINCIPAL_KIND_USER,
    PrincipalKind.JOB: principal_pb2.PRINCIPAL_KIND_JOB,
    PrincipalKind.SERVICE: principal_pb2.PRINCIPAL_KIND_SERVICE,
}


def principal_message(principal: Principal) -> principal_pb2.Principal:
    """Returns the contract's form of a principal."""
    return principal_pb2.Principal(
        issuer=principal.issuer,
        subject=principal.subject,
        display_name=principal.display_name,
        vos=sorted(principal.vos),
        groups=sorted(principal.groups),
        active_group=principal.active_group,
        kind=_KINDS[principal.kind],
    )
