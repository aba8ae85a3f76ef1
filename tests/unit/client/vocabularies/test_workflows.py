"""Workflows and their nodes in the words of BPS, row by row."""

import pytest

from gridlane.vocabularies import workflows
from gridlane.workload.v1.workflow_pb2 import WorkflowState
from gridlane.workload.v1.workflow_report_pb2 import WorkflowNodeState

# state | not held | held
WORKFLOWS = """
SUBMITTING | READY     | HELD
RECEIVED   | READY     | HELD
RUNNING    | RUNNING   | HELD
FINISHING  | RUNNING   | HELD
CANCELING  | DELETED   | DELETED
SUCCEEDED  | SUCCEEDED | SUCCEEDED
FAILED     | FAILED    | FAILED
CANCELED   | DELETED   | DELETED
"""
NODES = """
UNKNOWN   | UNKNOWN
UNREADY   | UNREADY
READY     | READY
PENDING   | PENDING
RUNNING   | RUNNING
HELD      | HELD
SUCCEEDED | SUCCEEDED
FAILED    | FAILED
CANCELED  | DELETED
PRUNED    | PRUNED
"""


def rows(table: str) -> list[tuple[str, ...]]:
    return [tuple(map(str.strip, line.split("|"))) for line in table.strip().splitlines()]


@pytest.mark.parametrize(("state", "free", "held"), rows(WORKFLOWS))
def test_a_workflow_is_called_what_the_table_says(state: str, free: str, held: str) -> None:
    number = WorkflowState.Value(f"WORKFLOW_STATE_{state}")
    assert workflows.bps_state(number, held=False) == free
    assert workflows.bps_state(number, held=True) == held


@pytest.mark.parametrize(("state", "word"), rows(NODES))
def test_a_node_is_called_what_the_table_says(state: str, word: str) -> None:
    assert workflows.bps_node_state(WorkflowNodeState.Value(f"WORKFLOW_NODE_STATE_{state}")) == word


def test_the_tables_have_every_state_of_the_contract() -> None:
    assert [0, *workflows.BPS] == sorted(WorkflowState.values())
    assert [0, *workflows.NODE_BPS] == sorted(WorkflowNodeState.values())
    assert len(rows(WORKFLOWS)) == len(workflows.BPS)
    assert len(rows(NODES)) == len(workflows.NODE_BPS)


def test_a_state_of_a_later_version_is_a_misfit_and_none_is_unknown() -> None:
    for state, word in ((0, "UNKNOWN"), (9999, "MISFIT"), (-1, "MISFIT")):
        for held in (False, True):
            assert workflows.bps_state(WorkflowState.ValueType(state), held=held) == word
        assert workflows.bps_node_state(WorkflowNodeState.ValueType(state)) == word
