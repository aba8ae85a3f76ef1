"""Every served method of every service, by callers of every role, about things of every relation:
real, well-formed calls to a running Gridlane, held against the reviewed table of permissions.

What is served the server tells itself, so a new method without cells fails here, and so does one
without a request (`walk/requests.py`). A method that is not carried out says so to those alone whom
the table lets in.
"""

from collections.abc import Iterator

import pytest
from integration.contract_promises.walk.deployments import ALL, JOBS_CLOSED, SPLIT, world_of
from integration.contract_promises.walk.requests import WALKED, About, requests_for
from integration.contract_promises.walk.steps import DENIED, Walked, steps, walk
from integration.contract_promises.walk.wire import OTLP
from integration.contract_promises.walk.world import World
from split import SERVICES
from workers import Told

from gridlane_kit.assertions import AssertionSigner
from gridlane_kit.identity import Principal, service_principal
from gridlane_kit.peers import EDGES
from permission_cells import RELATIONS, ROLES, blocks

# A walk of some nine thousand calls takes a tenth of this where nothing else runs.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
METHODS = [(block, method) for block in blocks() for method in block.methods]


@pytest.fixture(scope="module", params=[ALL, JOBS_CLOSED, SPLIT])
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    with world_of(request, tmp_path_factory) as found:
        yield found


def test_every_served_method_has_cells_and_every_cell_a_walk(world: World) -> None:
    served = set(world.wire.methods)
    assert served == {method for _, method in METHODS}, "served, and in the table"
    assert served == WALKED, "served, and with a request in walk/requests.py or walk/later.py"


def test_every_caller_gets_of_every_method_what_the_table_says(world: World, tell: Told) -> None:
    found = walk(world, steps(world))
    tell("permissions", list(figures(world, found)))
    assert found.wrong == [], "\n".join(found.wrong)


def figures(world: World, found: Walked) -> Iterator[str]:
    """What a walk has walked."""
    shape = world.server.shape if world.readable else f"{world.server.shape}, jobs closed"
    counts = f"{len(found.methods)} methods × {len(ROLES)} roles × {len(RELATIONS)} relations"
    yield f"walked ({shape}): {found.calls.total()} calls, {counts}"
    yield f"  {len(found.later)} of the methods are not carried out yet; answers:"
    for (code, reason), count in found.calls.most_common():
        yield f"  {count:6}  {code}" + (f", {reason}" if reason != code else "")


@pytest.mark.parametrize("role", [role for role in ROLES if role != "vetoed"])
def test_a_jobs_own_token_opens_the_methods_of_the_table_and_no_other(
    world: World, role: str
) -> None:
    token, wrong = world.job_token(role), []
    for block, method in METHODS:
        opened = block.by_jobs or block.permission == "anonymous"
        about = About(world, role, "own", acts=False)
        answer = world.wire.call(method, token, *requests_for(method, about))
        if (answer.short != DENIED) != opened:
            wrong.append((method, answer.short))
    assert wrong == []


@pytest.mark.parametrize("world", [SPLIT], indirect=True)
@pytest.mark.parametrize("service", SERVICES)
def test_a_service_gets_what_the_table_says_for_itself_and_for_users(
    world: World, service: str
) -> None:
    """By assertions, as between processes; in one process no service calls over the wire."""
    signer = AssertionSigner.from_file(service, world.server.data_dir / "keys" / f"{service}.pem")
    user = world.callers["submitter"]
    of_user = Principal(world.issuer, user.subject, vos=frozenset(world.belongs))
    wrong = []
    for block, method in METHODS:
        package = world.wire.methods[method].containing_service.full_name.split(".")[1]
        receiver = "reporting" if method.startswith(OTLP) else package
        if receiver not in EDGES[service]:
            continue
        about = About(world, "submitter", "own", acts=False)
        asked = [(service_principal(service), service in block.services)]
        if block.via:
            asked.append((of_user, service in block.via))
        for principal, opened in asked:
            token = signer.header(principal, receiver).removeprefix("Bearer ")
            answer = world.wire.call(method, token, *requests_for(method, about), timeout_s=5)
            if (answer.short != DENIED) != opened:
                wrong.append((method, principal.subject, answer.short))
    assert wrong == []
