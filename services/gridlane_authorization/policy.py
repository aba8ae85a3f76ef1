"""The policy and the roles of one identity, as the contract shows them.

What a role may do stands in `gridlane_kit.decision`.
"""

from collections.abc import Sequence

from gridlane.authorization.v1 import policy_pb2
from gridlane_kit.policy import Binding, Policy, Role
from gridlane_kit.policy_messages import binding_message


def policy_message(policy: Policy) -> policy_pb2.Policy:
    """Returns the contract's form of the whole policy."""
    return policy_pb2.Policy(
        revision=policy.revision,
        bindings=[binding_message(binding) for binding in policy.bindings],
        vos=sorted(policy.vos),
    )


def roles_held(
    policy: Policy, issuer: str, subject: str, owner: str, now_us: int
) -> Sequence[policy_pb2.RoleBinding]:
    """Returns the roles that an identity holds now.

    REGULAR_USER needs no binding: it is listed for everybody who is not vetoed (gLite: every
    authenticated caller is one).

    Parameters:
        owner: the identity's key, as in `Principal.owner`.
        now_us: microseconds since the epoch (UTC).
    """
    held = [binding_message(binding) for binding in policy.roles_of(owner, now_us)]
    if not policy.grants(owner, now_us).vetoed:
        held.append(binding_message(Binding(issuer=issuer, subject=subject, role=Role.REGULAR)))
    return held
