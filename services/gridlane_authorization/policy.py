"""The policy and the roles of one identity, as the contract shows them.

What a role may do stands in `gridlane_kit.decision`.
"""

from collections.abc import Sequence

from gridlane.authorization.v1 import policy_pb2
from gridlane_kit.identity import Principal
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
    policy: Policy, principal: Principal, now_us: int
) -> Sequence[policy_pb2.RoleBinding]:
    """Returns the roles that a caller holds now, by itself or by its groups.

    REGULAR_USER needs no binding: it is listed for everybody who is not vetoed (gLite: every
    authenticated caller is one).

    Parameters:
        now_us: microseconds since the epoch (UTC).
    """
    grants = policy.grants(principal, now_us)
    held = list(grants.bindings)
    if not grants.vetoed:
        held.append(Binding(principal.issuer, principal.subject, Role.REGULAR))
    return [binding_message(binding) for binding in held]
