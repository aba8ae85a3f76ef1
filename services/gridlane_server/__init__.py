"""The assembly: which rooms a process has, and the `gridlane-server` command.

The one package that imports all services. Rooms: `cli` (the command) · `assembly` (the embedded
server) · `configuration` (what is in force) · `schema` (bringing databases up to date).
"""
