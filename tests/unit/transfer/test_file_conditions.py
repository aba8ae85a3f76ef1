"""The conditions of the partial indexes hold for the states that they are made of."""

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, create_engine, insert, select

from gridlane_transfer.states import (
    BLOCKED,
    DUE,
    FILE_FINAL,
    RUNNING,
    UNFINISHED,
    UNSTARTED,
    FileState,
)
from gridlane_transfer.store.tables import file_in

EVERY = Table("every", MetaData(), Column("state", Integer))


@pytest.mark.parametrize("states", [BLOCKED, DUE, RUNNING, UNFINISHED, UNSTARTED, FILE_FINAL])
def test_a_condition_holds_for_its_states_alone(states: frozenset[FileState]) -> None:
    engine = create_engine("sqlite://")
    with engine.begin() as conn:
        EVERY.create(conn)
        conn.execute(insert(EVERY), [{"state": int(state)} for state in FileState])
        found = conn.execute(select(EVERY.c.state).where(file_in(states, EVERY))).scalars()
        assert frozenset(map(FileState, found)) == states
    engine.dispose()
