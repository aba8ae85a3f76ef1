"""Generated from the contracts of gridlane.workload.v1."""
