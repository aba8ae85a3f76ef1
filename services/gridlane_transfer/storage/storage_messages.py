"""The contract's forms of storage elements and bans. Responsible for the mapping alone."""

from google.protobuf.duration_pb2 import Duration

from gridlane.transfer.v1 import storage_ban_pb2, storage_element_pb2
from gridlane_kit.clock import to_timestamp
from gridlane_kit.identity import Principal
from gridlane_kit.principal_messages import principal_message
from gridlane_transfer.storage.bans import Ban, Operation
from gridlane_transfer.storage.element_urls import scheme_of
from gridlane_transfer.storage.storage_elements import AccessState, Condition, StorageElement

_ACCESS = {
    "read": Operation.READ,
    "write": Operation.WRITE,
    "check": Operation.CHECK,
    "remove": Operation.REMOVE,
}


def element_message(
    element: StorageElement, banned: frozenset[Operation], condition: Condition
) -> storage_element_pb2.StorageElement:
    """A storage element as it is now.

    Parameters:
        banned: what nobody may do there now.
        condition: how its storage answers.
    """
    message = storage_element_pb2.StorageElement()
    message.CopyFrom(element.settings)
    message.name = element.resource
    for endpoint in message.endpoints:
        endpoint.protocol = scheme_of(endpoint.base_url)
    message.medium = message.medium or storage_element_pb2.STORAGE_MEDIUM_DISK
    for field, operation in _ACCESS.items():
        state = AccessState.BANNED if operation in banned else element.access_state(operation)
        setattr(message.access, field, int(state))
    message.readable = condition.readable and Operation.READ not in banned
    message.writable = (
        condition.writable
        and Operation.WRITE not in banned
        and not element.draining
        and element.endpoint(Operation.WRITE) is not None
    )
    message.free_bytes = condition.free_bytes
    message.internal = element.internal
    message.configured = element.configured
    if not element.configured:
        message.revision = element.revision
        message.create_time.CopyFrom(to_timestamp(element.create_us))
        message.update_time.CopyFrom(to_timestamp(element.update_us))
    return message


def ban_message(ban: Ban) -> storage_ban_pb2.StorageBan:
    """A ban."""
    message = storage_ban_pb2.StorageBan(
        name=ban.name,
        operations=[
            storage_element_pb2.StorageOperation.ValueType(int(one))
            for one in sorted(ban.operations)
        ],
        vo=ban.vo,
        action=storage_ban_pb2.BanAction.ValueType(int(ban.action)),
        accept_submissions=ban.accept_submissions,
        reason=ban.reason,
        creator=principal_message(Principal.from_json(ban.creator)),
        create_time=to_timestamp(ban.create_us),
        affected_files=ban.affected_files,
    )
    if ban.wait_timeout_us is not None:
        timeout = Duration()
        timeout.FromMicroseconds(ban.wait_timeout_us)
        message.wait_timeout.CopyFrom(timeout)
    if ban.expires_us is not None:
        message.expire_time.CopyFrom(to_timestamp(ban.expires_us))
    return message
