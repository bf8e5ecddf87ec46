"""What the sample shows of a run and its segments: in its own order, and rarely wrong."""

import random

from s2v_tasks.domain.sample import ImageState, SampleResults, state_of

PASSED, FAILED, NEITHER, TAKEN = ImageState.PASSED, ImageState.FAILED, ImageState.NEITHER, ImageState.TAKEN
LOWEST = 0.5


def add(results: SampleResults, image: int, segment: str | None, state: ImageState) -> None:
    results.add(image, segment, state, to_run=True, to_segment=True)


def test_an_open_result_counts_against_the_stop_until_it_is_settled() -> None:
    """A response that comes later than those behind it does not end the sample; an error is no result."""
    results = SampleResults()
    for image in range(5):
        add(results, image, "a", TAKEN)
    for image in range(5, 15):
        add(results, image, "a", FAILED)
    assert not results.newly_hopeless(LOWEST)
    results.settle(0, NEITHER)
    results.settle(1, FAILED)
    assert not results.newly_hopeless(LOWEST)
    for image in (2, 3):
        results.settle(image, FAILED)
    found = results.newly_hopeless(LOWEST)
    assert set(found) == {"a", None}
    assert (found["a"].hits, found["a"].misses, found["a"].may_hit) == (0, 13, 1)
    assert state_of("unknown") == state_of("duplicate") == state_of("screened_out") == NEITHER


def test_an_early_image_is_in_the_runs_results_only_where_the_order_has_it() -> None:
    """Else the early images of a small segment would be more of the run's sample than of the run."""
    results = SampleResults()
    for image in range(30):
        results.add(image, "a", FAILED, to_run=False, to_segment=True)
    assert set(results.newly_hopeless(0.5)) == {"a"}
    for image in range(30):
        results.add(image, "a", FAILED, to_run=True, to_segment=False)
    assert set(results.newly_hopeless(0.5)) == {"a", None}
    results.add(30, "a", FAILED, to_run=True, to_segment=True)
    assert set(results.newly_hopeless(0.5, as_run=False)) == {"a"}
    assert not results.newly_hopeless(0.5)  # nothing has come since


def stops(rng: random.Random, rate: float, images: int) -> set[str | None]:
    """What is found hopeless of a run with three segments, one of which passes at ``rate`` and two at 0.9.

    Responses come in another order than the calls, and the results are evaluated after each.
    """
    results, found, under_way = SampleResults(), set[str | None](), list[int]()
    passes = {image: rng.random() < (rate if image % 3 == 0 else 0.9) for image in range(images)}
    for image in passes:
        add(results, image, "abc"[image % 3], TAKEN)
        under_way.append(image)
        if len(under_way) > 6:
            settled = under_way.pop(rng.randrange(6))
            results.settle(settled, PASSED if passes[settled] else FAILED)
            found |= set(results.newly_hopeless(0.6))
    return found


def test_a_segment_at_the_threshold_is_rarely_stopped_and_a_hopeless_one_is() -> None:
    """At most 5 % of the segments at exactly the threshold; 30 runs of each, 200 images a segment."""
    rng = random.Random(5)  # noqa: S311
    at_threshold = [stops(rng, 0.6, 600) for _ in range(30)]
    assert sum("a" in found for found in at_threshold) <= 3
    hopeless = [stops(rng, 0.1, 600) for _ in range(30)]
    assert all(found == {"a"} for found in hopeless)
    assert stops(rng, 0.0, 48) == {"a"}
