"""Backends: what really moves files. `base` is the interface, each subpackage one
implementation.
"""
