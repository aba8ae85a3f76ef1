"""The states of workflows and their nodes in the words of BPS.

Responsible for what `lsst.ctrl.bps` calls a run and the jobs of its report. What a node's job is
called by itself is in `jobs`. Source: `WmsStates` of lsst.ctrl.bps.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

from gridlane.vocabularies.jobs import BpsState
from gridlane.workload.v1.workflow_pb2 import WorkflowState
from gridlane.workload.v1.workflow_report_pb2 import WorkflowNodeState

State: TypeAlias = WorkflowState.ValueType
NodeState: TypeAlias = WorkflowNodeState.ValueType

_W, _N = WorkflowState, WorkflowNodeState

BPS: Final[Mapping[State, BpsState]] = MappingProxyType(
    {
        _W.WORKFLOW_STATE_SUBMITTING: "READY",
        _W.WORKFLOW_STATE_RECEIVED: "READY",
        _W.WORKFLOW_STATE_RUNNING: "RUNNING",
        _W.WORKFLOW_STATE_FINISHING: "RUNNING",
        _W.WORKFLOW_STATE_CANCELING: "DELETED",
        _W.WORKFLOW_STATE_SUCCEEDED: "SUCCEEDED",
        _W.WORKFLOW_STATE_FAILED: "FAILED",
        _W.WORKFLOW_STATE_CANCELED: "DELETED",
    }
)
"""BPS's word for every state of a workflow that is not held."""

BPS_HELD: Final[Mapping[State, BpsState]] = MappingProxyType(
    {
        _W.WORKFLOW_STATE_SUBMITTING: "HELD",
        _W.WORKFLOW_STATE_RECEIVED: "HELD",
        _W.WORKFLOW_STATE_RUNNING: "HELD",
        _W.WORKFLOW_STATE_FINISHING: "HELD",
    }
)
"""Where BPS says another word of a workflow that is held."""

NODE_BPS: Final[Mapping[NodeState, BpsState]] = MappingProxyType(
    {
        _N.WORKFLOW_NODE_STATE_UNKNOWN: "UNKNOWN",
        _N.WORKFLOW_NODE_STATE_UNREADY: "UNREADY",
        _N.WORKFLOW_NODE_STATE_READY: "READY",
        _N.WORKFLOW_NODE_STATE_PENDING: "PENDING",
        _N.WORKFLOW_NODE_STATE_RUNNING: "RUNNING",
        _N.WORKFLOW_NODE_STATE_HELD: "HELD",
        _N.WORKFLOW_NODE_STATE_SUCCEEDED: "SUCCEEDED",
        _N.WORKFLOW_NODE_STATE_FAILED: "FAILED",
        _N.WORKFLOW_NODE_STATE_CANCELED: "DELETED",
        _N.WORKFLOW_NODE_STATE_PRUNED: "PRUNED",
    }
)
"""BPS's word for every state of a node."""


def bps_state(state: State, *, held: bool) -> BpsState:
    """A workflow's state as BPS says it; MISFIT for one of a later version, UNKNOWN for none.

    Parameters:
        held: whether it has a hold.
    """
    word = BPS.get(state, _unmapped(state))
    return BPS_HELD.get(state, word) if held else word


def bps_node_state(state: NodeState) -> BpsState:
    """A node's state as BPS says it; MISFIT for one of a later version, UNKNOWN for none."""
    return NODE_BPS.get(state, _unmapped(state))


def _unmapped(state: int) -> BpsState:
    return "MISFIT" if state else "UNKNOWN"
