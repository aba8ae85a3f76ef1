"""Role bindings as the kit decides from them, and as the contract shows them.

Responsible for the mapping between the two forms. What a role may do stands in
`gridlane_kit.decision`.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from gridlane.authorization.v1 import policy_pb2
from gridlane_kit.clock import to_timestamp
from gridlane_kit.policy import Binding, Policy, Role

_ROLES: Final = {
    Role.ADMIN: policy_pb2.ROLE_ADMIN,
    Role.CHANNEL_MANAGER: policy_pb2.ROLE_CHANNEL_MANAGER,
    Role.VO_MANAGER: policy_pb2.ROLE_VO_MANAGER,
    Role.SUBMITTER: policy_pb2.ROLE_SUBMITTER,
    Role.REGULAR: policy_pb2.ROLE_REGULAR_USER,
    Role.VETOED: policy_pb2.ROLE_VETOED_USER,
}


def binding_message(binding: Binding) -> policy_pb2.RoleBinding:
    """Returns the contract's form of a binding."""
    message = policy_pb2.RoleBinding(
        issuer=binding.issuer,
        subject=binding.subject,
        role=_ROLES[binding.role],
        vo=binding.vo,
        channel_uid=binding.channel_uid,
    )
    if binding.expires_us is not None:
        message.expire_time.CopyFrom(to_timestamp(binding.expires_us))
    return message


def policy_message(policy: Policy, vos: Iterable[str]) -> policy_pb2.Policy:
    """Returns the contract's form of the whole policy.

    Parameters:
        vos: the virtual organisations that exist.
    """
    return policy_pb2.Policy(
        revision=policy.revision,
        bindings=[binding_message(binding) for binding in policy.bindings],
        vos=sorted(vos),
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
