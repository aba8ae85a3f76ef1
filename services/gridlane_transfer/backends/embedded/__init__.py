"""The embedded mover: copies between `file` storage elements in worker processes of its own.

`mover` runs in the server and hands out work; `worker` is the process that does it, with `copying`
and `places`. What the workers import needs the standard library only.
"""
