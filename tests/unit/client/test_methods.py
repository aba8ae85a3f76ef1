"""The facade's tables of methods say what the contracts say."""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest
from google.protobuf import descriptor_pool

import gridlane
from contracts.model import read_contract
from contracts.served import unserved
from gridlane import nouns
from gridlane.transport import Method

ROOT = Path(__file__).resolve().parents[3]
MODULES = sorted(module.name for module in iter_modules(nouns.__path__))
# What no user calls: the services' own, and answers that `ping` puts together.
NOT_FOR_USERS = {
    "GetPolicy",
    "FollowPolicy",
    "MintJobToken",
    "FollowJobEvents",
    "AckJobEvents",
    "FollowTransferEvents",
    "AckTransferEvents",
    "GetAuthorizationStatus",
    "GetTransferStatus",
    "GetWorkloadStatus",
    "GetReportingStatus",
}
# Answers a secret, which is not kept to be answered again.
NEVER_REPEATED = {"CreateToken"}
METHODS: list[Method[Any, Any]] = [
    value
    for name in MODULES
    for value in vars(import_module(f"gridlane.nouns.{name}")).values()
    if isinstance(value, Method)
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_a_method_has_the_types_of_its_contract(method: Method[Any, Any]) -> None:
    service = descriptor_pool.Default().FindServiceByName(method.service)
    declared = service.methods_by_name[method.name]
    assert method.request.DESCRIPTOR is declared.input_type
    assert method.response.DESCRIPTOR is declared.output_type


@pytest.fixture(scope="module")
def answered() -> set[str]:
    """The methods that this version carries out, as "package.Service.Method"."""
    contract = read_contract(ROOT)
    missing = {method.name for method in unserved(contract, ROOT)}
    return {method.name for method in contract.methods} - missing


def test_every_method_that_is_for_users_has_a_verb(answered: set[str]) -> None:
    covered = {f"{method.service}.{method.name}" for method in METHODS}
    for_users = {name for name in answered if name.rpartition(".")[2] not in NOT_FOR_USERS}
    assert covered == for_users


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_a_creation_carries_a_request_id_so_that_it_may_be_repeated(
    method: Method[Any, Any],
) -> None:
    if method.name.startswith(("Submit", "Create")) and method.name not in NEVER_REPEATED:
        fields = method.request.DESCRIPTOR.fields_by_name
        # A stream carries it in its header.
        carrier = fields["header"].message_type.fields_by_name if "header" in fields else fields
        assert "request_id" in carrier


def test_every_public_name_is_there() -> None:
    for name in gridlane.__all__:
        assert getattr(gridlane, name) is not None
    assert set(gridlane.__all__) <= set(dir(gridlane))
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = gridlane.Nonsense
