"""What the options of `gridlane storage create` and `update` say, as a storage element's settings.

Responsible for the options that both have, and for which fields they name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gridlane.cli import units

if TYPE_CHECKING:
    from gridlane.transfer.v1.storage_element_pb2 import StorageElement

_AccessWord = Literal["active", "degraded", "probing"]

Endpoints = Annotated[
    list[str] | None,
    typer.Option(
        "--endpoint",
        metavar="URL[=OPERATIONS]",
        help="A base URL, and what it is used for, as https://se.example.org/data=read,check."
        " Several times, in order of preference.",
    ),
]
VoPaths = Annotated[
    list[str] | None,
    typer.Option(
        "--vo-path",
        metavar="VO=/PATH",
        help="Where a VO's files lie, as atlas=/atlas. Several times for several VOs.",
    ),
]
Site = Annotated[str | None, typer.Option(help="The site that it stands at.")]
Description = Annotated[str | None, typer.Option(help="What it is for.")]
Access = Annotated[_AccessWord | None, typer.Option(help="What it may be used for.")]
Sums = Annotated[
    list[str] | None,
    typer.Option(
        help="A checksum that it computes, as ADLER32 or MD5; several times for several.",
        autocompletion=lambda incomplete: _beginning(incomplete, _checksum_words()),
    ),
]
StandsInFor = Annotated[
    list[str] | None,
    typer.Option(metavar="ELEMENT", help="One that it stands in for; several times for several."),
]
Limit = Annotated[int | None, typer.Option(min=0, help="Files at once; 0: no limit.")]
Rate = Annotated[
    str | None, typer.Option(metavar="BYTES", help="Bytes in a second, as 100M; 0: no limit.")
]


def operations_given(option: str, words: Sequence[str] | None) -> list[str]:
    """What an option names of storage operations, each a word that is one.

    Raises:
        typer.BadParameter: one is none.
    """
    from gridlane.storage_words import operations_of

    for word in words or ():
        units.parse_option(option, word, lambda text: operations_of([text]))
    return list(words or ())


def complete_operation(incomplete: str) -> list[str]:
    """The storage operations that begin so."""
    from gridlane.states import enum_words
    from gridlane.transfer.v1.storage_element_pb2 import StorageOperation

    return _beginning(incomplete, enum_words(StorageOperation, "STORAGE_OPERATION_"))


def _checksum_words() -> list[str]:
    from gridlane.states import enum_words
    from gridlane.type.v1.checksum_pb2 import ChecksumType

    return enum_words(ChecksumType, "CHECKSUM_TYPE_")


def _beginning(incomplete: str, words: Sequence[str]) -> list[str]:
    return [word.lower() for word in words if word.startswith(incomplete.upper())]


def settings_of(options: Mapping[str, Any]) -> tuple[StorageElement, list[str]]:
    """What the options of a command ask for: the settings, and the fields that they name.

    Parameters:
        options: the command's, by name; None: not given.

    Raises:
        typer.BadParameter: one has not its form.
    """
    from gridlane.storage_words import access_of, checksums_of
    from gridlane.transfer.v1.storage_element_pb2 import StorageElement

    settings = StorageElement()
    plain = {name: options[name] for name in ("site", "description", "draining")}
    for name, value in plain.items():
        if value is not None:
            setattr(settings, name, value)
    for operation in ("read", "write"):
        if (word := options[operation]) is not None:
            setattr(settings.access, operation, access_of(word))
            plain[f"access.{operation}"] = word
    limits = {
        "max_active_in": options["max_active_in"],
        "max_active_out": options["max_active_out"],
        "max_bandwidth_in_bytes_per_second": units.parse_option(
            "--max-rate-in", options["max_rate_in"], units.parse_size
        ),
        "max_bandwidth_out_bytes_per_second": units.parse_option(
            "--max-rate-out", options["max_rate_out"], units.parse_size
        ),
    }
    for name, limit in limits.items():
        if limit is not None:
            setattr(settings.limits, name, limit)
            plain[f"limits.{name}"] = limit
    settings.checksum_types.extend(
        units.parse_option("--checksum", word, lambda text: checksums_of([text])[0])
        for word in options["checksum"] or ()
    )
    settings.failover_for.extend(_element(name) for name in options["failover_for"] or ())
    for given in options["endpoint"] or ():
        _add_endpoint(settings, given)
    for given in options["vo_path"] or ():
        vo, equals, path = given.partition("=")
        if not (equals and vo and path.startswith("/")):
            raise typer.BadParameter(f"--vo-path: {given!r} is not like atlas=/atlas")
        settings.vo_paths[vo] = path
    lists = {
        "checksum_types": options["checksum"],
        "failover_for": options["failover_for"],
        "endpoints": options["endpoint"],
        "vo_paths": options["vo_path"],
    }
    return settings, [name for name, value in {**plain, **lists}.items() if value is not None]


def _add_endpoint(settings: StorageElement, given: str) -> None:
    from gridlane.storage_words import operations_of

    base_url, equals, words = given.rpartition("=")
    if not equals:
        base_url, words = given, ""
    if "://" not in base_url:
        raise typer.BadParameter(f"--endpoint: {given!r} is not like https://se.example.org/data")
    operations = units.parse_option(
        "--endpoint", words, lambda text: operations_of([one for one in text.split(",") if one])
    )
    settings.endpoints.add(base_url=base_url.rstrip("/"), operations=operations)


def _element(name: str) -> str:
    return name if name.startswith("storageElements/") else f"storageElements/{name}"
