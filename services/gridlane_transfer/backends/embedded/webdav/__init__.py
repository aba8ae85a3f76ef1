"""Files over HTTP and WebDAV: read, written, removed, and copied between two storages.

`client` speaks HTTP to checked `addresses`; `reading`, `writing` and `third_party` are what is done
with files; `meanings` says what a failure is to a transfer. Runs in the mover's worker processes
and, for single requests, in threads of the server. Standard library only.
"""
