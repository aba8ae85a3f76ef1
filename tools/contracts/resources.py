"""The names of resources: their documented form, and the pattern that requests hold them to.

Responsible for this one table. `style` holds the contracts to it, and a test holds
docs/reference/conventions.md to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_UUID: Final = "[0-9a-f-]{36}"
_VO: Final = "vos/[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}"
_STORAGE_ELEMENT: Final = "storageElements/[a-z][a-z0-9-]{0,62}"

RESOURCES: Final[Mapping[str, str]] = {
    "auditEntries/{uuid}": f"auditEntries/{_UUID}",
    "channels/{name}": "channels/[A-Za-z0-9][A-Za-z0-9._-]{0,62}",
    "credentials/{uuid}": f"credentials/{_UUID}",
    "delegations/{uuid}": f"delegations/{_UUID}",
    "issuers/{id}": "issuers/[a-z0-9][a-z0-9.-]{0,63}",
    "jobs/{uuid}": f"jobs/{_UUID}",
    "quotas/{uuid}": f"quotas/{_UUID}",
    "roleBindings/{uuid}": f"roleBindings/{_UUID}",
    "storageElements/{name}": _STORAGE_ELEMENT,
    "storageElements/{name}/bans/{uuid}": f"{_STORAGE_ELEMENT}/bans/{_UUID}",
    "tasks/{uuid}": f"tasks/{_UUID}",
    "tokens/{jti}": "tokens/[!-.0-~]{1,255}",
    "transferBackends/{name}": "transferBackends/[a-z][a-z0-9-]{0,62}",
    "transfers/{uuid}": f"transfers/{_UUID}",
    "transfers/{uuid}/files/{n}": f"transfers/{_UUID}/files/[1-9][0-9]{{0,5}}",
    "vos/{vo}": _VO,
    "vos/{vo}/activityShares": f"{_VO}/activityShares",
    "vos/{vo}/groups/{id}": f"{_VO}/groups/[a-zA-Z0-9][a-zA-Z0-9_.-]{{0,63}}",
}
"""The form of a name, as comments quote it, and its regular expression."""

ANSWERED: Final = frozenset(
    {
        "accountingRecords/{uuid}",
        "jobs/{uuid}/attempts/{n}",
        "signingKeys/{kid}",
        "transfers/{uuid}/files/{n}/attempts/{attempt}",
        "vos/{vo}/activities/{activity}",
        "workflows/{uuid}",
    }
)
"""Forms of names that stand in answers, and in no request yet."""
