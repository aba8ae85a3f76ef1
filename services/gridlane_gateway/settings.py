"""What can be set about the gateway: `GRIDLANE_GATEWAY_…`, `[gateway]` of the file."""

from pydantic import Field

from gridlane_kit.settings import Settings


class GatewaySettings(Settings):
    """The settings of the gateway, with their defaults."""

    ping_timeout_s: float = Field(
        default=2.0, gt=0, description="a service that takes longer is reported as not reachable"
    )
    part_timeout_s: float = Field(
        default=5.0, gt=0, description="a part of a task that takes longer is reported as missing"
    )
    lookup_interval_s: float = Field(
        default=0.25, gt=0, description="how often a watch looks for the transfers of a moving job"
    )
