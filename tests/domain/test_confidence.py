"""Bounds of a rate in a random sample: cautious, in the right direction, and valid at every evaluation."""

import importlib.util
import sys
from math import lgamma
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2v_tasks.domain.confidence import OrderedResults, Tally

counts = st.integers(0, 300)
few = st.integers(0, 9)
rates = st.floats(0, 1)


def test_known_bounds() -> None:
    """Nothing is known before the first result; 116 passes without a missed one prove less than 5 %."""
    none = Tally(0, 0).bounds
    assert (none.low, none.high) == (0, 1)
    assert not Tally(0, 115).is_below(0.05)
    assert Tally(0, 116).is_below(0.05)
    assert Tally(4, 16).is_below(0.6)
    assert not Tally(6, 14).is_below(0.6)


@given(counts, counts, few, few, rates)
def test_bounds_contain_the_rate_seen_and_agree_with_the_comparisons(
    hits: int, misses: int, may_hit: int, may_miss: int, rate: float
) -> None:
    """0 to 1, whatever is open; a rate is below the lower bound or above the upper one, or neither."""
    tally = Tally(hits, misses, may_hit, may_miss)
    bounds = tally.bounds
    assert 0 <= bounds.low <= bounds.high <= 1
    if hits + misses:
        assert bounds.low - 1e-9 <= hits / (hits + misses) <= bounds.high + 1e-9
    if abs(rate - bounds.high) > 1e-9:
        assert tally.is_below(rate) == (rate > bounds.high)
    if abs(rate - bounds.low) > 1e-9:
        assert tally.is_above(rate) == (rate < bounds.low)


@given(counts, counts)
def test_hits_and_misses_are_each_others_mirror(hits: int, misses: int) -> None:
    """The bounds of the misses are those of the hits from the other end."""
    bounds, mirrored = Tally(hits, misses).bounds, Tally(misses, hits).bounds
    assert mirrored.low == pytest.approx(1 - bounds.high, abs=1e-9)
    assert mirrored.high == pytest.approx(1 - bounds.low, abs=1e-9)


@given(counts, counts, few, few, st.data())
def test_no_way_in_which_open_results_settle_passes_a_bound(
    hits: int, misses: int, may_hit: int, may_miss: int, data: st.DataObject
) -> None:
    """Each becomes what it may, or leaves the tally: a bound stated before is the wider one."""
    open_bounds = Tally(hits, misses, may_hit, may_miss).bounds
    became_hits, became_misses = data.draw(st.integers(0, may_hit)), data.draw(st.integers(0, may_miss))
    settled = Tally(hits + became_hits, misses + became_misses).bounds
    assert open_bounds.low - 1e-9 <= settled.low
    assert settled.high <= open_bounds.high + 1e-9


@given(st.lists(st.sampled_from([True, False, None]), max_size=40), st.data())
def test_results_count_in_the_samples_order_not_in_that_of_responses(
    results: list[bool | None], data: st.DataObject
) -> None:
    """Settled in any order, each prefix counts what it holds; in the end only the results matter."""
    ordered = OrderedResults()
    for number in range(len(results)):
        assert ordered.add() == number
    is_settled = [False] * len(results)
    for number in data.draw(st.permutations(range(len(results)))):
        ordered.settle(number, results[number])
        is_settled[number] = True
        cuts = [n for n, settled in enumerate(is_settled) if not settled]
        assert [*ordered.prefixes()] == [_tally(results[:n], is_settled) for n in [*cuts, len(results)]]
    assert [*ordered.prefixes()] == [_tally(results, is_settled)]


def test_a_slow_response_does_not_hide_the_results_before_it() -> None:
    """12 failures exclude 0.6 though the next 20 images are open; counted as passes, these would hide it."""
    ordered = OrderedResults()
    for number in [ordered.add() for _ in range(12)]:
        ordered.settle(number, hit=False)
    for _ in range(20):
        ordered.add()
    assert not Tally(0, 12, 20, 20).is_below(0.6)
    assert ordered.is_below(0.6)
    assert ordered.bounds.high == Tally(0, 12).bounds.high


def _tally(results: list[bool | None], is_settled: list[bool]) -> Tally:
    pairs = list(zip(results, is_settled, strict=False))
    is_open = sum(not settled for _, settled in pairs)
    hits = sum(settled and hit is True for hit, settled in pairs)
    return Tally(hits, sum(settled and hit is False for hit, settled in pairs), is_open, is_open)


@given(st.integers(0, 80), st.integers(0, 80), st.integers(0, 400), st.data())
def test_what_is_excluded_is_also_excluded_by_the_exact_ratio(
    hits: int, misses: int, others: int, data: st.DataObject
) -> None:
    """For a sample without replacement, of any number of images: the exact ratio is at least as strict."""
    images = hits + misses + others
    passes = data.draw(st.integers(hits, hits + others))
    rate = passes / images if images else 0.5
    if Tally(hits, misses).is_below(rate) or Tally(hits, misses).is_above(rate):
        prior = _log_beta(hits + 0.5, misses + 0.5) - _log_beta(0.5, 0.5)
        exact = _log_choose(others, passes - hits) - _log_choose(images, passes)
        assert prior - exact >= 2.99  # the logarithm of 20


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "bounds.py"
    spec = importlib.util.spec_from_file_location("bounds_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_simulated_bounds_hold(simulation: ModuleType) -> None:
    """The benchmark's rules at a fraction of its size."""
    found = simulation.figures(runs=6, segments=40, seed=1)
    seen = {name: row.get("share", row.get("calls")) for name, row in found.items()}
    assert not {name: seen[name] for name, row in found.items() if seen[name] > row.get("at most", 1)}
