"""Generated from the contracts of gridlane.type.v1."""
