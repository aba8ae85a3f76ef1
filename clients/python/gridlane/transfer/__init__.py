"""Generated from the contracts of gridlane.transfer."""
