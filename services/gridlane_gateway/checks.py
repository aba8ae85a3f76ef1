"""What a task needs before it is submitted: inputs, targets, a channel, a backend.

Responsible for asking, all at once and only what the task needs, and for naming the field of each
check that failed. What the answers mean belongs to the services: a check that passes here is made
again by the one that does the work.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Final

from gridlane.transfer.v1 import (
    channel_pb2,
    channel_service_pb2,
    replica_service_pb2,
    storage_element_pb2,
    storage_service_pb2,
)
from gridlane.workload.v1 import job_pb2, job_service_pb2
from gridlane_gateway.peers import GatewayPeers, together
from gridlane_kit.call import Call

LOGICAL: Final = "LFN:"
_PAGE: Final = 1000
_DATABASE: Final = "database"

Violation = tuple[str, str]
"""A field of the request, and what is wrong with it."""


async def violations(
    peers: GatewayPeers, call: Call, description: job_pb2.JobDescription, vo: str
) -> list[Violation]:
    """Makes every check that the job needs.

    Parameters:
        vo: the virtual organisation that the job is for.

    Returns:
        One violation for each check that failed; empty when the job may be submitted.

    Raises:
        GridlaneError: a service could not be asked; nothing is known then.
    """
    checks: list[Awaitable[Iterable[Violation]]] = [_backend(peers, call)]
    # What comes with the description has no source, and nothing is asked of anybody for it.
    staged = [index for index, item in enumerate(description.inputs) if item.source]
    names = [i for i in staged if description.inputs[i].source.startswith(LOGICAL)]
    if names:
        checks.append(_inputs_resolve(peers, call, description, names))
    if len(names) < len(staged) or description.outputs:
        checks.append(_ends_served(peers, call, description, vo))
    if staged or description.outputs:
        field = "inputs" if staged else "outputs"
        checks.append(_channel(peers, call, f"job.description.{field}"))
    return [violation for found in await together(*checks) for violation in found]


async def _backend(peers: GatewayPeers, call: Call) -> list[Violation]:
    request = job_service_pb2.GetWorkloadStatusRequest()
    status = await peers.jobs(call).GetWorkloadStatus(request)
    backends = [backend for backend in status.backends if backend.name != _DATABASE]
    if any(backend.reachable for backend in backends):
        return []
    reasons = "; ".join(f"{backend.name}: {backend.message}" for backend in backends)
    return [
        ("job.description.executors", f"no backend can run it now: {reasons or 'there is none'}")
    ]


async def _inputs_resolve(
    peers: GatewayPeers, call: Call, description: job_pb2.JobDescription, indexes: list[int]
) -> list[Violation]:
    request = replica_service_pb2.ResolveReplicasRequest(
        lfns=[description.inputs[index].source for index in indexes]
    )
    response = await peers.replicas(call).ResolveReplicas(request)
    return [
        (
            f"job.description.inputs[{index}].source",
            f"the catalogue does not know {description.inputs[index].source}",
        )
        for index, result in zip(indexes, response.results, strict=True)
        if not result.HasField("file")
    ]


async def _ends_served(
    peers: GatewayPeers, call: Call, description: job_pb2.JobDescription, vo: str
) -> list[Violation]:
    elements = await _storage_elements(peers, call)
    found: list[Violation] = []
    for index, item in enumerate(description.inputs):
        if item.source and not item.source.startswith(LOGICAL):
            field = f"job.description.inputs[{index}].source"
            found.extend(_unserved(field, item.source, elements, vo, lambda e: e.readable, "read"))
    for index, output in enumerate(description.outputs):
        field = f"job.description.outputs[{index}].target"
        found.extend(_unserved(field, output.target, elements, vo, lambda e: e.writable, "written"))
    return found


def _unserved(
    field: str,
    end: str,
    elements: Iterable[storage_element_pb2.StorageElement],
    vo: str,
    usable: Callable[[storage_element_pb2.StorageElement], bool],
    use: str,
) -> Iterator[Violation]:
    serving = [element for element in elements if _serves(element, end, vo)]
    if not serving:
        yield field, f"no storage element of the VO {vo} serves {end}"
    elif not any(usable(element) for element in serving):
        yield field, f"{serving[0].name} cannot be {use} now"


def _serves(element: storage_element_pb2.StorageElement, end: str, vo: str) -> bool:
    if element.internal:
        return False
    if end.startswith(LOGICAL):
        base = element.vo_paths.get(vo, "")
        return bool(base) and _below(end.removeprefix(LOGICAL), base)
    return any(_below(end, endpoint.base_url) for endpoint in element.endpoints)


def _below(path: str, base: str) -> bool:
    return path.startswith(base.rstrip("/") + "/")


async def _storage_elements(
    peers: GatewayPeers, call: Call
) -> list[storage_element_pb2.StorageElement]:
    found: list[storage_element_pb2.StorageElement] = []
    request = storage_service_pb2.ListStorageElementsRequest(page_size=_PAGE)
    while True:
        page = await peers.storage(call).ListStorageElements(request)
        found.extend(page.storage_elements)
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def _channel(peers: GatewayPeers, call: Call, field: str) -> list[Violation]:
    request = channel_service_pb2.ListChannelsRequest(page_size=_PAGE)
    page = await peers.channels(call).ListChannels(request)
    if any(channel.state == channel_pb2.CHANNEL_STATE_ACTIVE for channel in page.channels):
        return []
    names = ", ".join(channel.name for channel in page.channels)
    return [(field, f"no channel is active: {names or 'there is none'}")]
