"""Generated from the contracts of gridlane.transfer.v1."""
