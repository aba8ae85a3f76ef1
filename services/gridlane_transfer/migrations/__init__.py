"""The service's migrations; `gridlane_kit.migrations` writes and runs them."""
