"""The command `gridlane`, for people: one module for each noun, over the client facade.

Responsible for options, tables, progress and exit codes; what is done is done by `gridlane.Client`.
Needs the extra `cli` (typer, rich). Modules import the facade inside their functions, so that
`gridlane --help` answers at once.
"""
