"""Where each field of a foreign job goes: the reviewed rows, and what is wrong with them.

Responsible for the files `*.toml` beside it, one a package: for each function or class a table, for
each field a row. A row says one of

    carried = "workload.v1.JobInput.source"         it has a place of its own
    derived = ["workload.v1.JobInput.access"]       it follows from these, `how` says in which way
    refused = "Gridlane sends no mail"              it has none, and why

`how` may stand beside "carried" too, where the value does not go over as it is.
"""

import importlib
import pkgutil
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from contract.shapes.foreign import Shape
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pool import DescriptorPool

import gridlane

KINDS: Final = ("carried", "derived", "refused")


@dataclass(frozen=True)
class Row:
    """Where a field goes.

    Parameters:
        kind: one of `KINDS`.
        targets: fields and enum values of our contract, without "gridlane.".
        why: in which way, or why not; may be empty for what is carried.
    """

    kind: str
    targets: Sequence[str]
    why: str

    def __str__(self) -> str:
        where = ", ".join(self.targets)
        return f"{self.kind:8}{where}{' — ' if where and self.why else ''}{self.why}"


Rows = Mapping[str, Mapping[str, Row]]
"""Of one package: functions or classes, and their fields' rows."""


def read(package: str) -> Rows:
    """The rows of a package.

    Raises:
        ValueError: a row is not of the form.
    """
    path = Path(__file__).with_name(f"{package}.toml")
    return {
        group: {field: _row(f"{group}.{field}", told) for field, told in rows.items()}
        for group, rows in tomllib.loads(path.read_text()).items()
    }


def _row(name: str, told: dict[str, Any]) -> Row:
    match told:
        case {"carried": str(target), **rest} if not rest or rest.keys() == {"how"}:
            return Row("carried", (target,), rest.get("how", ""))
        case {"derived": [*targets], "how": str(why)} if targets and why and len(told) == 2:
            return Row("derived", targets, why)
        case {"refused": str(why)} if why and len(told) == 1:
            return Row("refused", (), why)
        case _:
            raise ValueError(f"{name} is no row: {told}")


def faults(shape: Shape, rows: Rows, pool: DescriptorPool) -> Iterator[str]:
    """What is wrong with the rows of a package.

    Parameters:
        shape: what the package has.
        pool: our contract.
    """
    theirs = {f"{group}.{field}" for group, fields in shape.items() for field in fields}
    ours = {f"{group}.{field}": row for group, of in rows.items() for field, row in of.items()}
    for name in sorted(theirs - ours.keys()):
        yield f"{name} has no row: where does it go?"
    for name in sorted(ours.keys() - theirs):
        yield f"{name} is in no version that is installed"
    for name, row in ours.items():
        for target in row.targets:
            if not exists(target, pool):
                yield f"{name} goes to {target}, which the contract does not have"


def exists(target: str, pool: DescriptorPool) -> bool:
    """Whether the contract has such a field or such a value of an enum."""
    holder, _, name = f"gridlane.{target}".rpartition(".")
    try:
        return name in pool.FindMessageTypeByName(holder).fields_by_name
    except KeyError:
        pass
    try:
        return name in pool.FindEnumTypeByName(holder).values_by_name
    except KeyError:
        return False


def contract() -> DescriptorPool:
    """All of our contract, as the client package has it."""
    for module in pkgutil.walk_packages(gridlane.__path__, "gridlane."):
        if module.name.endswith("_pb2"):
            importlib.import_module(module.name)
    return descriptor_pool.Default()


def counts(rows: Rows) -> Counter[str]:
    """How many fields are carried, derived and refused."""
    return Counter(row.kind for of in rows.values() for row in of.values())
