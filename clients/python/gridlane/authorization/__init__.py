"""Generated from the contracts of gridlane.authorization."""
