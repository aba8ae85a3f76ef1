"""What the contract of Transfer has and nothing implements yet is served all the same: the caller
is proven and its permission decided, and only then is it told NOT_IMPLEMENTED."""

import importlib
import pkgutil
from typing import Any, Final

import grpc
from google.protobuf.descriptor import MethodDescriptor

import gridlane.transfer.v1
from gridlane_kit.policy import Binding, Policy, Role
from gridlane_transfer.room import PROMISED

ISSUER: Final = "https://issuer.test/"
PACKAGE: Final = gridlane.transfer.v1
PARTLY: Final = {
    "ReplicaService": {"BatchRegisterReplicas", "UnregisterReplica", "BatchUnregisterReplicas"},
}
"""Methods that services lack which have others."""
WITHOUT_A_ROLE: Final = {
    "ActivityService": {"GetActivityShares"},
}
"""What a user may call who holds no role."""
NOT_THERE: Final = ("UNIMPLEMENTED", "NOT_IMPLEMENTED")
DENIED: Final = ("PERMISSION_DENIED", "PERMISSION_DENIED")
VETOED: Final = ("PERMISSION_DENIED", "CALLER_VETOED")


def methods() -> list[MethodDescriptor]:
    """The methods of the generated package that nothing implements."""
    modules = (
        importlib.import_module(f"{PACKAGE.__name__}.{module.name}")
        for module in pkgutil.iter_modules(PACKAGE.__path__)
        if module.name.endswith("_pb2")
    )
    services = [s for module in modules for s in module.DESCRIPTOR.services_by_name.values()]
    return [
        method
        for service in services
        for method in service.methods
        if service.full_name in PROMISED or method.name in PARTLY.get(service.name, ())
    ]


async def answers(house: Any, words: Any, metadata: Any) -> dict[str, tuple[str, str]]:
    """Code and reason with which each method refuses an empty request."""
    found = {}
    for method in methods():
        service = method.containing_service
        call = house.channel.stream_stream(f"/{service.full_name}/{method.name}")
        try:
            async for _ in call(iter([b""]), metadata=metadata, timeout=20):
                pass
        except grpc.RpcError as error:
            found[f"{service.name}/{method.name}"] = (error.code().name, words.reason(error))
    return found


def expected(without_a_role: tuple[str, str], others: tuple[str, str]) -> Any:
    return {
        f"{service.name}/{method.name}": (
            without_a_role if method.name in WITHOUT_A_ROLE.get(service.name, ()) else others
        )
        for method in methods()
        for service in [method.containing_service]
    }


async def test_an_administrator_is_told_that_a_method_is_not_there_yet(
    house: Any, words: Any
) -> None:
    metadata = house.client("admin").metadata
    assert await answers(house, words, metadata) == expected(NOT_THERE, NOT_THERE)
    assert len(methods()) > len(PROMISED)


async def test_who_may_not_call_a_method_is_not_told_whether_it_is_there(
    house: Any, words: Any
) -> None:
    metadata = house.client("bob").metadata
    assert await answers(house, words, metadata) == expected(NOT_THERE, DENIED)


async def test_a_vetoed_caller_is_told_that_alone(house: Any, words: Any) -> None:
    veto = Binding(ISSUER, "sue", Role.VETOED)
    house.policy.replace(Policy(2, (*house.bindings, veto), vos=["local", "other"]))
    found = await answers(house, words, house.client("sue").metadata)
    assert set(found.values()) == {VETOED}


async def test_who_proves_no_identity_is_told_that_alone(house: Any, words: Any) -> None:
    found = await answers(house, words, ())
    assert set(found.values()) == {("UNAUTHENTICATED", "TOKEN_MISSING")}
