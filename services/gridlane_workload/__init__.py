"""The workload service: jobs, their lives, and the backends that run their payloads.

Import-light on purpose: the shim of the embedded backend starts from inside this package.
"""
