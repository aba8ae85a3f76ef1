"""Who may import whom is held by import-linter, and its rules can fail."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


def lint_imports(run: Run, tree: Path) -> subprocess.CompletedProcess[str]:
    """Judges a tree by its own rules, reading its own packages rather than the installed ones."""
    path = f"{tree / 'services'}:{tree / 'clients/python'}"
    return run(tree, "lint-imports", "--no-cache", env={"PYTHONPATH": path})


def folders_without_marker(*packages: Path) -> Iterator[Path]:
    """Folders with Python code and no `__init__.py`, in which import-linter would see nothing."""
    for package in packages:
        for folder in sorted({path.parent for path in package.rglob("*.py")}):
            if not (folder / "__init__.py").exists():
                yield folder


def packages(tree: Path) -> list[Path]:
    return [*(tree / "services").glob("gridlane_*"), tree / "clients/python/gridlane"]


def test_the_imports_keep_the_rules(root: Path, run: Run) -> None:
    result = lint_imports(run, root)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("package", "imported", "broken"),
    [
        ("gridlane_transfer", "gridlane_workload", "The services do not import each other"),
        ("gridlane_kit", "gridlane_transfer", "Assembly stands on services"),
        ("gridlane_reporting", "gridlane_server", "Assembly stands on services"),
        ("gridlane", "gridlane_kit", "Assembly stands on services"),
        ("gridlane", "sqlalchemy", "The client needs nothing of the servers"),
        ("gridlane_gateway", "sqlalchemy", "The gateway has no database"),
    ],
)
def test_a_planted_import_is_found(
    tree: Path, run: Run, package: str, imported: str, broken: str
) -> None:
    parent = tree / ("clients/python" if package == "gridlane" else "services")
    (parent / package / "planted.py").write_text(f"import {imported}\n")
    result = lint_imports(run, tree)
    assert result.returncode != 0
    assert f"{package}.planted" in result.stdout
    assert f"{broken}" in result.stdout.partition("Broken contracts")[2]


def test_every_folder_of_code_is_a_package(root: Path) -> None:
    assert not list(folders_without_marker(*packages(root)))


def test_a_folder_that_is_no_package_is_found(tree: Path) -> None:
    hidden = tree / "services/gridlane_kit/hidden"
    hidden.mkdir()
    (hidden / "module.py").write_text("import gridlane_workload\n")
    assert list(folders_without_marker(*packages(tree))) == [hidden]
