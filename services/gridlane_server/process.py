"""What a server process has once, whichever services it runs.

Responsible for policy, metrics, telemetry, admission and the pipeline, and for how they hang
together. Which rooms use them is decided in `assembly` and `split`.
"""

from gridlane_kit.admission import Admission, Limits
from gridlane_kit.assertions import AssertionVerifier
from gridlane_kit.issuers import TrustedIssuers
from gridlane_kit.metrics import Metrics
from gridlane_kit.policy import Policy, PolicyHolder
from gridlane_kit.policy_issuers import PolicyIssuers
from gridlane_kit.registration import Pipeline
from gridlane_kit.sessions import Verifier
from gridlane_kit.settings import ServerSettings
from gridlane_kit.telemetry import Telemetry


class Process:
    """The parts that the rooms of one process share.

    Parameters:
        settings: the server's.
        name: `service.name` of its spans: "gridlane" for all services, else the service's.
        verifier: proves users' tokens.
        issuers: the outside issuers that the verifier believes; those of the policy join them.
        assertions: proves services' assertions; None where no other process calls.
    """

    def __init__(
        self,
        settings: ServerSettings,
        name: str,
        verifier: Verifier,
        issuers: TrustedIssuers,
        assertions: AssertionVerifier | None = None,
    ) -> None:
        self.settings = settings
        self.issuers = issuers
        self.policy = PolicyHolder(Policy(revision=0))
        # Before the pipeline, which decides by the policy, follows it.
        PolicyIssuers(issuers, self.policy)
        self.metrics = Metrics()
        self.telemetry = Telemetry(
            name, ratio=settings.sampling_ratio, otlp_endpoint=settings.otlp_endpoint
        )
        self.pipeline = Pipeline(
            verifier=verifier,
            assertions=assertions,
            policy=self.policy,
            telemetry=self.telemetry,
            metrics=self.metrics,
            admission=_admission(settings, self.metrics),
            default_deadline_s=settings.default_deadline_s,
            log_calls=settings.log_calls,
            errors_page=settings.errors_page,
        )

    def telemetry_of(self, service: str) -> Telemetry:
        """Returns what a room makes spans with: under its own name, kept where all spans are."""
        if service == self.telemetry.service:
            return self.telemetry
        return Telemetry(service, ratio=self.settings.sampling_ratio, sinks=[self.telemetry.ended])


def _admission(settings: ServerSettings, metrics: Metrics) -> Admission:
    limits = settings.limits
    admission = Admission(Limits(unary=limits.unary, batch=limits.batch, stream=limits.stream))
    metrics.watch_admission(admission)
    return admission
