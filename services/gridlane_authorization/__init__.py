"""Who may do what, and who is who: role bindings, the policy, Gridlane's own tokens.

Rooms: `service` (the gRPC shells) · `policy` (bindings in and out of the kit's form) · `tokens`
(the signing key, the local user's token) · `store` (tables and statements) · `room` (start and
stop) · `settings`. The decision itself is a pure function of the kit: services decide in process,
nobody asks here once per call.
"""
