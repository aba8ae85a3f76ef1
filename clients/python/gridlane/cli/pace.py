"""How fast bytes go, and how long the rest takes: what bars tell."""

from __future__ import annotations

from dataclasses import dataclass, field

from gridlane.cli import units

_RATE_OVER_S = 10.0


@dataclass
class Pace:
    """How fast bytes go, over the last seconds, and how long the rest takes at that rate."""

    seen: list[tuple[float, int]] = field(default_factory=list)

    def take(self, now: float, moved: int) -> None:
        """Take what has been moved by now, bytes."""
        self.seen.append((now, moved))
        while self.seen[0][0] < now - _RATE_OVER_S:
            del self.seen[0]

    @property
    def rate(self) -> float:
        """Bytes a second."""
        (begun, first), (now, last) = self.seen[0], self.seen[-1]
        return (last - first) / (now - begun) if now > begun else 0.0

    def left_s(self, total: int) -> float | None:
        """Seconds until `total` bytes are there; None while that cannot be said."""
        left = total - self.seen[-1][1]
        return left / self.rate if self.rate > 0 and left > 0 else None

    def text(self, total: int) -> str:
        """ "  120.0 MiB/s  13 s left", as far as it can be said; empty before."""
        parts = [units.rate(self.rate)] if self.rate > 0 else []
        left = self.left_s(total)
        if left is not None:
            parts.append(f"{units.duration(left)} left")
        return "".join(f"  {part}" for part in parts)
