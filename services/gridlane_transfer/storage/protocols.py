"""The choice among the endpoints of a storage element by the protocols that a job names.

Responsible for a place that was found by its logical name: the first protocol of the job's that the
element speaks for the operation. What stands in a request as a URL is reached by that URL.
"""

from collections.abc import Sequence

from gridlane_transfer.storage.bans import Operation
from gridlane_transfer.storage.storage_elements import Located, StorageElements


def reached_by(
    protocols: Sequence[str], located: Located, operation: Operation, elements: StorageElements
) -> Located | None:
    """A place as one of some protocols reaches it; None when its element speaks none of them.

    Parameters:
        protocols: schemes of URLs, the preferred one first; none: whichever.
    """
    if not protocols:
        return located
    element = elements.get(located.location.storage_element)
    if element is None:
        return None
    for protocol in protocols:
        for endpoint in element.endpoints:
            if endpoint.protocol == protocol and endpoint.serves(operation):
                return element.locate(endpoint, located.path, located.location.shown)
    return None
