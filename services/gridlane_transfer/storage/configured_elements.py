"""Storage elements as they are configured, in the contract's form. Responsible for the mapping
alone: one form serves those that are configured and those that administrators make.
"""

from collections.abc import Sequence

from gridlane.transfer.v1 import storage_element_pb2
from gridlane.type.v1 import checksum_pb2
from gridlane_transfer.settings import (
    READ_ONLY,
    StorageElementSettings,
    StorageEndpointSettings,
)


def configured_settings(given: StorageElementSettings) -> storage_element_pb2.StorageElement:
    """What is configured of an element, but for its name."""
    settings = storage_element_pb2.StorageElement(
        endpoints=[_endpoint(one, given.read_only) for one in given.all_endpoints()],
        vo_paths=given.vo_paths,
        failover_for=[f"storageElements/{name}" for name in given.failover_for],
        draining=given.draining,
        site=given.site,
        description=given.description,
        checksum_types=[
            checksum_pb2.ChecksumType.Value(f"CHECKSUM_TYPE_{word}")
            for word in given.checksum_types
        ],
    )
    limits = storage_element_pb2.StorageLimits(
        max_active_in=given.max_active_in,
        max_active_out=given.max_active_out,
        max_bandwidth_in_bytes_per_second=given.max_bandwidth_in_bytes_per_second,
        max_bandwidth_out_bytes_per_second=given.max_bandwidth_out_bytes_per_second,
    )
    if limits.ListFields():
        settings.limits.CopyFrom(limits)
    return settings


def _endpoint(
    given: StorageEndpointSettings, read_only: bool
) -> storage_element_pb2.StorageEndpoint:
    words: Sequence[str] = given.operations
    if read_only:
        words = [word for word in given.operations or READ_ONLY if word in READ_ONLY]
    return storage_element_pb2.StorageEndpoint(
        base_url=given.base_url,
        operations=[
            storage_element_pb2.StorageOperation.Value(f"STORAGE_OPERATION_{word.upper()}")
            for word in words
        ],
    )
