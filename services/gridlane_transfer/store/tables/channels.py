"""The tables of channels, of their optimizers, and of the shares on them."""

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Integer, String, Table, Text, text

from gridlane_kit.database import Micros, Text36
from gridlane_transfer.store.tables.schema import METADATA

CHANNEL: Final = Table(
    "channel",
    METADATA,
    Column("uid", Text36, primary_key=True),
    Column("name", String(63), nullable=False, unique=True),
    Column("source", String(63), nullable=False),
    Column("target", String(63), nullable=False),
    Column("state", Integer, nullable=False),
    Column("max_files", Integer, nullable=False),
    Column("on_exhausted", Integer, nullable=False),
    Column("create_us", Micros, nullable=False),
    Column("vo_shares", Text, nullable=False, server_default="{}"),
    Column("max_streams", Integer, nullable=False, server_default="0"),
    Column("max_bandwidth", BigInteger, nullable=False, server_default="0"),
    Column("nominal_throughput", BigInteger, nullable=False, server_default="0"),
    Column("contact", String(255), nullable=False, server_default=text("''")),
    Column("description", String(1024), nullable=False, server_default=text("''")),
    Column("default_max_retries", Integer),
    Column("default_retry_delay_us", BigInteger),
    # 0: it has no optimizer.
    Column("optimizer_mode", Integer, nullable=False, server_default="0"),
    Column("optimizer_min", Integer, nullable=False, server_default="0"),
    Column("optimizer_max", Integer, nullable=False, server_default="0"),
    Column("update_us", Micros, nullable=False, server_default="0"),
    Column("revision", BigInteger, nullable=False, server_default="0"),
    # When it was removed: its row stays, so that its uid never comes again; its name is free.
    Column("delete_us", Micros),
)

# What the optimizer of a channel has come to.
CHANNEL_OPTIMIZER: Final = Table(
    "channel_optimizer",
    METADATA,
    Column("channel_uid", Text36, primary_key=True),
    Column("allowed_files", Integer, nullable=False),
    # In the last window that it looked at; the next one begins at `decide_us`.
    Column("bytes_per_second", BigInteger, nullable=False, server_default="0"),
    Column("decide_us", Micros, nullable=False),
)

# The shares of activities, of the VOs that have any.
ACTIVITY_SHARES: Final = Table(
    "activity_shares",
    METADATA,
    Column("vo", String(200), primary_key=True),
    # JSON: the weights by activity, in the order given.
    Column("weights", Text, nullable=False),
    Column("active", Boolean(create_constraint=False), nullable=False),
    Column("update_us", Micros, nullable=False),
    Column("revision", BigInteger, nullable=False),
)
