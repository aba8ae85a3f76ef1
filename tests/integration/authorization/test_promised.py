"""What the contract of Authorization has and nothing implements yet is served all the same: the
caller is proven and its permission decided, and only then is it told NOT_IMPLEMENTED."""

import importlib
import pkgutil
from typing import Any, Final

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from support import EmbeddedServer

import gridlane.authorization.v1
from gridlane_authorization import service as shells
from gridlane_authorization.room import PROMISED
from gridlane_authorization.settings import AuthorizationSettings
from gridlane_authorization.tokens import open_signer

PACKAGE: Final = gridlane.authorization.v1
ADMINISTRATORS: Final = {
    "QuotaService/CreateQuota",
    "QuotaService/UpdateQuota",
    "QuotaService/DeleteQuota",
}
"""Which a user without a role may not call."""
SERVICES: Final = {
    "QuotaService/ReportQuotaUse",
    "CredentialService/SignSubProxy",
    "CredentialService/FetchAccessToken",
}
"""Which services alone may call."""


def services() -> list[ServiceDescriptor]:
    """The services of the generated package."""
    modules = (
        importlib.import_module(f"{PACKAGE.__name__}.{module.name}")
        for module in pkgutil.iter_modules(PACKAGE.__path__)
        if module.name.endswith("_pb2")
    )
    return [s for module in modules for s in module.DESCRIPTOR.services_by_name.values()]


def shell(service: ServiceDescriptor) -> object:
    """What implements a service, None when nothing does; it may lack methods."""
    return getattr(shells, service.name.removesuffix("Service") + "Shell", None)


METHODS: Final = [
    method
    for service in services()
    for method in service.methods
    if not hasattr(shell(service), method.name)
]


def short(method: MethodDescriptor) -> str:
    return f"{method.containing_service.name}/{method.name}"


def reason(server: EmbeddedServer, method: MethodDescriptor, token: str | None) -> tuple[str, str]:
    """Code and reason with which an empty request is refused."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    call: Any = server.channel.unary_unary(path)
    metadata = () if token is None else (("authorization", f"Bearer {token}"),)
    with pytest.raises(grpc.RpcError) as refused:
        call(b"", metadata=metadata, timeout=20)
    error: Any = refused.value
    raw = dict(error.trailing_metadata())["grpc-status-details-bin"]
    info = error_details_pb2.ErrorInfo()
    assert status_pb2.Status.FromString(raw).details[0].Unpack(info)
    return error.code().name, info.reason


@pytest.fixture
def stranger(embedded_server: EmbeddedServer) -> str:
    """The token of somebody who holds no role."""
    settings = AuthorizationSettings()
    keys = embedded_server.data_dir / "keys"
    signer = open_signer(keys, settings.issuer, settings.audience)
    return signer.sign_user("stranger", display_name="", vos=["local"], lifetime_s=600)


def test_every_service_of_the_package_is_served(embedded_server: EmbeddedServer) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(embedded_server.channel)
    ask = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    (answer,) = embedded_server.call(stub.ServerReflectionInfo, ask)
    served = {service.name for service in answer.list_services_response.service}
    expected = {service.full_name for service in services()}
    assert expected - served == set()
    assert set(PROMISED) == {s.full_name for s in services() if shell(s) is None}


@pytest.mark.parametrize("method", METHODS, ids=short)
def test_an_administrator_is_told_that_a_method_is_not_there_yet(
    embedded_server: EmbeddedServer, method: MethodDescriptor
) -> None:
    expected = (
        ("PERMISSION_DENIED", "PERMISSION_DENIED")
        if short(method) in SERVICES
        else ("UNIMPLEMENTED", "NOT_IMPLEMENTED")
    )
    assert reason(embedded_server, method, embedded_server.token) == expected


@pytest.mark.parametrize("method", METHODS, ids=short)
def test_who_may_not_call_a_method_is_not_told_whether_it_is_there(
    embedded_server: EmbeddedServer, stranger: str, method: MethodDescriptor
) -> None:
    expected = (
        ("PERMISSION_DENIED", "PERMISSION_DENIED")
        if short(method) in SERVICES | ADMINISTRATORS
        else ("UNIMPLEMENTED", "NOT_IMPLEMENTED")
    )
    assert reason(embedded_server, method, stranger) == expected


@pytest.mark.parametrize("method", METHODS, ids=short)
def test_who_proves_no_identity_is_told_that_alone(
    embedded_server: EmbeddedServer, method: MethodDescriptor
) -> None:
    assert reason(embedded_server, method, None) == ("UNAUTHENTICATED", "TOKEN_MISSING")
