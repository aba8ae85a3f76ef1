"""Where tests have their databases: in memory, where it has the room.

What is done with them stays the same: they sync what they commit, and a process that dies takes
none of it along. Only that nobody waits for a disk. Not for the files that are moved: some are
larger than any memory.
"""

import os
import shutil
from pathlib import Path
from typing import Final

import psutil

_MEMORY: Final = Path("/dev/shm")


def folder(room_bytes: int) -> Path | None:
    """The folder in memory for files of so many bytes; None where temporary files are otherwise."""
    try:
        free = shutil.disk_usage(_MEMORY).free
    except OSError:
        return None
    room = min(free, psutil.virtual_memory().available) >= room_bytes
    return _MEMORY if room and os.access(_MEMORY, os.W_OK) else None
