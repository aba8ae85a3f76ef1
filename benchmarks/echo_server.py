"""The reference: a bare `grpc.aio` server with one method that answers what it was sent.

Responsible for nothing but being what every gRPC server in Python costs at least. It runs on the
event loop that Gridlane's servers use, so that a ratio to it shows Gridlane's own work alone.
"""

import asyncio
import json
from typing import Final

import grpc
import uvloop
from grpc import aio

SERVICE: Final = "benchmarks.Echo"
PATH: Final = f"/{SERVICE}/Echo"


async def _echo(request: bytes, _context: "aio.ServicerContext[bytes, bytes]") -> bytes:
    return request


async def _serve() -> None:
    server = aio.server()
    server.add_registered_method_handlers(
        SERVICE, {"Echo": grpc.unary_unary_rpc_method_handler(_echo)}
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"address": f"127.0.0.1:{port}"}), flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve())
