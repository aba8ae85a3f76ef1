"""The shares of activities within a virtual organisation: read and changed.

Responsible for the verbs of `ActivityService`: who reaches which VO, the revision, the audit, and
the change in force in this process before the caller is answered. What the shares do is
`scheduling`'s.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final
from urllib.parse import quote

from sqlalchemy import Connection

from gridlane.transfer.v1 import activity_pb2
from gridlane.transfer.v1 import activity_service_pb2 as pb
from gridlane_kit import audit, errors
from gridlane_kit.call import Call
from gridlane_kit.clock import now_us, to_timestamp
from gridlane_kit.database import Database
from gridlane_kit.errors import GridlaneError
from gridlane_kit.failpoints import failpoint
from gridlane_transfer.channels.scheduling import DEFAULT_ACTIVITY
from gridlane_transfer.store import activities as rows
from gridlane_transfer.store.activities import Shares
from gridlane_transfer.store.refresh import Kind, Refresh, bump, lock
from gridlane_transfer.store.tables import AUDIT

_CHANGED: Final = failpoint("transfer.activities.committed")
_UPDATABLE: Final = frozenset({"activities", "active"})


class Activities:
    """The verbs.

    Parameters:
        refresh: puts what was committed in force in this process.
    """

    def __init__(self, db: Database, refresh: Refresh) -> None:
        self._db = db
        self._refresh = refresh

    async def get(self, name: str, call: Call) -> activity_pb2.ActivityShares:
        """The shares of a VO, with what is in each now.

        Raises:
            GridlaneError: NOT_FOUND.
        """
        vo = _vo(name)
        _require_within(call, vo, name)
        return await self._db.read(lambda conn: _told(conn, rows.read(conn, vo)))

    async def update(
        self, request: pb.UpdateActivitySharesRequest, call: Call
    ) -> activity_pb2.ActivityShares:
        """Changes the shares of a VO.

        Raises:
            GridlaneError: INVALID_FIELDS, NOT_FOUND, PERMISSION_DENIED, REVISION_CONFLICT.
        """
        given = request.activity_shares
        vo = _vo(given.name)
        _require_within(call, vo, given.name)
        if "\0" in request.reason:
            raise errors.invalid([("reason", "no text has a NUL")])
        fields = _changed(given, request.update_mask.paths)
        weights = _weights(given)

        def transact(conn: Connection) -> activity_pb2.ActivityShares:
            revision = lock(conn, Kind.CHANNELS) + 1
            stored = rows.read(conn, vo)
            if request.revision and request.revision != stored.revision:
                raise errors.revision_conflict(given.name)
            wanted = stored
            if "activities" in fields:
                wanted = replace(wanted, weights=weights)
            if "active" in fields:
                wanted = replace(wanted, active=given.active or not given.HasField("active"))
            if wanted != stored or list(wanted.weights) != list(stored.weights):
                wanted = replace(wanted, update_us=now_us(), revision=revision)
                rows.write(conn, wanted)
                bump(conn, Kind.CHANNELS)
                entry = audit.entry(
                    call,
                    resource=given.name,
                    vo=vo,
                    reason=request.reason,
                    before=_message(stored),
                    after=_message(wanted),
                )
                audit.append(conn, AUDIT, [entry])
            return _told(conn, wanted)

        answer = await self._db.write_after_lock(transact)
        _CHANGED()
        # Committed is committed: when the store cannot be read just now, the next look takes it
        # over.
        with suppress(GridlaneError):
            await self._refresh.now()
        return answer


def _require_within(call: Call, vo: str, name: str) -> None:
    """Refuses a VO that is not within the caller's reach, as though it were not there.

    Raises:
        GridlaneError: NOT_FOUND; PERMISSION_DENIED for whom it is only to be seen.
    """
    if call.visibility.everything:
        if vo not in call.decision.existing_vos:
            raise errors.not_found(name)
    elif vo not in call.visibility.vos:
        if vo in call.principal.vos:
            raise errors.permission_denied(call.decision.permission, name)
        raise errors.not_found(name)


def _changed(given: activity_pb2.ActivityShares, mask: Iterable[str]) -> frozenset[str]:
    paths = frozenset(mask)
    unknown = sorted(paths - _UPDATABLE)
    if unknown:
        raise errors.invalid([("update_mask", f"{path}: activities or active") for path in unknown])
    if paths:
        return paths
    return frozenset(field.name for field, _ in given.ListFields()) & _UPDATABLE


def _weights(given: activity_pb2.ActivityShares) -> dict[str, int]:
    counts = Counter(share.activity for share in given.activities)
    twice = [
        (f"activity_shares.activities[{index}].activity", f"{share.activity} is listed twice")
        for index, share in enumerate(given.activities)
        if counts[share.activity] > 1
    ]
    if twice:
        raise errors.invalid(twice)
    return {share.activity: share.weight for share in given.activities}


def _told(conn: Connection, shares: Shares) -> activity_pb2.ActivityShares:
    """The shares with what is in each now; what is not listed counts as "default"."""
    message = _message(shares)
    moving = _grouped(rows.moving(conn, shares.vo), shares)
    waiting = _grouped(rows.waiting(conn, shares.vo), shares)
    for share in message.activities:
        share.active_files = moving[share.activity]
        share.queued_files = waiting[share.activity]
    return message


def _grouped(counts: Mapping[str, int], shares: Shares) -> Counter[str]:
    grouped: Counter[str] = Counter()
    for activity, count in counts.items():
        grouped[activity if activity in shares.weights else DEFAULT_ACTIVITY] += count
    return grouped


def _message(shares: Shares) -> activity_pb2.ActivityShares:
    message = activity_pb2.ActivityShares(
        name=f"vos/{shares.vo}/activityShares",
        activities=[
            activity_pb2.ActivityShare(
                name=f"vos/{shares.vo}/activities/{quote(activity, safe='')}",
                activity=activity,
                weight=weight,
            )
            for activity, weight in shares.weights.items()
        ],
        active=shares.active,
        revision=shares.revision,
    )
    if shares.update_us:
        message.update_time.CopyFrom(to_timestamp(shares.update_us))
    return message


def _vo(name: str) -> str:
    return name.split("/")[1]
