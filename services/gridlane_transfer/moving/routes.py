"""Files that stop at other storage elements on the way (multihop).

Responsible for what a route is and for its text in the store. A hop is no file of its own: it is
neither listed nor counted nor accounted. The file's row says where the present hop goes; its source
is the stop before.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Stop:
    """Where a hop ends; the last one is the file's target.

    Parameters:
        url: of the copy.
        element: the resource name of its storage element.
        lfn: the logical name to register; empty on the way.
        stays: whether the copy stays there when the file has ended.
    """

    url: str
    element: str
    lfn: str
    stays: bool


@dataclass(frozen=True, slots=True)
class Route:
    """The way of a file.

    Parameters:
        stops: at least two.
        begun: how often the file had been started when the present hop began.
        origin: the URL of the source that was used, and its storage element; empty before.
    """

    stops: Sequence[Stop]
    begun: int = 0
    origin: tuple[str, str] = ("", "")

    def stop(self, hop: int) -> Stop:
        """Where a hop ends, from 1."""
        return self.stops[hop - 1]

    def is_last(self, hop: int) -> bool:
        """Whether a hop ends at the file's target."""
        return hop == len(self.stops)

    def onward(self, attempt: int, source: tuple[str, str]) -> "Route":
        """As it is when the next hop begins.

        Parameters:
            attempt: how often the file was started.
            source: the URL that the hop before read, and its storage element.
        """
        return replace(self, begun=attempt, origin=self.origin if self.origin[0] else source)

    def left_behind(self, hop: int) -> list[str]:
        """The URLs where copies may lie that are of no use once the file has ended on a hop."""
        on_the_way = self.stops[: min(hop, len(self.stops) - 1)]
        return [stop.url for stop in on_the_way if not stop.stays]

    def to_json(self) -> str:
        """The text for the store."""
        return json.dumps(
            {
                "stops": [[stop.url, stop.element, stop.lfn, stop.stays] for stop in self.stops],
                "begun": self.begun,
                "origin": self.origin,
            },
            separators=(",", ":"),
        )


def read(text: str) -> Route:
    """A route as the store keeps it.

    Parameters:
        text: as `Route.to_json` wrote it.
    """
    kept = json.loads(text)
    url, element = kept["origin"]
    return Route([Stop(*stop) for stop in kept["stops"]], kept["begun"], (url, element))
