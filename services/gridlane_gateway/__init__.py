"""Compositions over the other services: one call where a client would need several.

Rooms: `service` (the gRPC shell) · `checks` (what a task needs) · `story` (a task put together) ·
`watch` (its changes) · `ping` · `peers` (whom it calls) · `room` (start and stop) · `settings`. No
state, no database, and nothing that repeats another service.
"""
