"""What was used, and what happened: accounting records, recent spans.

Rooms: `service` (the gRPC shells) · `accounting` (from an event to a record) · `follower` (the
feeds of workload and transfer) · `spans` (the ring of recent spans) · `otlp` (spans that jobs send)
· `store` (tables and statements) · `room` (start and stop) · `settings`. Nothing calls Reporting
upwards: it follows.
"""
