"""The bytes of files: put, got, described and deleted through the service."""
