"""Confidence sequence: bounds of a rate in a random sample, valid at every evaluation.

For decisions that follow a sample result by result, such as to stop. An interval for a fixed number of
results, such as Wilson's, is then wrong far more often than it says. These bounds are wrong at any time at
all, above or below, with a probability of at most `ERROR_LEVEL`. By them a run with a random sample stops
where it is hopeless and proves the rules that drop images; ``benchmarks/bounds.py`` simulates such runs.

For each possible rate, `_evidence` compares how likely the results are if the rate is drawn from Jeffreys'
prior with how likely they are at that rate. At the true rate the ratio is a martingale with mean 1, so it
ever reaches 1 / `ERROR_LEVEL` with a probability of at most `ERROR_LEVEL` (Ville's inequality). Rates at
which it does are excluded.

Source: Waudby-Smith and Ramdas, Confidence sequences for sampling without replacement, NeurIPS 2020
(arXiv:2006.04347): the ratio of prior and posterior. Here the results count as drawn with replacement. For a
sample without replacement that is cautious: what is excluded here is also excluded by the exact ratio, for
every number of images.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, lgamma, log
from typing import Final

from s2v_tasks.domain.interval import Span

ERROR_LEVEL: Final = 0.05

_PRIOR: Final = 0.5  # hits and misses before the first result: Jeffreys
_STEPS: Final = 40  # bisections: the last digits of a share don't matter


@dataclass(frozen=True, slots=True)
class Tally:
    """Results of a prefix of a random sample, for a rate: hits / (hits + misses).

    ``may_hit`` and ``may_miss`` are open results of the prefix that can still become one; a result that
    can become either is in both. Each bound takes the worst case: an open result counts against it.
    """

    hits: int
    misses: int
    may_hit: int = 0
    may_miss: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.hits + other.hits,
            self.misses + other.misses,
            self.may_hit + other.may_hit,
            self.may_miss + other.may_miss,
        )

    def __sub__(self, other: "Tally") -> "Tally":
        return Tally(
            self.hits - other.hits,
            self.misses - other.misses,
            self.may_hit - other.may_hit,
            self.may_miss - other.may_miss,
        )

    @property
    def is_open(self) -> bool:
        """Whether any result is open."""
        return bool(self.may_hit or self.may_miss)

    @property
    def bounds(self) -> Span:
        """The lowest and the highest rate that are not excluded."""
        low = 1 - _upper(self.misses + self.may_miss, self.hits)
        return Span(low, _upper(self.hits + self.may_hit, self.misses))

    def is_below(self, rate: float) -> bool:
        """Whether the upper bound is below a rate; quicker than `bounds`."""
        return _excludes_from(rate, self.hits + self.may_hit, self.misses)

    def is_above(self, rate: float) -> bool:
        """Whether the lower bound is above a rate; quicker than `bounds`."""
        return _excludes_from(1 - rate, self.misses + self.may_miss, self.hits)


class OrderedResults:
    """Results of a sample in the sample's order, whatever the order of the responses.

    The bounds hold for all prefixes at once, so the narrowest counts: a short one without open results, or a
    longer one with some. Memory: all before the first open result are only counted.
    """

    def __init__(self) -> None:
        self._head = self._whole = Tally(0, 0)
        self._tail: deque[Tally] = deque()  # the first is open; each is one result
        self._first = 0

    def add(self, *, may_hit: bool = True, may_miss: bool = True) -> int:
        """Append an open result, with what it can become, and return its number for `settle`."""
        result = Tally(0, 0, int(may_hit), int(may_miss))
        self._tail.append(result)
        self._whole += result
        return self._first + len(self._tail) - 1

    def settle(self, number: int, hit: bool | None) -> None:
        """Settle an open result: a hit, a miss, or neither."""
        result = Tally(int(hit is True), int(hit is False))
        self._whole = self._whole - self._tail[number - self._first] + result
        self._tail[number - self._first] = result
        while self._tail and not self._tail[0].is_open:
            self._head += self._tail.popleft()
            self._first += 1

    @property
    def settled(self) -> Tally:
        """The results before the first open one."""
        return self._head

    @property
    def whole(self) -> Tally:
        """All results, with the open ones."""
        return self._whole

    def prefixes(self) -> Iterator[Tally]:
        """The prefixes that end before an open result, and the whole, shortest first."""
        prefix = self._head
        for result in self._tail:
            if result.is_open:
                yield prefix
            prefix += result
        yield prefix

    @property
    def bounds(self) -> Span:
        """The highest lower bound and the lowest upper bound of the prefixes."""
        found = [prefix.bounds for prefix in self.prefixes()]
        return Span(max(one.low for one in found), min(one.high for one in found))

    def below(self, rate: float) -> Tally | None:
        """The shortest prefix whose upper bound is below a rate; None: there is none."""
        return next((prefix for prefix in self.prefixes() if prefix.is_below(rate)), None)

    def is_below(self, rate: float) -> bool:
        """Whether the upper bound is below a rate."""
        return self.below(rate) is not None

    def above(self, rate: float) -> Tally | None:
        """The shortest prefix whose lower bound is above a rate; None: there is none."""
        return next((prefix for prefix in self.prefixes() if prefix.is_above(rate)), None)

    def is_above(self, rate: float) -> bool:
        """Whether the lower bound is above a rate."""
        return self.above(rate) is not None


def _excludes_from(rate: float, hits: int, misses: int) -> bool:
    """Whether this rate and all higher ones are excluded."""
    return hits < rate * (hits + misses) and _evidence(rate, hits, misses) >= -log(ERROR_LEVEL)


def _upper(hits: int, misses: int) -> float:
    """The upper bound, up to 1e-12 too high."""
    low, high = (hits / (hits + misses) if hits + misses else 1.0), 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if _excludes_from(middle, hits, misses) else (middle, high)
    return high


def _evidence(rate: float, hits: int, misses: int) -> float:
    """The logarithm of the ratio: results under the prior / results at this rate."""
    return (
        _log_beta(_PRIOR + hits, _PRIOR + misses)
        - _log_beta(_PRIOR, _PRIOR)
        - _times_log(hits, rate)
        - _times_log(misses, 1 - rate)
    )


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _times_log(count: int, share: float) -> float:
    if not count:
        return 0.0
    return count * log(share) if share > 0 else -inf
