"""What runs payloads. The interface is `interface`; each backend has a folder of its own.

Import-light on purpose: the shim of the embedded backend starts from inside this package.
"""
