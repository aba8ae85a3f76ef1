"""How soon a revoked token is refused in every service: five processes on PostgreSQL."""

from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest
from endtoend.every_service import (
    IN_FORCE_S,
    METHODS,
    OK,
    REFUSED,
    Longest,
    codes_of,
    until_all,
)
from split import SplitServer
from workers import Told

from gridlane.authorization.v1 import token_service_pb2, token_service_pb2_grpc

ROUNDS: Final = 5


@pytest.mark.timeout(120)
def test_a_revoked_token_is_refused_in_five_processes_within_a_second(
    split_server: SplitServer, tell: Told
) -> None:
    tokens = token_service_pb2_grpc.TokenServiceStub(split_server.channel)
    create = token_service_pb2.CreateTokenRequest(subject="eve", vos=["local"], reason="measured")
    longest = Longest()
    with ThreadPoolExecutor(len(METHODS)) as pool:
        for _ in range(ROUNDS):
            made = split_server.call(tokens.CreateToken, create)
            assert codes_of(split_server, made.token) == [OK] * len(METHODS)
            revoke = token_service_pb2.RevokeTokenRequest(name=made.resource.name)
            split_server.call(tokens.RevokeToken, revoke)
            longest.add(until_all(pool, split_server, made.token, REFUSED))
    tell("token revoked, five processes on PostgreSQL, until it is refused", longest.lines)
    assert longest.of_all_s < IN_FORCE_S
