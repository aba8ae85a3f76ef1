"""Typed errors: every failure that a caller may see is a `GridlaneError` with a documented reason.

Responsible for the details of `google.rpc` that go with each reason, and for the words. The reasons
and their gRPC codes stand in `error_reasons`. Not responsible for sending: the server's shell turns
what is raised into the call's status, and what is not a `GridlaneError` into `internal`.

Use: `from gridlane_kit import errors` and `raise errors.not_found("jobs/…")`.
"""

from collections.abc import Collection, Mapping, Sequence

from google.protobuf import duration_pb2
from google.rpc import error_details_pb2

from gridlane_kit.error_reasons import CODES as CODES
from gridlane_kit.error_reasons import ErrorReason as ErrorReason
from gridlane_kit.gridlane_error import DOMAIN as DOMAIN
from gridlane_kit.gridlane_error import GridlaneError as GridlaneError
from gridlane_kit.permissions import roles_giving

_MAX_VIOLATIONS = 1500
"""Bytes of violations that an error tells, paths and descriptions: it travels in the trailing
metadata of a call, which has room for so much beside the rest."""


def token_missing() -> GridlaneError:
    """The call carries no token."""
    return GridlaneError(
        ErrorReason.TOKEN_MISSING, "the call carries no token: send 'authorization: Bearer <token>'"
    )


def token_invalid() -> GridlaneError:
    """The token is not acceptable; what is wrong with it belongs into the log alone."""
    return GridlaneError(ErrorReason.TOKEN_INVALID, "the token is not acceptable here")


def token_expired() -> GridlaneError:
    """The token was good once."""
    return GridlaneError(ErrorReason.TOKEN_EXPIRED, "the token has expired: get a new one")


def issuer_unavailable() -> GridlaneError:
    """The keys that a token would be proven with cannot be fetched from its issuer."""
    return GridlaneError(
        ErrorReason.PEER_UNAVAILABLE,
        "the keys of the token's issuer cannot be had just now: try again",
        {"service": "issuer"},
        [_retry_info(5)],
    )


def group_not_asserted(group: str) -> GridlaneError:
    """The caller wants to act in a group that its token does not assert."""
    return GridlaneError(
        ErrorReason.PERMISSION_DENIED,
        "your token does not assert the group that 'gridlane-group' names: leave it out, or name"
        " one of those that WhoAmI lists",
        {"group": group[:255]},
    )


def group_not_declared(group: str, vo: str) -> GridlaneError:
    """The caller wants to act in a group that its token asserts, and its VO has not declared.

    Parameters:
        group: its path.
        vo: the VO's name.
    """
    return GridlaneError(
        ErrorReason.PERMISSION_DENIED,
        f"the VO {vo} declares its groups, and {group!r} is none of them: act in none, or in one"
        f" that 'gridlane group list {vo}' shows, or ask a manager of the VO to declare it",
        {"group": group[:255]},
    )


def permission_denied(permission: str, resource: str = "", message: str = "") -> GridlaneError:
    """No role of the caller gives `permission`, or gives it for what is named.

    Which roles give it is no secret: they follow from the permission alone, whatever is named.

    Parameters:
        resource: the name of what is concerned, only when the caller may see it: of a resource or
            file, or a virtual organisation's.
        message: when there is more to say than which permission is missing.
    """
    where = f" for {resource}" if resource else ""
    roles = [role.name for role in roles_giving(permission)]
    who = f": {' or '.join(roles)} does" if roles else ""
    metadata = {"permission": permission, "resource": resource, "roles": " ".join(roles)}
    return GridlaneError(
        ErrorReason.PERMISSION_DENIED,
        message or f"none of your roles gives the permission {permission}{where}{who}",
        {name: value for name, value in metadata.items() if value},
    )


def caller_vetoed() -> GridlaneError:
    """The caller is vetoed."""
    return GridlaneError(ErrorReason.CALLER_VETOED, "you are vetoed; ask an administrator")


def scope_too_narrow(permission: str, scopes_needed: str) -> GridlaneError:
    """The role would do, the token's scopes do not.

    Parameters:
        scopes_needed: those of which one would do; empty when none does, and only a token that is
            not narrowed to capabilities will.
    """
    needed = f"with the scope {scopes_needed}" if scopes_needed else "without capability scopes"
    return GridlaneError(
        ErrorReason.SCOPE_TOO_NARROW,
        f"{permission} needs a token {needed}",
        {"permission": permission, "scopes_needed": scopes_needed},
    )


def malformed_message() -> GridlaneError:
    """The bytes are not a message of the request type."""
    return GridlaneError(
        ErrorReason.MALFORMED_MESSAGE, "the bytes are not a message of the method's request type"
    )


def invalid(violations: Sequence[tuple[str, str]]) -> GridlaneError:
    """Fields break their rules.

    Parameters:
        violations: pairs of the field's path ("job.vo") and what is expected of it; of very many
            the first are told.
    """
    return _bad_request(ErrorReason.INVALID_FIELDS, violations)


def capability_missing(
    violations: Sequence[tuple[str, str]], capability: str, backend: str = "gridlane"
) -> GridlaneError:
    """Fields ask for what the backend, or this version, does not do.

    Parameters:
        violations: pairs of the field's path ("transfer_job.target_qos") and the cure; not empty,
            and of very many the first are told.
        capability: what the first of them needs, for example "TARGET_QOS".
        backend: which backend lacks it; "gridlane" when this version has none that does it.
    """
    return _bad_request(
        ErrorReason.CAPABILITY_MISSING,
        violations,
        {"field": violations[0][0], "capability": capability, "backend": backend},
    )


def address_forbidden(field: str, url: str) -> GridlaneError:
    """Policy forbids this server to connect to a URL.

    Parameters:
        field: its path in the request.
    """
    return _bad_request(
        ErrorReason.ADDRESS_FORBIDDEN,
        [(field, "on a public address: policy forbids to connect to where this one leads")],
        {"url": url[:1024]},
    )


def request_id_too_old(days: int) -> GridlaneError:
    """The request id was made before the time for which ids are remembered (`days`)."""
    return GridlaneError(
        ErrorReason.REQUEST_ID_TOO_OLD,
        f"request_id is older than {days} days: whether the call was ever executed is not known any"
        " more; look whether its resource is there, then use a new id",
    )


def token_not_ours(field: str) -> GridlaneError:
    """A page or resume token (`field`) that was not issued for this request."""
    return GridlaneError(
        ErrorReason.TOKEN_NOT_OURS,
        f"{field} was not issued for this request: begin anew with an empty one, or repeat the"
        " request with the parameters of its first page",
        {"field": field},
    )


def filter_unsupported(text: str, expected: str) -> GridlaneError:
    """A filter that is not documented; `expected` says what is."""
    return GridlaneError(
        ErrorReason.FILTER_UNSUPPORTED, f"filter: {expected}", {"filter": text[:200]}
    )


def no_storage_element(
    url: str, field: str, among: Sequence[tuple[str, str]] = ()
) -> GridlaneError:
    """No storage element serves the URL or logical file name.

    Parameters:
        field: the path of the field it stands in.
        among: all violations of the same request, this one too; empty: there is no other.
    """
    violations = among or [(field, f"no storage element serves {url}")]
    return _bad_request(ErrorReason.NO_STORAGE_ELEMENT, violations, {"url": url})


def vo_ambiguous(vos: Collection[str]) -> GridlaneError:
    """`vo` is empty and the caller belongs to several."""
    listed = ",".join(sorted(vos))
    return GridlaneError(
        ErrorReason.VO_AMBIGUOUS,
        f"vo is empty and you belong to several: {listed}",
        {"vos": listed},
    )


def not_found(name: str) -> GridlaneError:
    """The resource is not there, or the caller may not see it."""
    return GridlaneError(ErrorReason.NOT_FOUND, f"there is no {name}", {"name": name})


def request_id_reused() -> GridlaneError:
    """The request id came with another content before."""
    return GridlaneError(
        ErrorReason.REQUEST_ID_REUSED,
        "request_id came with another content before: use a new id for another request",
    )


def already_exists(name: str) -> GridlaneError:
    """A resource of that name is there."""
    return GridlaneError(ErrorReason.ALREADY_EXISTS, f"{name} is there already", {"name": name})


def illegal_transition(
    name: str, from_: str, to: str, allowed: Collection[str] | None = None
) -> GridlaneError:
    """The state machine of `name` has no way from one state to the other.

    Parameters:
        allowed: the states to which there is one, for who may ask for another; None when the call
            asks for one state alone.
    """
    described = f"{name} is {from_}; from there it cannot become {to}"
    metadata = {"name": name, "from": from_, "to": to}
    if allowed is not None:
        described += f", only {' or '.join(allowed)}" if allowed else ": nothing follows"
        metadata["allowed"] = ",".join(allowed)
    return _precondition_failure(
        ErrorReason.ILLEGAL_TRANSITION,
        kind="STATE",
        subject=name,
        description=described,
        metadata=metadata,
    )


def precondition(
    subject: str, description: str, metadata: Mapping[str, str] | None = None
) -> GridlaneError:
    """What the call needs is not there yet or no more.

    Parameters:
        subject: what is concerned, for example a resource name.
        description: what is missing, and the cure.
        metadata: names what is missing, for programs; the subject when not given.
    """
    return _precondition_failure(
        ErrorReason.PRECONDITION,
        kind="PRECONDITION",
        subject=subject,
        description=description,
        metadata=metadata or {"subject": subject},
    )


def revision_conflict(name: str) -> GridlaneError:
    """The resource changed between read and write."""
    return GridlaneError(
        ErrorReason.REVISION_CONFLICT, f"{name} changed meanwhile: read it again", {"name": name}
    )


def last_admin(name: str) -> GridlaneError:
    """The change would leave nobody who is an administrator and can prove it, not vetoed and
    without an end.

    Parameters:
        name: of the role binding by which the last one is.
    """
    return _precondition_failure(
        ErrorReason.LAST_ADMIN,
        kind="LAST_ADMIN",
        subject=name,
        description="nobody else is an administrator of an issuer that is believed, not vetoed and"
        " without an end: give that role to such an identity first",
        metadata={"name": name},
    )


def in_use(name: str, by: str) -> GridlaneError:
    """What is to be deleted is named by something else (`by`)."""
    return _precondition_failure(
        ErrorReason.IN_USE,
        kind="IN_USE",
        subject=name,
        description=f"{name} is used by {by}: delete or change that first",
        metadata={"name": name, "by": by},
    )


def position_trimmed(asked: str, oldest: str) -> GridlaneError:
    """The events after a feed position are no longer kept, or it lies in another epoch.

    Parameters:
        asked, oldest: `epoch:position` of the cursor, and of the oldest one that can be followed.
    """
    return GridlaneError(
        ErrorReason.POSITION_TRIMMED,
        f"the feed cannot be followed from {asked}, its oldest position is {oldest}: read the"
        " resources, then watch from the present",
        {"asked": asked, "oldest": oldest},
    )


def overloaded(limit: str, retry_after_s: float) -> GridlaneError:
    """The server takes no more of this class of work.

    Parameters:
        limit: which limit was reached, for example "unary".
        retry_after_s: when to come again, seconds.
    """
    return GridlaneError(
        ErrorReason.OVERLOADED,
        f"the server takes no more work of the class {limit} just now",
        {"limit": limit},
        [_retry_info(retry_after_s)],
    )


def too_many_exchanges(most: int, hours: int, retry_after_s: float) -> GridlaneError:
    """A user had as many tokens by exchange as it may.

    Parameters:
        most: so many, within `hours`.
        retry_after_s: when the first of them is past, seconds.
    """
    return GridlaneError(
        ErrorReason.OVERLOADED,
        f"you had {most} tokens by exchange within {hours} hours, and may have no more: use one"
        " again until it ends, or ask the operator to raise max_exchanged_tokens",
        {"limit": "exchanged tokens"},
        [_retry_info(retry_after_s)],
    )


def no_space(storage_element: str) -> GridlaneError:
    """A storage element has no room."""
    return GridlaneError(
        ErrorReason.NO_SPACE,
        f"the storage element {storage_element} has no room",
        {"storage_element": storage_element},
    )


def store_full() -> GridlaneError:
    """The disk of the service's own database is full; nothing was changed."""
    return GridlaneError(
        ErrorReason.NO_SPACE,
        "the disk of the service's database is full; nothing was changed",
        {"store": "database"},
        [_retry_info(30)],
    )


def draining(epoch: str = "", position: int | None = None) -> GridlaneError:
    """The server drains or starts; a stream says how far it came in its feed."""
    return GridlaneError(
        ErrorReason.DRAINING,
        "the server is stopping or starting: try again",
        {} if position is None else {"epoch": epoch, "position": str(position)},
        [_retry_info(1)],
    )


def watcher_too_slow(epoch: str, position: int) -> GridlaneError:
    """A follower did not take its events in time; `position` is the last one it was given."""
    return GridlaneError(
        ErrorReason.WATCHER_TOO_SLOW,
        "you took the events too slowly and were cut off: resume from the last position",
        {"epoch": epoch, "position": str(position)},
    )


def peer_unavailable(service: str) -> GridlaneError:
    """A service behind this one does not answer."""
    return GridlaneError(
        ErrorReason.PEER_UNAVAILABLE,
        f"the service {service} does not answer",
        {"service": service},
        [_retry_info(1)],
    )


def store_unavailable() -> GridlaneError:
    """The database does not answer, or the outcome of a commit is unknown."""
    return GridlaneError(
        ErrorReason.STORE_UNAVAILABLE,
        "the service's database does not answer: retry with the same request_id",
        details=[_retry_info(1)],
    )


def policy_stale() -> GridlaneError:
    """This process has not been told for too long who may do what."""
    return GridlaneError(
        ErrorReason.POLICY_STALE,
        "the server has not heard lately who may do what, and refuses everybody until it has: try"
        " again",
        details=[_retry_info(1)],
    )


def revision_not_reached(asked: int, reached: int) -> GridlaneError:
    """The policy here has not come as far as the caller wants it to be."""
    return GridlaneError(
        ErrorReason.REVISION_NOT_REACHED,
        f"the policy is at revision {reached} here, not yet at {asked}: try again",
        {"asked": str(asked), "reached": str(reached)},
        [_retry_info(0.2)],
    )


def deadline_exceeded() -> GridlaneError:
    """The caller's deadline passed before the work began."""
    return GridlaneError(
        ErrorReason.DEADLINE_EXCEEDED,
        "the deadline passed before the work began; nothing was changed",
    )


def not_implemented(method: str) -> GridlaneError:
    """The contract has the method, this version does not."""
    return GridlaneError(ErrorReason.NOT_IMPLEMENTED, f"{method} is not implemented yet")


def checksum_mismatch(expected: str, actual: str) -> GridlaneError:
    """Bytes do not have the promised checksum; both as `ALGORITHM:hex`."""
    return GridlaneError(
        ErrorReason.CHECKSUM_MISMATCH,
        f"the bytes have the checksum {actual}, promised was {expected}",
        {"expected": expected, "actual": actual},
    )


def internal(trace_id: str) -> GridlaneError:
    """A defect of the server; its log tells the rest under the trace id."""
    return GridlaneError(
        ErrorReason.INTERNAL,
        f"an error in the server; its log tells more under the trace id {trace_id}",
        {"trace_id": trace_id},
    )


def _bad_request(
    reason: ErrorReason,
    violations: Sequence[tuple[str, str]],
    metadata: Mapping[str, str] | None = None,
) -> GridlaneError:
    told = _bounded(violations)
    named = [
        error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
        for field, description in told
    ]
    return GridlaneError(
        reason,
        "; ".join(f"{field}: {description}" for field, description in told),
        metadata,
        [error_details_pb2.BadRequest(field_violations=named)],
    )


def _bounded(violations: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    """The first violations, as many as a status has room for, and how many there are beside."""
    size = 0
    for position, (field, description) in enumerate(violations):
        size += len(field.encode()) + len(description.encode())
        if size > _MAX_VIOLATIONS and position:
            return [*violations[:position], ("…", f"and {len(violations) - position} more")]
    return violations


def _precondition_failure(
    reason: ErrorReason, *, kind: str, subject: str, description: str, metadata: Mapping[str, str]
) -> GridlaneError:
    violation = error_details_pb2.PreconditionFailure.Violation(
        type=kind, subject=subject, description=description
    )
    failure = error_details_pb2.PreconditionFailure(violations=[violation])
    return GridlaneError(reason, description, metadata, [failure])


def _retry_info(seconds: float) -> error_details_pb2.RetryInfo:
    delay = duration_pb2.Duration()
    delay.FromMilliseconds(round(seconds * 1000))
    return error_details_pb2.RetryInfo(retry_delay=delay)
