"""Sizes, times and durations, as people write and read them.

Responsible for both directions; knows no command.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeVar, overload

import typer

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.timestamp_pb2 import Timestamp

_Value = TypeVar("_Value")

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)
_EXPONENTS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_PART = re.compile(r"(\d+(?:\.\d+)?)(d|h|m|s)")
_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


def parse_size(text: str) -> int:
    """Bytes, from "512M", "2G", "1.5GiB", "1000"; the letters are powers of 1024.

    Raises:
        ValueError: it is not a size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size: expected for example 512M or 2G")
    factor: int = 1024 ** _EXPONENTS[match[2].upper()]
    return round(float(match[1]) * factor)


def parse_duration(text: str) -> timedelta:
    """A duration, from "90" (seconds), "30s", "5m", "1h30m", "2d".

    Raises:
        ValueError: it is not a duration, or 0.
    """
    compact = text.strip().lower().replace(" ", "")
    if re.fullmatch(r"\d+(\.\d+)?", compact):
        compact += "s"
    parts = _PART.findall(compact)
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != compact or seconds <= 0:
        raise ValueError(f"{text!r} is not a duration: expected for example 90s, 5m or 1h30m")
    return timedelta(seconds=seconds)


@overload
def parse_option(option: str, text: str, parse: Callable[[str], _Value]) -> _Value: ...
@overload
def parse_option(
    option: str, text: str | None, parse: Callable[[str], _Value]
) -> _Value | None: ...
def parse_option(option: str, text: str | None, parse: Callable[[str], _Value]) -> _Value | None:
    """What an option of the command says; None when it was not given.

    Parameters:
        option: its name, "--for".
        text: as it was given.
        parse: one of the functions above.

    Raises:
        typer.BadParameter: it has not that form.
    """
    try:
        return None if text is None else parse(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option}: {error}") from error


def size(count: float) -> str:
    """ "1.5 MiB"."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("the last unit takes all")


def rate(bytes_per_second: float) -> str:
    """ "1.5 MiB/s"; empty when it is 0."""
    return f"{size(bytes_per_second)}/s" if bytes_per_second else ""


def count(number: int, thing: str) -> str:
    """ "1 file", "2 files"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def duration(seconds: float) -> str:
    """ "1 h 02 min", "3 min 05 s", "4.21 s", "12 ms"."""
    if seconds < 0.1:
        return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"
    if seconds < 59.5:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def seconds_of(value: Duration | Timestamp) -> float:
    """Seconds, of a message's duration or since 1970."""
    return value.seconds + value.nanos / 1e9


def local_time(value: Timestamp) -> str:
    """ "2026-01-31 12:00:00" in the local time zone; empty when it is unset."""
    if not value.seconds:
        return ""
    return datetime.fromtimestamp(value.seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def short_time(value: Timestamp) -> str:
    """ "12:00:00" of today, "2026-01-31" of another day; empty when it is unset."""
    text = local_time(value)
    today = datetime.now().astimezone().strftime("%Y-%m-%d ")
    return text.removeprefix(today) if text.startswith(today) else text[:10]
