"""What foreign packages call the parts of their jobs, read from their installed source.

Responsible for lists of fields and parameters, as the packages declare them; nothing is retyped
here. The source is read, not imported: importing would need what the packages depend on (a compiled
M2Crypto, the data butler of the Rubin Observatory), none of which says more about these lists.

A field is a parameter of a function, an annotated or `attrib()` attribute of a class, one that its
`__init__` gives it, a property, or a member of an enum.
"""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

Shape = dict[str, list[str]]
"""Of one package: functions or classes, and what they have."""

_BPS: Final = (
    "GenericWorkflow",
    "GenericWorkflowFile",
    "GenericWorkflowGroup",
    "GenericWorkflowJob",
    "GenericWorkflowNoopJob",
)
_CLASS_AD_READERS: Final = ("Attribute", "getListFromExpression")


def shapes(site_packages: Path) -> dict[str, Shape]:
    """The lists of every package.

    Parameters:
        site_packages: where the packages are installed.
    """
    bps = site_packages / "lsst/ctrl/bps"
    submission = Source(site_packages / "fts3/rest/client/easy/submission.py")
    tes = Source(site_packages / "tes/models.py")
    report = Source(bps / "wms_service.py")
    return {
        "fts3": {
            name: submission.parameters(name)
            for name in ("new_transfer", "new_job", "new_staging_job")
        },
        "lsst-ctrl-bps": {
            **Source(bps / "generic_workflow.py").classes_from(_BPS),
            **report.classes_from(["WmsRunReport"]),
        },
        "diraccommon": _dirac(site_packages / "DIRACCommon"),
        "py-tes": tes.classes_from(["Task"]),
    }


def _dirac(package: Path) -> Shape:
    workload = package / "WorkloadManagementSystem"
    model = Source(workload / "Utilities/JobModel.py").classes_from(["JobDescriptionModel"])
    handled = [
        name
        for path in ("DB/JobDBUtils.py", "Utilities/ParametricJob.py")
        for name in Source(workload / path).class_ad_attributes()
    ]
    constants = Source(package / "Core/Utilities/JDL.py").constants()
    return {**model, "JDL": sorted({*constants, *handled})}


@dataclass(frozen=True)
class Source:
    """A module's source."""

    path: Path

    @cached_property
    def _tree(self) -> ast.Module:
        return ast.parse(self.path.read_text())

    @cached_property
    def _classes(self) -> dict[str, ast.ClassDef]:
        return {node.name: node for node in self._tree.body if isinstance(node, ast.ClassDef)}

    def parameters(self, function: str) -> list[str]:
        """A function's parameters, and the keys that it reads by name: of `**kwargs`, of items."""
        (found,) = (
            node
            for node in self._tree.body
            if isinstance(node, ast.FunctionDef) and node.name == function
        )
        arguments = found.args
        names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        return list(dict.fromkeys([*names, *_keys_read(found)]))

    def classes_from(self, roots: Sequence[str]) -> Shape:
        """The fields of classes, and of those of the same module that their fields lead to."""
        found: Shape = {}
        waiting = list(roots)
        while waiting:
            name = waiting.pop(0)
            if name in found:
                continue
            fields = dict(self._fields(self._classes[name]))
            found[name] = list(fields)
            for told in fields.values():
                waiting.extend(other for other in _names(told) if other in self._classes)
        return found

    def constants(self) -> list[str]:
        """The values of the module's string constants."""
        return [
            node.value.value
            for node in self._tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ]

    def class_ad_attributes(self) -> Iterator[str]:
        """The attributes of a job's ClassAd that the module names: in a call, or in a loop."""
        for node in ast.walk(self._tree):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr=method), args=[ast.Constant(value=str(name)), *_]
                ) if any(reader in method for reader in _CLASS_AD_READERS):
                    yield name
                case ast.For(iter=ast.List(elts=elements)):
                    yield from (str(e.value) for e in elements if isinstance(e, ast.Constant))
                case ast.Assign(
                    targets=[ast.Name(id="attribute")], value=ast.Constant(value=str(name))
                ):
                    yield name

    def _fields(self, declared: ast.ClassDef) -> Iterator[tuple[str, list[ast.AST]]]:
        """Fields by name, inherited ones first, each with what tells of its type."""
        bases = [_last(base) for base in declared.bases]
        for base in bases:
            if base in self._classes:
                yield from self._fields(self._classes[base])
        is_enum = any(base.endswith("Enum") for base in bases)
        for node in declared.body:
            match node:
                case ast.AnnAssign(target=ast.Name(id=name), annotation=told):
                    if "ClassVar" not in _names([told]):
                        yield name, [told]
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    if is_enum or (isinstance(value, ast.Call) and _last(value.func) == "attrib"):
                        yield name, [value]
                case ast.FunctionDef(name="__init__", body=body):
                    yield from _given_to_self(body)
                case ast.FunctionDef(name=name, decorator_list=[ast.Name(id="property")]):
                    yield name, [node.returns] if node.returns else []
                case _:
                    pass


def _given_to_self(body: Sequence[ast.stmt]) -> Iterator[tuple[str, list[ast.AST]]]:
    for node in body:
        match node:
            case ast.AnnAssign(
                target=ast.Attribute(value=ast.Name(id="self"), attr=name), annotation=told
            ):
                yield name, [told]
            case ast.Assign(targets=[ast.Attribute(value=ast.Name(id="self"), attr=name)]):
                yield name, []
            case _:
                pass


def _keys_read(function: ast.FunctionDef) -> Iterator[str]:
    for node in ast.walk(function):
        match node:
            case ast.Subscript(slice=ast.Constant(value=str(key)), ctx=ast.Load()):
                yield key
            case _:
                pass


def _names(told: Sequence[ast.AST]) -> Iterator[str]:
    """The names in an annotation or a call, also those in an annotation that is a string."""
    for root in told:
        for node in ast.walk(root):
            match node:
                case ast.Name(id=name):
                    yield name
                case ast.Constant(value=str(text)):
                    yield from text.replace("|", " ").split()
                case _:
                    pass


def _last(expression: ast.expr) -> str:
    return ast.unparse(expression).rpartition(".")[2]
