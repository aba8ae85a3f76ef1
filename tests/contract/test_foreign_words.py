"""The vocabularies have the words of the released packages, read from their source."""

import ast
from pathlib import Path
from typing import get_args

import pytest
from contract.shapes.foreign import Source

from gridlane.vocabularies import jobs


@pytest.fixture(scope="session")
def site_packages(foreign_packages: Path) -> Path:
    (found,) = foreign_packages.glob("lib/python*/site-packages")
    return found


def words_of_tes(source: Path) -> set[str]:
    """The words that py-tes takes for the state of a Task."""
    declared = (
        node
        for task in ast.parse(source.read_text()).body
        if isinstance(task, ast.ClassDef) and task.name == "Task"
        for node in task.body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "state"
    )
    return {
        str(element.value)
        for node in declared
        for words in ast.walk(node)
        if isinstance(words, ast.List)
        for element in words.elts
        if isinstance(element, ast.Constant)
    }


def test_bps_has_our_words_and_no_other(site_packages: Path) -> None:
    states = Source(site_packages / "lsst/ctrl/bps/wms_service.py").classes_from(["WmsStates"])
    assert sorted(states["WmsStates"]) == sorted(get_args(jobs.BpsState))


def test_dirac_has_our_states_and_no_other(site_packages: Path) -> None:
    client = site_packages / "DIRACCommon/WorkloadManagementSystem/Client"
    words = Source(client / "JobStatus.py").constants()
    assert sorted(words) == sorted(jobs.DIRAC.values())


def test_tes_has_our_words(site_packages: Path) -> None:
    words = words_of_tes(site_packages / "tes/models.py")
    # PREEMPTED: we say SYSTEM_ERROR, and the failure's class why.
    assert words - set(get_args(jobs.TesState)) == {"PREEMPTED"}
    assert set(get_args(jobs.TesState)) <= words
