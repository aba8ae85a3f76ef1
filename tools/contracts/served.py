"""Which methods of the contracts this version serves, read from the services' own source.

Responsible for one convention: `<Noun>Service` of the package `gridlane.<service>.v1` is served by
the class `<Noun>Shell` somewhere in `services/gridlane_<service>/`, with a method for each rpc that
is served. An rpc without one answers UNIMPLEMENTED (`gridlane_kit/registration.py`).
tests/integration/server/test_served_methods.py asks a real server whether that is so.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from contracts.model import Contract, Method


def unserved(contract: Contract, root: Path) -> list[Method]:
    """The methods that answer UNIMPLEMENTED, in the order of the contract.

    Parameters:
        root: the folder with `services/`.
    """
    served = set(_served(root / "services"))
    return [method for method in contract.methods if method.name not in served]


def unserved_words(contract: Contract, missing: Collection[Method]) -> str:
    """The same as Markdown, one line a package; a service of which nothing is served, by its name.

    Parameters:
        missing: as `unserved` answers.
    """
    if not missing:
        return "Nothing: every method in `protos/` is served."
    gone = {method.name for method in missing}
    whole: dict[str, list[str]] = defaultdict(list)
    parts: dict[str, list[str]] = defaultdict(list)
    for file in contract.files:
        for service in file.services:
            absent = [method.short for method in service.methods if method.name in gone]
            if len(absent) == len(service.methods):
                whole[file.package].append(service.short)
            elif absent:
                parts[file.package].append(f"of {service.short} {', '.join(absent)}")
    lines = [f"{len(gone)} of {len(list(contract.methods))} methods:\n"]
    for package in sorted(whole.keys() | parts.keys()):
        told = [f"all of {', '.join(whole[package])}"] if whole[package] else []
        lines.append(f"* `{package}`: {'; '.join((*told, *parts[package]))}")
    return "\n".join(lines)


def _served(services: Path) -> Iterator[str]:
    for folder in sorted(services.glob("gridlane_*")):
        package = folder.name.removeprefix("gridlane_")
        shells = {node.name: node for node in _shells(folder)}
        for name in shells:
            service = f"gridlane.{package}.v1.{name.removesuffix('Shell')}Service"
            yield from (f"{service}.{method}" for method in _methods(name, shells))


def _shells(folder: Path) -> Iterator[ast.ClassDef]:
    """The classes of a service whose names end with "Shell"."""
    for source in sorted(folder.rglob("*.py")):
        text = source.read_text(encoding="utf-8")
        if "Shell" in text:
            for node in ast.parse(text).body:
                if isinstance(node, ast.ClassDef) and node.name.endswith("Shell"):
                    yield node


def _methods(name: str, shells: Mapping[str, ast.ClassDef]) -> Iterator[str]:
    """The coroutines of a class and of the shells that it is made from."""
    for member in shells[name].body:
        if isinstance(member, ast.AsyncFunctionDef):
            yield member.name
    for base in shells[name].bases:
        if isinstance(base, ast.Name) and base.id in shells:
            yield from _methods(base.id, shells)
