"""What every Gridlane service stands on: server, identity, database, group commit, feed, telemetry.

Responsible for mechanisms, never for a noun of the domain. Imports the client package, no service.
It re-exports nothing: import the module that has the mechanism.
"""
