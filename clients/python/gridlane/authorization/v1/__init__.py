"""Generated from the contracts of gridlane.authorization.v1."""
