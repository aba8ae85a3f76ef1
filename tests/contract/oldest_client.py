"""A client program that runs in .tools/oldest, under the oldest protobuf and grpcio.

    python oldest_client.py stubs                  print the validation rules it finds in its stubs
    python oldest_client.py call ADDRESS TOKEN     ask a server who the caller is and how it is
    python oldest_client.py facade ADDRESS TOKEN   run a job through both facades

Prints one JSON object with the versions it ran under. Not a test: test_oldest_client.py starts it.
"""

import asyncio
import json
import sys
from importlib.metadata import version

import grpc
from google.protobuf.descriptor import Descriptor

import gridlane
from gridlane.authorization.v1 import authorization_service_pb2, authorization_service_pb2_grpc
from gridlane.gateway.v1 import task_service_pb2, task_service_pb2_grpc
from gridlane.transfer.v1 import channel_service_pb2

TIMEOUT_SECONDS = 10


def option_bytes() -> "dict[str, str]":
    """The serialized options of each field of one request, in hexadecimal."""
    message: Descriptor = channel_service_pb2.GetChannelRequest.DESCRIPTOR
    return {field.name: field.GetOptions().SerializeToString().hex() for field in message.fields}


def call(address: str, token: str) -> "dict[str, object]":
    """One call of two services, over one channel."""
    metadata = (("authorization", f"Bearer {token}"),)
    with grpc.insecure_channel(address) as channel:
        authorization = authorization_service_pb2_grpc.AuthorizationServiceStub(channel)
        tasks = task_service_pb2_grpc.TaskServiceStub(channel)
        caller = authorization.WhoAmI(
            authorization_service_pb2.WhoAmIRequest(), metadata=metadata, timeout=TIMEOUT_SECONDS
        )
        answer = tasks.Ping(
            task_service_pb2.PingRequest(), metadata=metadata, timeout=TIMEOUT_SECONDS
        )
    return {
        "subject": caller.principal.subject,
        "reachable": sorted(status.service for status in answer.services if status.reachable),
    }


def facade(address: str, token: str) -> "dict[str, object]":
    """A file put, a job on it, its log, an error's details; then asynchronously its state."""
    source = "LFN:/local/oldest/in"
    with gridlane.Client(address, token=token) as client:
        client.storage.put(b"old", source, overwrite=True)
        job = gridlane.new_job("cat in", inputs={"in": source})
        task = client.tasks.wait(client.tasks.submit(job).name, timeout=TIMEOUT_SECONDS)
        log = b"".join(client.jobs.log(task.name))
        (unknown,) = client.replicas.resolve([source + "-none"])
        try:
            client.jobs.submit(gridlane.new_job("true", inputs={"../up": source}))
            violations = []
        except gridlane.InvalidArgument as error:
            violations = [violation.field for violation in error.violations]

    async def state() -> int:
        async with gridlane.AsyncClient(address, token=token) as again:
            return (await again.jobs.get(task.name)).state

    return {
        "log": log.decode(),
        "unknown": getattr(unknown, "reason", ""),
        "violations": violations,
        "states": [task.job.state, asyncio.run(state())],
    }


def main() -> None:
    verb, *arguments = sys.argv[1:]
    verbs = {"call": call, "facade": facade}
    result = {"options": option_bytes()} if verb == "stubs" else verbs[verb](*arguments)
    versions = {name: version(name) for name in ("protobuf", "grpcio")}
    print(json.dumps({"versions": versions, **result}))


if __name__ == "__main__":
    main()
