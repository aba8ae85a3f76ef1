"""Channels: their rules and settings, the shares on them, and which file starts next."""
