"""What is configured for HTTP. Responsible for the words between the server and its workers; the
settings themselves, with their descriptions, are `gridlane_transfer.settings`'.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """What holds for all connections.

    Parameters:
        allowed_networks: networks (CIDR) that may be reached though they are not public.
        ca_file: PEM of the authorities that storages are judged by; empty: the system's.
        token_files: files with a bearer token each, by origin ("https://host:port"); read anew for
            each request.
        connect_s, idle_s: how long a connection may take, and may be silent.
        max_redirects: how many are followed one after the other.
        third_party: whether two storages are asked to copy between them.
    """

    allowed_networks: Sequence[str] = ()
    ca_file: str = ""
    token_files: Mapping[str, str] = field(default_factory=dict)
    connect_s: float = 10.0
    idle_s: float = 60.0
    max_redirects: int = 5
    third_party: bool = True
