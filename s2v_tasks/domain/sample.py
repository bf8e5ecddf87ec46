"""Sample results: what the random sample shows of a run and of its segments, while the run goes on.

The order of the sample is that of `s2v_tasks.domain.audit`. Each image is added in that order, whatever the
order of the responses: one without a result yet is open, and counts against each bound until it is settled.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import IntEnum
from itertools import chain, combinations
from typing import Final

from s2v_tasks.domain.confidence import OrderedResults, Tally
from s2v_tasks.models import Outcome


class ImageState(IntEnum):
    """What is known of an image. ``NEITHER``: it is no attempt, or its outcome says nothing of the image.

    That is an error, a lost response, or a copy of another image.
    """

    WAITING = 0
    TAKEN = 1
    PASSED = 2
    FAILED = 3
    NEITHER = 4


_STATES: Final = {Outcome.PASSED.value: ImageState.PASSED, Outcome.FAILED.value: ImageState.FAILED}
_HITS: Final = {ImageState.PASSED: True, ImageState.FAILED: False}


def state_of(outcome: str) -> ImageState:
    """The state of an image with an outcome; ``skipped`` is none."""
    return _STATES.get(outcome, ImageState.NEITHER)


@dataclass(frozen=True, slots=True)
class _Place:
    """An image in results, by its number there; ``hits``: what it is in each state, neither if not there."""

    results: OrderedResults
    number: int
    hits: Mapping[ImageState, bool]

    @classmethod
    def appended(cls, results: OrderedResults, hits: Mapping[ImageState, bool]) -> "_Place":
        """Append an open result, with what it can become."""
        may = set(hits.values())
        return cls(results, results.add(may_hit=True in may, may_miss=False in may), hits)


class SampleResults:
    """Results in the sample's order: of the run, and of each segment, by its name.

    Without a segment column the only segment is None. An image is added to each once. Memory: the open
    results and those behind them.

    ``missed``: for each set of ``rules`` the passed images of the run's sample whose faces are known; those
    that a rule of the set would drop are the hits.
    """

    def __init__(self, rules: Collection[str] = ()) -> None:
        self.run = OrderedResults()
        sets = (combinations(rules, size) for size in range(1, len(rules) + 1))
        self.missed = {frozenset(one): OrderedResults() for one in chain.from_iterable(sets)}
        self.segments: defaultdict[str | None, OrderedResults] = defaultdict(OrderedResults)
        self._open: dict[int, tuple[str | None, list[_Place]]] = {}
        self._changed: set[str | None] = set()

    def add(
        self,
        image: int,
        segment: str | None,
        state: ImageState,
        *,
        to_run: bool,
        to_segment: bool,
        rule: str | None = None,
        is_seen: bool = True,
    ) -> None:
        """Append an image by its number: its result, or an open one (``TAKEN``).

        ``rule``: that drops it; ``is_seen``: its faces are known.
        """
        _, places = self._open.setdefault(image, (segment, []))
        if to_segment:
            places.append(_Place.appended(self.segments[segment], _HITS))
        if to_run:
            places.append(_Place.appended(self.run, _HITS))
            for rules, results in self.missed.items() if is_seen else ():
                places.append(_Place.appended(results, {ImageState.PASSED: rule in rules}))
        if state != ImageState.TAKEN:
            self.settle(image, state)

    def settle(self, image: int, state: ImageState) -> None:
        """Settle what is open of an image, if it was added at all."""
        segment, places = self._open.pop(image, (None, []))
        for place in places:
            place.results.settle(place.number, place.hits.get(state))
            self._changed.add(segment)

    def newly_hopeless(self, rate: float, *, as_run: bool = True) -> dict[str | None, Tally]:
        """What can't reach a pass rate, with the results that show it: segments, and None for the run.

        Only those with a result since the last call are evaluated. ``as_run``: whether the run must reach it
        as a whole; without, each segment is evaluated alone.
        """
        found = {name: self.segments[name].below(rate) for name in self._changed}
        if self._changed and as_run:
            found[None] = self.run.below(rate) or found.get(None)
        self._changed.clear()
        return {name: shown for name, shown in found.items() if shown is not None}
