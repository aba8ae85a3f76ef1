"""Whom payloads run as, and who may reach the server then."""

import pytest

from gridlane_workload.backends.embedded import account
from gridlane_workload.settings import WorkloadSettings


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_on_loopback_payloads_may_run_as_the_server_itself(host: str) -> None:
    account.check_bind(host, WorkloadSettings())


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "[::]"])
def test_others_reach_only_a_server_whose_payloads_run_as_somebody_else(host: str) -> None:
    with pytest.raises(account.UnsafeBindError, match="RUN_AS"):
        account.check_bind(host, WorkloadSettings())
    account.check_bind(host, WorkloadSettings(run_as="nobody"))


def test_payloads_never_run_as_root() -> None:
    with pytest.raises(account.AccountError, match="root"):
        account.resolve("root")


def test_a_user_that_does_not_exist_is_named() -> None:
    with pytest.raises(account.AccountError, match="no-such-user"):
        account.resolve("no-such-user")


def test_no_account_means_the_servers_own() -> None:
    assert account.resolve("") is None
