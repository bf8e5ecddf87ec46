"""Faces and the audit: the order of checks, and the random sample that gives the pass rate."""

import polars as pl
import pytest

from s2v_tasks.domain import audit, faces, gate_rules
from s2v_tasks.domain.audit import AuditedRows
from s2v_tasks.domain.confidence import Tally
from s2v_tasks.domain.faces import Faces, faces_of
from s2v_tasks.domain.image_url import image_key
from s2v_tasks.domain.summary import summarize, tallies_of

KEYS = [image_key(f"https://a.example/{n}.jpg") for n in range(4000)]


def bucket_of(seen: Faces) -> int:
    row = ("k", seen.faces_seen, seen.face_score, seen.face_height_share)
    bucket: int = pl.DataFrame([row], schema=faces.SCHEMA, orient="row").select(faces.bucket()).item()
    return bucket


def test_an_image_with_one_large_clear_face_comes_first() -> None:
    """Then a small or turned one, an unknown one, several faces, and none."""
    order = [
        faces_of([[0.94, 0.5], [0.9, 0.1]]),  # a small second face is in the background
        faces_of([[0.93, 0.2]]),
        Faces(),
        faces_of([[0.93, 0.3], [0.9, 0.2]]),
        faces_of([]),
    ]
    buckets = [bucket_of(seen) for seen in order]
    assert buckets == sorted(set(buckets), reverse=True)
    assert buckets[-1] == 0
    assert bucket_of(faces_of([[1.0, 3.0]])) == faces.BUCKETS - 1


def test_the_sample_has_its_share_of_the_calls() -> None:
    """At most 30 % while an early image waits, then a tenth; what it can't use it may use later."""
    share, sampled, at = audit.Share(), 0, {}
    for checked in range(0, 4001, 5):
        at[checked] = sampled
        assert sampled <= 0.3 * checked
        is_early = sampled < 60
        due = share.due(5, is_early=is_early)
        share.took(due, 5, is_early=is_early)
        sampled += due
    assert (at[200], at[1200], at[4000]) == (60, 160, 440)
    for _ in range(200):
        share.took(0, 5, is_early=False)
    assert share.due(5, is_early=False) == 5
    assert share.due(5, is_early=True) == 5


@pytest.mark.parametrize("partitions", [1, 3])
def test_the_order_depends_on_seed_and_keys_alone(partitions: int) -> None:
    """It has nothing to do with the input's order; another seed gives another; a partition stays together."""
    images = pl.DataFrame({"image_key": KEYS})

    def order(seed: int, rows: pl.DataFrame = images) -> list[str]:
        return rows.sort(audit.position(seed, partitions))["image_key"].to_list()

    assert order(1) == order(1, images.reverse())
    assert order(1) != order(2)
    assert images.select(audit.position(1, partitions)).to_series().n_unique() == len(KEYS)
    first = {key[:1] for key in order(1)[: len(KEYS) // partitions // 2]}
    assert len(first) == -(-16 // partitions) or partitions == 1
    places = {key: n for n, key in enumerate(order(3))}
    early = sum(places[key] < len(KEYS) / 2 for key in KEYS[::2])
    assert 900 < early < 1100  # a random half of any half


def test_the_sample_ends_before_the_first_skipped_image() -> None:
    """Duplicates and rejected URLs represent no image; without a skipped one the sample is everything."""
    rows = pl.DataFrame({"image_key": [*KEYS[:6], None], "outcome": ["passed"] * 6 + ["screened_out"]})
    ranked = rows.sort(audit.position(0, 1), nulls_last=True).with_row_index("n")

    def audited(*outcomes: str) -> list[bool]:
        frame = ranked.with_columns(pl.Series("outcome", outcomes), pl.lit("run_stopped").alias("reason"))
        rows = AuditedRows(0, 1, None, {None})
        rows.read(frame)
        assert rows.marked(frame)["reason"].to_list() == ["run_stopped"] * 7
        return rows.marked(frame)["audited"].to_list()

    passed = ["passed"] * 5
    assert audited(*passed, "duplicate", "screened_out") == [*[True] * 5, False, False]
    assert audited("failed", "passed", "skipped", "passed", "skipped", "passed", "screened_out") == [
        True, True, False, False, False, False, False,
    ]  # fmt: skip
    assert not any(audited("skipped", *passed, "screened_out"))


def test_each_segment_has_a_sample_of_its_own() -> None:
    """The end of one is not that of another, in whatever slices the rows come; the reason shows a stop."""
    frame = pl.DataFrame(
        {
            "image_key": KEYS[:8],
            "source": ["a", None] * 4,
            "outcome": ["failed", "passed", "skipped", "passed", "failed", "passed", "failed", "skipped"],
            "reason": [None, None, "budget_exhausted", None, None, None, None, "budget_exhausted"],
        }
    )
    place = frame.select(audit.position(3, 1)).to_series()
    frame = frame.with_columns(pl.Series("image_key", frame["image_key"].gather(place.arg_sort())))
    for size in (8, 3):
        rows = AuditedRows(3, 1, "source", {"a"})
        for part in frame.iter_slices(size):
            rows.read(part)
        marked = pl.concat(rows.marked(part) for part in frame.iter_slices(size))
        assert marked["audited"].to_list() == [True, True, False, True, False, True, False, False]
        assert marked["reason"].drop_nulls().to_list() == ["hopeless", "budget_exhausted"]
    everything = AuditedRows(3, 1, "source", ())
    assert everything.marked(frame)["audited"].all()


def test_the_gates_pass_rate_is_the_samples() -> None:
    """Images that were checked because they were likely to pass don't raise it; counts are of all."""
    rows = [("passed", False)] * 90 + [("passed", True)] * 2 + [("failed", True)] * 8
    frame = pl.DataFrame(rows, schema={"outcome": pl.String, "audited": pl.Boolean}, orient="row")
    more = {"image_key": "k", "reason": None, "run_cost_usd": 0.0, "lifetime_cost_usd": 0.0}
    more |= {"faces_seen": None, "audited_in_run": None}
    verdicts = frame.with_columns(pl.lit(value).alias(name) for name, value in more.items()).lazy()

    def rate(of: pl.LazyFrame) -> tuple[int, float | None]:
        (found,) = gate_rules.read_facts(gate_rules.facts_of(of).collect())
        return found.attempted, found.pass_rate

    assert rate(verdicts) == (100, 0.2)
    assert rate(verdicts.with_columns(pl.lit(None, pl.Boolean).alias("audited"))) == (100, 0.92)
    assert rate(verdicts.with_columns(pl.lit(value=False).alias("audited"))) == (100, None)


@pytest.mark.parametrize(("reasons", "share"), [(["budget_exhausted"] * 2, 0.5), (["hopeless"] * 2, 0.0)])
def test_what_is_hopeless_is_not_left_over_by_the_budget(reasons: list[str], share: float) -> None:
    """It is skipped, but no larger budget would check it: the gate's share and the status leave it out."""
    rows = [("passed", None), ("failed", "no_human"), *(("skipped", reason) for reason in reasons)]
    frame = pl.DataFrame(rows, schema={"outcome": pl.String, "reason": pl.String}, orient="row")
    more = {
        "image_key": "k",
        "audited": None,
        "audited_in_run": None,
        "faces_seen": None,
        "from_ledger": False,
        "run_cost_usd": 0.0,
        "lifetime_cost_usd": 0.0,
    }
    verdicts = frame.with_columns(pl.lit(value).alias(name) for name, value in more.items())
    verdicts = verdicts.with_columns(pl.col("audited").cast(pl.Boolean)).lazy()
    (facts,) = gate_rules.read_facts(gate_rules.facts_of(verdicts).collect())
    assert (facts.skipped, facts.skipped_share) == (2, share)
    assert summarize(tallies_of(verdicts).collect()).left_over == 4 * share


def test_the_message_of_a_stop_names_the_segment_and_what_shows_it() -> None:
    """A segment may be a signed URL; None is the run."""
    message = audit.hopeless_message("https://a.example/list?key=secret", Tally(1, 19, 2), 0.6)
    assert message.startswith("no more images of https://a.example/list?... are checked: 1 of 20 images")
    assert message.endswith("so the pass rate is at most 44%; the gate wants 60%")
    assert audit.hopeless_message(None, Tally(0, 9), 0.5).startswith("no more images are checked: 0 of 9")
