"""A plugin that wants words alone loads no client with them."""

import subprocess
import sys

LOAD = """
import sys
import gridlane.vocabularies.jobs
import gridlane.vocabularies.priorities
import gridlane.vocabularies.transfers
import gridlane.vocabularies.workflows
print(*sys.modules)
"""


def test_the_vocabularies_load_nothing_but_the_generated_enums() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOAD], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = done.stdout.split()
    assert "gridlane.vocabularies.transfers" in loaded
    assert [name for name in loaded if name.partition(".")[0] in ("grpc", "pydantic")] == []
    modules = [name for name in loaded if name.startswith("gridlane.") and name.count(".") == 1]
    assert sorted(modules) == [
        "gridlane.transfer",
        "gridlane.type",
        "gridlane.vocabularies",
        "gridlane.workload",
    ]
