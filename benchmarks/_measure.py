"""Figures from arrival times at the service. Pure; times in seconds of one monotonic clock."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Calls in order of arrival: its time, the worker that sent it, and whether it was admitted."""

    at_s: tuple[float, ...]
    worker: tuple[int, ...]
    admitted: tuple[bool, ...]

    def between(self, from_s: float, to_s: float) -> "Arrivals":
        """The calls from ``from_s`` on and before ``to_s``."""
        kept = [n for n, at in enumerate(self.at_s) if from_s <= at < to_s]
        return Arrivals(
            tuple(self.at_s[n] for n in kept),
            tuple(self.worker[n] for n in kept),
            tuple(self.admitted[n] for n in kept),
        )

    @property
    def throttled(self) -> int:
        """Calls that the service refused."""
        return len(self.at_s) - sum(self.admitted)


def share_used(at_s: Sequence[float], rate_per_s: float) -> float:
    """Calls a second from the first to the last one, as a share of what is allowed."""
    if len(at_s) < 2:
        return 0.0
    return (len(at_s) - 1) / (at_s[-1] - at_s[0]) / rate_per_s


def most_in_a_second(at_s: Sequence[float]) -> int:
    """The fullest sliding second: calls within any half-open span of one second."""
    most = first = 0
    for n, at in enumerate(at_s):
        while at - at_s[first] >= 1.0:
            first += 1
        most = max(most, n - first + 1)
    return most


def over_the_limit(at_s: Sequence[float], limit: int) -> int:
    """Calls that were the ``limit + 1``-th or a later one in the second that ends with them."""
    return sum(at_s[n] - at_s[n - limit] < 1.0 for n in range(limit, len(at_s)))


def fairness(workers: Sequence[int], processes: int) -> float:
    """Jain's index over processes: 1 if all sent the same number, 1/processes if one sent all."""
    counts = Counter(workers)
    squares = sum(counts[n] ** 2 for n in range(processes))
    return len(workers) ** 2 / (processes * squares) if squares else 0.0


def longest_gap_s(at_s: Sequence[float], from_s: float, to_s: float) -> float:
    """The longest silence that ends after ``from_s``, up to ``to_s``."""
    before = [at for at in at_s if at < from_s][-1:]
    edges = [*before, *(at for at in at_s if from_s <= at < to_s), to_s]
    return max(b - a for a, b in pairwise(edges))


def quantile(values: Sequence[float], q: float) -> float:
    """The value below which a share ``q`` lies; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else 0.0


def medians(runs: Sequence[Mapping[str, object]]) -> dict[str, float | None]:
    """The median of every number that all runs have; None where a run has none."""
    result: dict[str, float | None] = {}
    for name in runs[0]:
        values = [run[name] for run in runs]
        numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) == len(values):
            result[name] = statistics.median(numbers)
        elif all(v is None for v in values):
            result[name] = None
    return result
