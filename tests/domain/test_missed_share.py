"""What the rules of the face check give up: measured in the run's sample alone, bounded, by rule."""

import random

import polars as pl
import pytest

from s2v_tasks.domain import missed_share
from s2v_tasks.domain.confidence import Tally
from s2v_tasks.domain.faces import BUCKET_OF, BUCKETS, Faces, bucket, rule_of
from s2v_tasks.domain.gate_rules import facts_of, read_facts
from s2v_tasks.domain.sample import ImageState, SampleResults
from s2v_tasks.models import Facts

Row = tuple[str, str | None, int | None, bool, bool]
PASSED_ROW: Row = ("passed", None, 1, True, True)


def facts(rows: list[Row]) -> tuple[Facts, ...]:
    """The facts of rows: outcome, reason, faces, whether in the segment's sample and in that of the run."""
    schema = {"outcome": pl.String, "reason": pl.String, "faces_seen": pl.Int64, "audited": pl.Boolean,
              "audited_in_run": pl.Boolean}  # fmt: skip
    more = {"source": "a", "image_key": "k", "run_cost_usd": 0.0, "lifetime_cost_usd": 0.0}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    verdicts = frame.with_columns(pl.lit(value).alias(name) for name, value in more.items())
    return read_facts(facts_of(verdicts.lazy(), "source").collect())


@pytest.mark.parametrize(
    ("seen", "rule"),
    [(0, "no_face"), (2, "several_faces"), (5, "several_faces"), (1, None), (None, None)],
)
def test_a_rule_drops_its_bucket_and_nothing_else(seen: int | None, rule: str | None) -> None:
    """An unknown image and one with a faint, small face are in no bucket of a rule."""
    faint = Faces(seen, None, None) if not seen else Faces(seen, 0.6, 0.01)
    frame = pl.DataFrame([faint], schema_overrides={"faces_seen": pl.Int64, "face_score": pl.Float64,
                                                    "face_height_share": pl.Float64})  # fmt: skip
    found = frame.select(rule_of(list(BUCKET_OF)), bucket()).row(0)
    assert found[0] == rule
    assert {name for name, of in BUCKET_OF.items() if of == found[1]} == ({rule} if rule else set())
    assert frame.select(rule_of([])).item() is None
    assert all(0 <= of < BUCKETS for of in BUCKET_OF.values())


def test_only_passes_of_the_runs_sample_count() -> None:
    """Likely images and a segment's early ones say nothing of the run; failed ones nothing at all."""
    dropped: Row = ("screened_out", "no_face", 0, False, False)
    rows = [PASSED_ROW] * 130 + [("failed", "no_human", 0, True, True)] * 50 + [dropped] * 40
    overall, segment = facts(rows)
    assert overall.dropped == 40
    assert overall.missed_share_upper == overall.no_face_missed_upper == Tally(0, 130).bounds.high < 0.05
    assert (segment.dropped, segment.missed_share_upper) == (None, None)
    assert segment.no_face_missed_upper == overall.no_face_missed_upper
    assert overall.several_faces_missed_upper is None

    likely: list[Row] = [("passed", None, 1, False, False)] * 500
    early: list[Row] = [("passed", None, 0, True, False)] * 5
    more, of_segment = facts(rows + likely + early)
    assert more.missed_share_upper == overall.missed_share_upper
    assert of_segment.no_face_missed_upper == Tally(5, 130).bounds.high


def test_a_rule_that_dropped_nothing_gave_nothing_up() -> None:
    """Of two rules each has its bound, and both together theirs."""
    missed: list[Row] = [("passed", None, 0, True, True)] * 2 + [("passed", None, 2, True, True)] * 3
    none, _ = facts([PASSED_ROW] * 195 + missed)
    assert (none.dropped, none.missed_share_upper) == (0, None)
    rows = [PASSED_ROW] * 195 + missed + [("screened_out", "several_faces", 2, False, False)]
    one, _ = facts(rows)
    assert one.missed_share_upper == one.several_faces_missed_upper == Tally(3, 197).bounds.high
    both, _ = facts([*rows, ("screened_out", "no_face", 0, False, False)])
    assert both.missed_share_upper == Tally(5, 195).bounds.high
    assert both.no_face_missed_upper == Tally(2, 198).bounds.high


@pytest.mark.parametrize(
    ("images", "sample", "limit", "out_of_reach"),
    [
        (250, Tally(0, 0), 0.05, True),
        (300, Tally(0, 0), 0.05, False),
        (10_000, Tally(0, 59), 0.05, False),
        (10_000, Tally(0, 60), 0.05, True),
        (1_000, Tally(15, 85), 0.05, True),
        (2_000, Tally(15, 85), 0.05, False),
        (2_000, Tally(15, 85), 0.01, True),
        (2_000, Tally(15, 85), 0.0, True),
    ],
    ids=str,
)
def test_where_the_proof_is_most_of_the_run_no_rule_is_used(
    images: int, sample: Tally, limit: float, out_of_reach: bool
) -> None:
    """130 / pass rate against half of the images; few results say nothing of the rate yet."""
    assert missed_share.is_out_of_reach(images, sample, limit) is out_of_reach
    assert "only ordered" in missed_share.out_of_reach_message(images, sample, limit)


def test_passes_of_unknown_faces_prove_nothing() -> None:
    """The verdict may be another run's, whose sample was the same; neither in the run nor after it."""
    unknown: list[Row] = [("passed", None, None, True, True)] * 130
    dropped: Row = ("screened_out", "no_face", 0, False, False)
    assert facts([*unknown, dropped])[0].missed_share_upper == Tally(0, 0).bounds.high == 1.0
    results = SampleResults(["no_face"])
    for image, state in enumerate((ImageState.PASSED, ImageState.TAKEN)):
        results.add(image, "a", state, to_run=True, to_segment=True, is_seen=False)
    assert results.missed[frozenset({"no_face"})].whole == Tally(0, 0)
    assert results.run.whole == results.segments["a"].whole == Tally(1, 0, 1, 1)


def test_a_share_of_few_is_not_used() -> None:
    """It counts as 1, which leaves the rules in use: one that is switched off stays off."""
    assert (missed_share.share(1, 59), missed_share.share(6, 60), missed_share.share(0, 0)) == (1.0, 0.1, 1.0)


def test_an_open_image_counts_against_the_proof_until_it_is_settled() -> None:
    """If a rule would drop it, it may be a miss; a failed or unknown one is none. Rules count by sets."""
    results = SampleResults(["no_face", "several_faces"])
    for image, rule in enumerate(["no_face", None, "several_faces"]):
        results.add(image, "a", ImageState.TAKEN, to_run=True, to_segment=True, rule=rule)
    results.add(3, "a", ImageState.PASSED, to_run=False, to_segment=True, rule="no_face")
    no_face, several = (results.missed[frozenset({rule})] for rule in ("no_face", "several_faces"))
    both = results.missed[frozenset({"no_face", "several_faces"})]
    assert no_face.whole == several.whole == Tally(0, 0, 1, 2)
    assert both.whole == Tally(0, 0, 2, 1)
    results.settle(2, ImageState.PASSED)
    results.settle(1, ImageState.FAILED)
    results.settle(0, ImageState.NEITHER)
    assert (no_face.whole, several.whole, both.whole) == (Tally(0, 1), Tally(1, 0), Tally(1, 0))
    assert both.settled == both.whole


def test_the_true_share_is_rarely_above_the_bound() -> None:
    """In at most 5 % of simulated samples whose share is right at the threshold a proof is found."""
    rng = random.Random(7)  # noqa: S311
    proven = 0
    for _ in range(200):
        hits = misses = 0
        while misses < 400:
            hits, misses = (hits + 1, misses) if rng.random() < 0.05 else (hits, misses + 1)
            if Tally(hits, misses).is_below(0.05):
                proven += 1
                break
    assert proven <= 10
