"""Generated from the contracts of gridlane.reporting."""
