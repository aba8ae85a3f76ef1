"""The embedded backend: payloads as processes of this machine, each under a shim that outlives the
server.

Import-light on purpose: the shim starts from inside this package.
"""
