"""Alembic's environment; what it does is the same for every service."""

from gridlane_kit.migrations import run_environment

run_environment()
