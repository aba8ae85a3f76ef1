"""The style of the contracts: what buf's lint does not know, and another team relies on.

Responsible for the list of rules, for their exceptions, each with its reason, and for telling what
breaks one. What the rules mean to a client is in docs/reference/conventions.md. The tests
(tests/contract/test_contract_style.py) plant a fault for each rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from contracts.model import Contract, Symbol
from contracts.style_of_comments import (
    commented,
    deprecation,
    error_codes,
    idempotency,
    reason_examples,
    references,
    versions,
    words,
    zero_values,
)
from contracts.style_of_fields import behavior, enums, limits, names, required
from contracts.style_of_methods import batch, filters, listing, permission, verbs
from contracts.walk import Told

_LIST_SPANS: Final = "gridlane.reporting.v1.SpanService.ListJobSpans"
_SIGNED_ONCE: Final = "gridlane.authorization.v1.TokenService.CreateToken"
_HEADER_JOB: Final = "gridlane.transfer.v1.SubmitTransferJobHeader.transfer_job"
_UPDATED_JOB: Final = "gridlane.transfer.v1.UpdateTransferJobRequest.transfer_job"
_BANS_OF: Final = "gridlane.transfer.v1.ListStorageBansRequest.parent"
_VIA: Final = "gridlane.transfer.v1.FileTransfer.via"

EXCEPTIONS: Final[Mapping[tuple[str, str], str]] = {
    ("listing", _LIST_SPANS): "a ring of at most 1000 spans, answered whole",
    (
        "verbs",
        _SIGNED_ONCE,
    ): "a token is answered once and kept nowhere, so that no second answer is",
    ("required", _HEADER_JOB): "a job without its files, whose own rules would refuse it",
    ("required", _UPDATED_JOB): "a job of which only what the mask names is there",
    ("names", _BANS_OF): "one storage element, or `-` for all of them (AIP-159)",
    ("names", _VIA): "a storage element or a URL",
}
"""Who may break which rule, and why. One that nobody needs any more is itself a finding."""


RULES: Final[Mapping[str, Callable[[Contract], Told]]] = {
    "commented": commented,
    "idempotency": idempotency,
    "error codes": error_codes,
    "words": words,
    "references": references,
    "versions": versions,
    "deprecation": deprecation,
    "reason examples": reason_examples,
    "permission": permission,
    "verbs": verbs,
    "listing": listing,
    "filters": filters,
    "batch": batch,
    "behavior": behavior,
    "required": required,
    "limits": limits,
    "enums": enums,
    "names": names,
    "zero values": zero_values,
}


@dataclass(frozen=True)
class Finding:
    """One place that breaks one rule."""

    rule: str
    symbol: Symbol
    text: str

    def __str__(self) -> str:
        return f"{self.symbol.place}: {self.symbol.name}: {self.text} ({self.rule})"


def findings(
    contract: Contract, exceptions: Mapping[tuple[str, str], str] = EXCEPTIONS
) -> list[str]:
    """Everything that breaks a rule, and every exception that is not needed.

    Parameters:
        contract: all of it.
        exceptions: which symbol may break which rule.

    Returns:
        One line each, with file and line; empty when the contract keeps to all of them.
    """
    told, used = [], set()
    for rule, check in RULES.items():
        for symbol, text in check(contract):
            key = (rule, symbol.name)
            if key in exceptions:
                used.add(key)
            else:
                told.append(str(Finding(rule, symbol, text)))
    told += [f"the exception {key} is not needed" for key in exceptions if key not in used]
    return told
