"""Generated from the contracts of gridlane.reporting.v1."""
