"""The issuers of the policy, believed in this process beside those of its settings.

Responsible for putting them in force with the policy that has them, in the same step of the event
loop: no call is decided under the one and proven by the other. Which they are is the policy's to
say, what it means to believe one is `issuers`'.
"""

from gridlane_kit.issuers import TrustedIssuers
from gridlane_kit.policy import Policy, PolicyHolder


class PolicyIssuers:
    """Has a process believe the issuers of its policy.

    Where the settings name an issuer with the same URL, theirs counts.

    Parameters:
        believed: the issuers of the process; those of its settings, at first.
        policy: the holder that the process decides from; nothing that proves callers anew under
            its policy has subscribed to it before.
    """

    def __init__(self, believed: TrustedIssuers, policy: PolicyHolder) -> None:
        self._believed = believed
        self._settings = tuple(believed.issuers)
        self._urls = frozenset(issuer.url for issuer in self._settings)
        self._seen = policy.current.issuers
        policy.subscribe(self._take)

    def _take(self, policy: Policy) -> None:
        # A closed policy knows nothing: under it every call is refused, whoever is believed.
        if policy.closed or policy.issuers is self._seen:
            return
        self._seen = policy.issuers
        more = [issuer for issuer in policy.issuers.values() if issuer.url not in self._urls]
        self._believed.replace([*self._settings, *more])
