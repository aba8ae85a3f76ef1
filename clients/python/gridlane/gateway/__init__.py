"""Generated from the contracts of gridlane.gateway."""
