"""Our messages can carry other systems' jobs: every field of theirs has a place, or a reason.

The fields are read from the installed packages (`foreign`), where they go from reviewed files
(`rows`); the run prints them all.
"""

import json
import subprocess
from pathlib import Path

import pytest
from contract.shapes import foreign, rows
from contract.shapes.foreign import Shape, Source
from google.protobuf.descriptor_pool import DescriptorPool

PACKAGES = ["fts3", "lsst-ctrl-bps", "diraccommon", "py-tes"]
# Runs where the packages are: a module that needs nothing, taken by its path, tells its own fields.
TOLD_BY_PYTHON = """
import dataclasses, importlib.util, json, sys
spec = importlib.util.spec_from_file_location("wms_service", sys.argv[1])
module = sys.modules["wms_service"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
names = lambda cls: [field.name for field in dataclasses.fields(cls)]
print(json.dumps({
    "WmsRunReport": names(module.WmsRunReport),
    "WmsJobReport": names(module.WmsJobReport),
    "WmsStates": [state.name for state in module.WmsStates],
}))
"""


@pytest.fixture(scope="session")
def site_packages(foreign_packages: Path) -> Path:
    (found,) = foreign_packages.glob("lib/python3.*/site-packages")
    return found


@pytest.fixture(scope="session")
def shapes(site_packages: Path) -> dict[str, Shape]:
    return foreign.shapes(site_packages)


@pytest.fixture(scope="session")
def pool() -> DescriptorPool:
    return rows.contract()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_foreign_field_is_carried_derived_or_refused(
    package: str,
    shapes: dict[str, Shape],
    pool: DescriptorPool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    placed = rows.read(package)
    counts = rows.counts(placed)
    with capsys.disabled():
        told = ", ".join(f"{counts[kind]} {kind}" for kind in rows.KINDS)
        print(f"\n{package}: {counts.total()} fields, {told}")
        for group, fields in placed.items():
            for field, row in fields.items():
                print(f"  {group}.{field}: {row}")
    assert not list(rows.faults(shapes[package], placed, pool))


def test_all_packages_are_looked_at(shapes: dict[str, Shape]) -> None:
    assert list(shapes) == PACKAGES
    assert all(fields for shape in shapes.values() for fields in shape.values())


def test_what_is_read_from_the_source_is_what_python_says(
    foreign_packages: Path, site_packages: Path, shapes: dict[str, Shape]
) -> None:
    module = site_packages / "lsst/ctrl/bps/wms_service.py"
    told = subprocess.run(
        [foreign_packages / "bin/python", "-c", TOLD_BY_PYTHON, module],
        capture_output=True,
        text=True,
        check=True,
    )
    for name, fields in json.loads(told.stdout).items():
        assert shapes["lsst-ctrl-bps"][name] == fields


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param(
            "class A(Z):\n  b: list['B'] = []\n  c: ClassVar[int] = 1\nclass B:\n  d: int\n"
            "class Z:\n  a: int",
            {"A": ["a", "b"], "B": ["d"]},
            id="annotated and inherited",
        ),
        pytest.param(
            "class A:\n  a = attrib(validator=list_of(B))\n  n = 1\nclass B:\n  b = attrib()",
            {"A": ["a"], "B": ["b"]},
            id="attrs",
        ),
        pytest.param(
            "class A:\n  def __init__(self):\n    self.a = 1\n    self.b: int = 2\n"
            "  @property\n  def c(self): return 3\n  def d(self): return 4",
            {"A": ["a", "b", "c"]},
            id="given to self, property",
        ),
        pytest.param(
            "class A:\n  s: S\nclass S(IntEnum):\n  X = auto()",
            {"A": ["s"], "S": ["X"]},
            id="enum",
        ),
    ],
)
def test_the_reader_sees_every_kind_of_field(tmp_path: Path, source: str, expected: Shape) -> None:
    path = tmp_path / "module.py"
    path.write_text(source)
    assert Source(path).classes_from(["A"]) == expected


def test_the_reader_sees_parameters_and_keys(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("def f(a, /, b=1, *, c, **kwargs):\n  t = {}\n  t['x'] = kwargs['d']")
    assert Source(path).parameters("f") == ["a", "b", "c", "d"]


def test_a_field_without_a_row_is_found(shapes: dict[str, Shape], pool: DescriptorPool) -> None:
    grown = {**shapes["py-tes"], "Task": [*shapes["py-tes"]["Task"], "deadline"]}
    (fault,) = rows.faults(grown, rows.read("py-tes"), pool)
    assert fault.startswith("Task.deadline has no row")


def test_a_row_without_a_field_is_found(shapes: dict[str, Shape], pool: DescriptorPool) -> None:
    shrunk = {**shapes["py-tes"], "Task": shapes["py-tes"]["Task"][1:]}
    (fault,) = rows.faults(shrunk, rows.read("py-tes"), pool)
    assert fault.startswith("Task.id is in no version")


@pytest.mark.parametrize(
    "target", ["workload.v1.Job.colour", "workload.v1.Jobs.name", "workload.v1.JobState.DONE"]
)
def test_a_place_that_the_contract_does_not_have_is_found(
    target: str, pool: DescriptorPool
) -> None:
    placed = {"Task": {"id": rows.Row("carried", (target,), "")}}
    (fault,) = rows.faults({"Task": ["id"]}, placed, pool)
    assert target in fault
