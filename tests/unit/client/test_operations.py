"""Operations as people write them, and the permissions that they mean."""

import pytest

from gridlane.cli.operations import complete, permission_of, permissions
from gridlane_kit.permissions import PERMISSIONS

JOB = "jobs/0192f0c4-0000-7000-8000-000000000000"


def test_the_permissions_are_those_that_the_methods_of_all_services_declare() -> None:
    known = set(permissions())
    assert {"authorization.roles.manage", "gateway.tasks.submit"} < known <= set(PERMISSIONS)


@pytest.mark.parametrize(
    ("operation", "resource", "meant"),
    [
        ("transfer.jobs.cancel", "", "transfer.jobs.cancel"),
        ("kill", "", "workload.jobs.kill"),
        ("keys.rotate", "", "authorization.keys.rotate"),
        ("submit", JOB, "workload.jobs.submit"),
        ("cancel", JOB.replace("jobs", "transfers"), "transfer.jobs.cancel"),
        ("cancel", JOB.replace("jobs", "tasks"), "gateway.tasks.cancel"),
        ("manage", "channels/default", "transfer.channels.manage"),
        ("delete", "LFN:/cms/a", "transfer.content.delete"),
        ("delete", "lfn:/cms/a", "transfer.content.delete"),
    ],
)
def test_an_operation_means_one_permission(operation: str, resource: str, meant: str) -> None:
    assert permission_of(operation, resource) == meant


@pytest.mark.parametrize(
    ("operation", "told"),
    [
        ("submit", "gateway.tasks.submit, transfer.jobs.submit, workload.jobs.submit"),
        ("kil", "near it are kill"),
        ("ill", "no permission"),
        ("", "no permission"),
        ("transfer.jobs", "no permission"),
    ],
)
def test_an_operation_that_means_none_or_several_is_refused(operation: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        permission_of(operation)


def test_a_shell_is_offered_what_an_operation_may_become() -> None:
    assert complete("transfer.channels.m") == ["transfer.channels.manage"]
    assert complete("x") == []
    assert list(permissions()) == complete("")
