"""The client that commands work with.

Responsible for how patient a person is: a server that is not there is given up after about a
second, not after the library's half minute.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gridlane.client import Client


def connect() -> Client:
    """A client by the discovery of `gridlane.configuration`.

    Raises:
        ConfigurationError: what was found is not usable.
    """
    from gridlane.client import Client
    from gridlane.retry import RetryPolicy

    if not gc.isenabled():
        # A command may follow for days; what was imported stays.
        gc.freeze()
        gc.enable()
    return Client(retry=RetryPolicy(max_attempts=5))
