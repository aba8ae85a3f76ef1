"""The assembly: which rooms a process has, and the `gridlane-server` command.

The one package that imports all services. Rooms: `cli` (the command) · `assembly` (the embedded
server) · `configuration` (what is in force) · `schema` (bringing databases up to date).
"""

import os

# The server starts other programs while it has connections open. gRPC need not get ready for a
# fork, and says so on every start unless it is told before it is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
