"""The measured targets: one program a row, one table for all (`make bench`).

Responsible for measuring what Gridlane promises about cost and speed. Nothing here is a test of
the suite: a target that is not met is shown with its figure, and fails nothing. The rows stand in
`benchmarks.rows`.
"""

import os

# The program starts processes while it has connections open: gRPC need not get ready for that,
# since they are other programs. It says so on every start unless it is told before it is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
