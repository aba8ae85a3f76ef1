"""A job's token is its owner's, by issuer and subject, whoever else has the same subject."""

from google.protobuf.duration_pb2 import Duration

from gridlane.authorization.v1.token_service_pb2 import MintJobTokenRequest
from gridlane_authorization.service import JobTokenShell
from gridlane_authorization.tokens import verifier_of
from gridlane_kit.call import Call
from gridlane_kit.decision import Reason, decide
from gridlane_kit.identity import Principal
from gridlane_kit.policy import Binding, Policy, Role
from gridlane_kit.telemetry import TraceContext
from gridlane_kit.tokens import TokenSigner, new_key

OURS, THEIRS = "https://gridlane.test/", "https://elsewhere.test/"
TRACE = TraceContext(1, 1, 0, sampled=False)
JOB = "jobs/01939f5e-0000-7000-8000-000000000001"
SIGNER = TokenSigner(new_key(), OURS, "https://gridlane.test")


async def minted(issuer: str) -> Principal:
    """Whom a token proves that was minted for a job of `ada` of an issuer."""
    owner = Principal(issuer, "ada", vos=frozenset({"local"}))
    call = Call(owner.on_behalf("workload"), None, TRACE, method="MintJobToken")
    request = MintJobTokenRequest(job=JOB, attempt=3, lifetime=Duration(seconds=60))
    answer = await JobTokenShell(SIGNER).MintJobToken(request, call)
    return await verifier_of(SIGNER).verify(answer.token)


async def test_it_names_owner_job_and_attempt() -> None:
    for issuer in (OURS, THEIRS):
        found = await minted(issuer)
        assert (found.issuer, found.subject) == (issuer, "ada")
        assert (found.job, found.attempt, found.vos) == (JOB, 3, frozenset({"local"}))


async def test_the_veto_of_one_issuer_s_user_is_none_of_the_other_s() -> None:
    policy = Policy(2, (Binding(THEIRS, "ada", Role.VETOED),))
    ours = decide(await minted(OURS), "authorization.self.view", policy, 0)
    theirs = decide(await minted(THEIRS), "authorization.self.view", policy, 0)
    assert ours.allowed
    assert theirs.reason is Reason.CALLER_VETOED
