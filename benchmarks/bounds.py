"""Whether the bounds of a random sample hold: of missed passes, and of a pass rate that can't be reached.

Simulates runs, sources and what a face check drops, from a seed, so each image's truth is known. Bounds are
evaluated after each response, while other calls are under way. No network. How to run: README.md.
"""

import argparse
import json
import random
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import chain
from math import inf
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from s2v_tasks.domain.confidence import ERROR_LEVEL, OrderedResults

CALLS_PER_S: Final = 5
RESPONSE_S: Final = (0.3, 2.0)
"""Between these, uniformly: about 6 calls are under way."""
ALLOWED: Final = 0.05
"""The highest missed share that a run may have."""
SOURCE_SAMPLE: Final = 60
"""Sampled images of each source."""


@dataclass(frozen=True, slots=True)
class Image:
    """What is true of an image: whether it passes, and whether the face check drops it."""

    passes: bool
    dropped: bool
    source: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """What is known of a sample: passes of all images, and dropped passes of all passes; calls so far."""

    pass_rate: OrderedResults
    missed_share: OrderedResults
    calls: int


def looks(rng: random.Random, order: Iterable[Image]) -> Iterator[Sample]:
    """The sample after each response; they come in another order than the calls were sent."""
    pass_rate, missed_share = OrderedResults(), OrderedResults()
    under_way: list[tuple[float, int, Image, int]] = []
    for calls, image in enumerate(chain(order, [None])):
        sent_at_s = inf if image is None else calls / CALLS_PER_S
        while under_way and under_way[0][0] <= sent_at_s:
            _, number, settled, missed = heappop(under_way)
            pass_rate.settle(number, settled.passes)
            missed_share.settle(missed, settled.dropped if settled.passes else None)
            yield Sample(pass_rate, missed_share, calls)
        if image is not None:
            missed = missed_share.add(may_hit=image.dropped, may_miss=not image.dropped)
            responds_at_s = sent_at_s + rng.uniform(*RESPONSE_S)
            heappush(under_way, (responds_at_s, pass_rate.add(), image, missed))


def share_of_missed(images: Sequence[Image]) -> float:
    """The truth: dropped passes of all passes."""
    passes = [image.dropped for image in images if image.passes]
    return sum(passes) / max(len(passes), 1)


def runs_with_a_wrong_bound(rng: random.Random, runs: int) -> float:
    """The share of runs whose true missed share was above the stated bound at any time."""
    wrong = 0
    for _ in range(runs):
        pass_rate, missed = rng.uniform(0.05, 0.6), rng.choice([0.01, 0.03, 0.05, 0.1, 0.3])
        images = [
            Image(passes, rng.random() < (missed if passes else 0.7))
            for passes in (rng.random() < pass_rate for _ in range(3000))
        ]
        truth = share_of_missed(images)
        wrong += any(sample.missed_share.is_below(truth) for sample in looks(rng, images[:1000]))
    return wrong / runs


@dataclass(frozen=True, slots=True)
class Caught:
    """How a filter that drops all good images of one source is found, as shares of the runs."""

    by_run: float
    by_source: float
    by_neither: float
    innocent_sources_shown: float


def one_source_dropped(rng: random.Random, runs: int, sources: int) -> Caught:
    """Drop the good images of one of so many sources; 2,000 images, pass rate 0.3, the run's sample 600.

    The run catches it if its bound is above what is allowed; a source shows it if its lower bound is.
    """
    by_run = by_source = neither = innocent = 0
    for _ in range(runs):
        images = [
            Image(passes, passes and source == 0, source)
            for passes, source in ((rng.random() < 0.3, rng.randrange(sources)) for _ in range(2000))
        ]
        *_, whole = looks(rng, images[:600])
        closed = not whole.missed_share.is_below(ALLOWED)
        shown = [_is_shown(rng, images, source) for source in range(sources)]
        by_run += closed
        by_source += shown[0]
        neither += not closed and not shown[0]
        innocent += sum(shown[1:])
    return Caught(by_run / runs, by_source / runs, neither / runs, innocent / (runs * (sources - 1)))


def _is_shown(rng: random.Random, images: Sequence[Image], source: int) -> bool:
    own = [image for image in images if image.source == source][:SOURCE_SAMPLE]
    return any(sample.missed_share.is_above(ALLOWED) for sample in looks(rng, own))


def checks_until_hopeless(
    rng: random.Random, segments: int, rate: float, threshold: float, images: int = 2000
) -> list[int | None]:
    """Calls of each segment until it stops as hopeless, those under way included; None: it never does.

    Exactly that share of a segment's images passes.
    """
    found: list[int | None] = []
    for _ in range(segments):
        order = [Image(n < round(rate * images), dropped=False) for n in range(images)]
        rng.shuffle(order)
        stops = (sample.calls for sample in looks(rng, order) if sample.pass_rate.is_below(threshold))
        found.append(next(stops, None))
    return found


def figures(runs: int, segments: int, seed: int) -> dict[str, dict[str, float]]:
    """Every figure, with what is wanted of it, by what it says."""
    rng = random.Random(seed)  # noqa: S311
    wrong = runs_with_a_wrong_bound(rng, runs)
    false_stops = checks_until_hopeless(rng, segments, 0.6, 0.6)
    hopeless = [n for n in checks_until_hopeless(rng, segments, 0.3, 0.6) if n is not None]
    found = {
        "runs whose true missed share was above the bound": {"share": wrong, "at most": ERROR_LEVEL},
        "false stops at exactly the threshold": {
            "share": sum(n is not None for n in false_stops) / segments,
            "at most": ERROR_LEVEL,
        },
        "calls until a hopeless segment stops (0.3 against 0.6), median": {
            "calls": statistics.median(hopeless),
            "at most": 30,
        },
        "hopeless segments that never stop": {"share": 1 - len(hopeless) / segments, "at most": 0.0},
    }
    for sources in (5, 30):
        caught = one_source_dropped(rng, max(runs // 10, 3), sources)
        name = f"one of {sources} sources dropped"
        found[f"{name}: caught by the run's bound"] = {"share": caught.by_run}
        found[f"{name}: shown by the source's"] = {"share": caught.by_source}
        found[f"{name}: by neither"] = {"share": caught.by_neither, "at most": 0.0}
        found[f"{name}: innocent sources shown"] = {
            "share": caught.innocent_sources_shown,
            "at most": ERROR_LEVEL,
        }
    return found


def main() -> None:
    """Print the figures, and end with 1 if one is not as wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--segments", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write every figure here")
    args = parser.parse_args()
    found = figures(args.runs, args.segments, args.seed)
    table = Table("simulated", "seen", "at most")
    for name, row in found.items():
        seen = f"{row['share']:.2%}" if "share" in row else f"{row['calls']:g}"
        table.add_row(name, seen, f"{row['at most']:g}" if "at most" in row else "")
    Console().print(table)
    if args.json:
        args.json.write_text(json.dumps(found, indent=2))
    failed = any(row.get("share", row.get("calls", 0)) > row.get("at most", 1) for row in found.values())
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
