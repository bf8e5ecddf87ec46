"""Intervals: a closed one, and Wilson's for a share that was seen in a random sample."""

import math
from dataclasses import dataclass
from typing import Final

Z_95: Final = 1.959964
"""Half the width of a 95 % interval, in standard deviations."""


@dataclass(frozen=True, slots=True)
class Span:
    """A closed interval."""

    low: float
    high: float

    def times(self, factor: float) -> "Span":
        """Both ends, in another unit."""
        return Span(self.low * factor, self.high * factor)

    def shown(self, digits: int = 0) -> str:
        """For people: one number if both ends read the same."""
        low, high = (f"{end:,.{digits}f}" for end in (self.low, self.high))
        return low if low == high else f"{low} to {high}"


def wilson(hits: int, trials: int, z: float = Z_95) -> Span:
    """Wilson's score interval for a share, 0 to 1."""
    share, squared = hits / trials, z * z
    middle = (share + squared / (2 * trials)) / (1 + squared / trials)
    half = z / (1 + squared / trials) * math.sqrt(share * (1 - share) / trials + squared / (4 * trials**2))
    # At the ends the interval includes the share itself, despite rounding.
    low = 0.0 if hits == 0 else max(0.0, middle - half)
    high = 1.0 if hits == trials else min(1.0, middle + half)
    return Span(low, high)
