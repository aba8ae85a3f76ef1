"""UUIDv7 ids (RFC 9562): what every Gridlane id and `request_id` is.

Responsible for making ids that sort by time and for reading the time of one. Knows nothing of what
an id names. Needs the standard library only, since both the client and the services import it.
"""

import os
import re
import threading
import time

_CANONICAL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_RANDOM = 0x3FFF_FFFF_FFFF_FFFF
# Random bytes asked of the system at once: to ask costs more than all the rest of an id.
_ASKED_BYTES = 4096

_lock = threading.Lock()
_last_tick = 0
_random: list[int] = []
if hasattr(os, "register_at_fork"):
    # What is left over is the parent's.
    os.register_at_fork(after_in_child=_random.clear)


def uuid7() -> str:
    """Make an id.

    The 48 bits of milliseconds are followed by 12 bits of the fraction of a millisecond (RFC 9562
    section 6.2, method 3). Ids of one process grow strictly: when the clock stands or goes back,
    the fraction counts on from the last id.

    Returns:
        The canonical text, lower case with hyphens, 36 characters.
    """
    global _last_tick
    tick = (time.time_ns() << 12) // 1_000_000
    with _lock:
        if tick <= _last_tick:
            tick = _last_tick + 1
        _last_tick = tick
        if not _random:
            _random.extend(memoryview(os.urandom(_ASKED_BYTES)).cast("Q"))
        random = _random.pop()
    return _text(tick >> 12, tick & 0xFFF, random & _RANDOM)


def uuid7_time_ms(text: str) -> int:
    """Read the time at which an id was made.

    Parameters:
        text: the id in canonical text.

    Returns:
        Milliseconds since 1970-01-01 UTC, by the clock of whoever made the id.

    Raises:
        ValueError: `text` is not a UUIDv7 in canonical text.
    """
    if not _CANONICAL.fullmatch(text):
        raise ValueError(f"{text!r} is not a UUIDv7 in canonical text (36 characters, lower case)")
    return int(text[:8] + text[9:13], 16)


def uuid7_floor(time_ms: int) -> str:
    """The smallest id of a millisecond, in text: ids made earlier sort below it, later ones above.

    Parameters:
        time_ms: milliseconds since 1970-01-01 UTC, below 2**48.
    """
    return _text(time_ms, 0, 0)


def _text(time_ms: int, fraction: int, random: int) -> str:
    number = (time_ms << 80) | (0x7 << 76) | (fraction << 64) | (0b10 << 62) | random
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
