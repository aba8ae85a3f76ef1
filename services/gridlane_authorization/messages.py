"""The contract's forms of what Authorization keeps, and what requests say of it.

Responsible for the mapping alone, in both directions; bindings and policies as decisions are made
from them are mapped by the kit (`policy_messages`).
"""

import json
from collections.abc import Collection, Sequence
from typing import Final

from google.protobuf.message import Message

from gridlane.authorization.v1 import (
    group_pb2,
    issuer_pb2,
    policy_pb2,
    signing_key_pb2,
    token_pb2,
    vo_pb2,
)
from gridlane_authorization.store.bindings import StoredBinding
from gridlane_authorization.store.groups import StoredGroup
from gridlane_authorization.store.issuers import StoredIssuer
from gridlane_authorization.store.signing_keys import KeyState, StoredKey
from gridlane_authorization.store.user_tokens import StoredToken
from gridlane_authorization.store.vos import StoredVo
from gridlane_kit import errors
from gridlane_kit.clock import to_duration, to_timestamp
from gridlane_kit.identity import Principal
from gridlane_kit.policy_messages import binding_message
from gridlane_kit.principal_messages import principal_message

_KEY_STATES: Final = {
    KeyState.PUBLISHED: signing_key_pb2.SIGNING_KEY_STATE_PUBLISHED,
    KeyState.ACTIVE: signing_key_pb2.SIGNING_KEY_STATE_ACTIVE,
    KeyState.RETIRED: signing_key_pb2.SIGNING_KEY_STATE_RETIRED,
    KeyState.REVOKED: signing_key_pb2.SIGNING_KEY_STATE_REVOKED,
}


def role_binding(stored: StoredBinding) -> policy_pb2.RoleBinding:
    """Returns the contract's form of a stored binding."""
    message = binding_message(stored.binding)
    message.name = stored.name
    message.reason = stored.reason
    message.revision = stored.revision
    message.create_time.CopyFrom(to_timestamp(stored.create_time_us))
    if stored.creator:
        message.creator.CopyFrom(principal_message(Principal.from_json(stored.creator)))
    return message


def vo(stored: StoredVo) -> vo_pb2.Vo:
    """Returns the contract's form of a virtual organisation."""
    return vo_pb2.Vo(
        name=stored.name,
        description=stored.description,
        contact=stored.contact,
        create_time=to_timestamp(stored.create_time_us),
        update_time=to_timestamp(stored.update_time_us),
        revision=stored.revision,
    )


def issuer(stored: StoredIssuer) -> issuer_pb2.Issuer:
    """Returns the contract's form of an issuer of the policy, without how its keys are."""
    message = issuer_pb2.Issuer(
        name=stored.name,
        url=stored.url,
        vo=stored.vo,
        audiences=stored.audiences,
        algorithms=stored.algorithms,
        jwks_uri=stored.jwks_uri,
        jwks=stored.jwks,
        enabled=stored.enabled,
        description=stored.description,
        origin=issuer_pb2.ISSUER_ORIGIN_POLICY,
        create_time=to_timestamp(stored.create_time_us),
        update_time=to_timestamp(stored.update_time_us),
        revision=stored.revision,
    )
    if stored.max_group_age_us is not None:
        message.max_group_age.CopyFrom(to_duration(stored.max_group_age_us))
    if stored.max_token_lifetime_us is not None:
        message.max_token_lifetime.CopyFrom(to_duration(stored.max_token_lifetime_us))
    return message


def group(stored: StoredGroup) -> group_pb2.Group:
    """Returns the contract's form of a group."""
    return group_pb2.Group(
        name=stored.name,
        path=stored.path,
        description=stored.description,
        dirac_group=stored.dirac_group,
        create_time=to_timestamp(stored.create_time_us),
        update_time=to_timestamp(stored.update_time_us),
        revision=stored.revision,
    )


def token(stored: StoredToken) -> token_pb2.Token:
    """Returns the contract's form of a token without the token itself."""
    message = token_pb2.Token(
        name=stored.name,
        principal=principal_message(stored.principal),
        scopes=sorted(stored.principal.scopes or ()),
        audiences=[stored.audience],
        create_time=to_timestamp(stored.create_time_us),
        expire_time=to_timestamp(stored.expires_us),
        creator=principal_message(stored.creator),
        reason=stored.reason,
        exchanged_for=stored.exchanged_for,
    )
    if stored.revoke_time_us is not None:
        message.revoke_time.CopyFrom(to_timestamp(stored.revoke_time_us))
    return message


def signing_key(stored: StoredKey) -> signing_key_pb2.SigningKey:
    """Returns the contract's form of a signing key: its public half."""
    message = signing_key_pb2.SigningKey(
        name=stored.name,
        algorithm=json.loads(stored.public_jwk).get("alg", "ES256"),
        public_jwk=stored.public_jwk,
        state=_KEY_STATES[stored.state],
        create_time=to_timestamp(stored.create_time_us),
        activate_time=to_timestamp(stored.activate_time_us),
    )
    if stored.retire_time_us is not None:
        message.retire_time.CopyFrom(to_timestamp(stored.retire_time_us))
    if stored.expires_us is not None:
        message.expire_time.CopyFrom(to_timestamp(stored.expires_us))
    return message


def changed_fields(
    given: Message, mask: Collection[str], updatable: Collection[str]
) -> Sequence[str]:
    """Returns which fields an update changes (AIP-134).

    Parameters:
        given: the resource in the request.
        mask: the paths of its mask, checked by the contract's rules; empty: every field that is
            set.
        updatable: the fields that can be changed at all.
    """
    if mask:
        return [name for name in updatable if name in mask]
    return [field.name for field, _ in given.ListFields() if field.name in updatable]


def refuse_nul(**texts: str) -> None:
    """Refuses texts that no database keeps.

    Parameters:
        texts: by the path of their field, dots written as two underscores.

    Raises:
        GridlaneError: INVALID_FIELDS.
    """
    bad = [path.replace("__", ".") for path, text in texts.items() if "\0" in text]
    if bad:
        raise errors.invalid([(path, "no text has a NUL") for path in bad])
