"""Whom payloads run as, and what follows from that for the server's address.

Responsible for the one rule: a server that others can reach runs payloads as another user than its
own.
"""

import os
import pwd
from dataclasses import dataclass

from gridlane_kit.settings import is_loopback
from gridlane_workload.settings import WorkloadSettings


class UnsafeBindError(Exception):
    """The address and the account do not go together; the text is for the operator."""


class AccountError(Exception):
    """The configured account cannot be used; the text is for the operator."""


@dataclass(frozen=True, slots=True)
class Account:
    """An operating system's user: ids of user, primary group, and all groups."""

    uid: int
    gid: int
    groups: tuple[int, ...]


def check_bind(host: str, settings: WorkloadSettings) -> None:
    """Refuse to serve others while payloads would run as the server's own user.

    Raises:
        UnsafeBindError: `host` is not loopback and `run_as` is empty.
    """
    if not is_loopback(host) and not settings.run_as:
        raise UnsafeBindError(
            f"{host} is not loopback, and payloads would run as the server's own user: set"
            " GRIDLANE_WORKLOAD_RUN_AS to a user without rights, or serve on 127.0.0.1"
        )


def resolve(run_as: str) -> Account | None:
    """The account named in the settings; None for the server's own.

    Raises:
        AccountError: there is no such user, it is root, or the server may not become another user.
    """
    if not run_as:
        return None
    try:
        entry = pwd.getpwnam(run_as)
    except KeyError:
        raise AccountError(f"GRIDLANE_WORKLOAD_RUN_AS: there is no user {run_as!r}") from None
    if entry.pw_uid == 0:
        raise AccountError("GRIDLANE_WORKLOAD_RUN_AS: payloads do not run as root")
    if os.geteuid() != 0:
        raise AccountError(
            f"GRIDLANE_WORKLOAD_RUN_AS: only root can run payloads as {run_as!r}; this server"
            f" runs as uid {os.geteuid()}"
        )
    return Account(entry.pw_uid, entry.pw_gid, tuple(os.getgrouplist(run_as, entry.pw_gid)))
