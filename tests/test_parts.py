"""Rows in parts: whatever their number, the same rows come out as if they had been one."""

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2v_tasks import candidates as stage1
from s2v_tasks import verdicts as stage5
from s2v_tasks.errors import ConservationError
from s2v_tasks.models import Billing, Outcome, Screened, Verdict
from s2v_tasks.parts import Parts, check_unique, summary_of

ROWS, PART_ROWS = 6_000, 2_500


def candidates(rows: int) -> pl.LazyFrame:
    """A tenth repeats an earlier picture, some are no addresses."""
    n = pl.int_range(rows, eager=True).alias("n").to_frame()
    name = pl.when(pl.col("n") % 10 == 3).then(pl.col("n") // 2).otherwise("n")
    url = pl.when(pl.col("n") % 97 == 5).then(None).otherwise(pl.format("https://a.example/{}.jpg", name))
    return n.select(url.alias("image_url"), (pl.col("n") * 2).alias("twice")).lazy()


def told_about(parts: Parts) -> None:
    """The screen throws out a third, the service passes a third, nobody reaches the rest."""
    for part in range(parts.count):
        keys = parts.unique(part).select("image_key", pl.col("image_key").str.slice(-1).alias("last"))
        out = keys.filter(pl.col("last").is_in(list("01234")))["image_key"]
        passed = keys.filter(pl.col("last").is_in(list("56789")))["image_key"]
        parts.keep_screened(stage5.screened_frame(Screened(key, "too_small", 1, 1, "png") for key in out))
        verdicts = (
            Verdict(
                key, Outcome.PASSED, check_pass=True, billing=Billing.BILLED, attempts=1, paid_micro_usd=574
            )
            for key in passed
        )
        parts.keep_judged(stage5.judged_frame(verdicts))


def test_many_parts_give_what_one_frame_gives(tmp_path: Path) -> None:
    """Every row once, in input order, its own columns beside it, duplicates found across the file."""
    rows = candidates(ROWS)
    parts = Parts(tmp_path / "work", PART_ROWS)
    parts.cut(rows, "image_url")
    assert (parts.rows, parts.count) == (ROWS, 3)
    told_about(parts)
    counts = parts.write(rows, tmp_path / "verdicts.parquet", "budget_spent")
    written = pl.read_parquet(tmp_path / "verdicts.parquet")
    assert written.columns == ["image_url", "twice", *stage5.SCHEMA]
    assert written["row"].equals(pl.int_range(ROWS, eager=True).alias("row"))
    assert written["twice"].equals((written["row"] * 2).alias("twice"))
    assert sum(counts.values()) == ROWS

    whole = stage1.identify(rows, "image_url").collect()
    assert written.select("image_key", "duplicate_of").equals(whole.select("image_key", "duplicate_of"))
    assert parts.pictures == stage1.fresh(whole.lazy()).collect().height
    last = written["image_key"].str.slice(-1)
    unique = written.filter(pl.col("duplicate_of").is_null(), pl.col("image_key").is_not_null())
    for outcome, digits in (("screened_out", "01234"), ("passed", "56789"), ("unspent", "abcdef")):
        expected = unique.filter(pl.col("image_key").str.slice(-1).is_in(list(digits)))
        assert set(expected["outcome"]) == {outcome}
    copies = written.with_columns(last=last).filter(outcome="duplicate")
    assert copies.filter(pl.col("last").is_in(list("56789")))["check_pass"].all()
    summary = summary_of(tmp_path / "verdicts.parquet")
    assert (summary.rows, summary.passed, summary.duplicates) == (ROWS, counts["passed"], counts["duplicate"])
    assert summary.data_set_cost_usd == pytest.approx(574e-6 * counts["passed"])


def test_the_same_bytes_are_found_across_parts(tmp_path: Path) -> None:
    """Pictures asked as another: one of them stands, the first row; and told twice, it still is one row."""
    rows = candidates(ROWS)
    parts = Parts(tmp_path / "work", PART_ROWS)
    parts.cut(rows, "image_url")
    uniques = pl.concat([parts.unique(part) for part in range(parts.count)]).sort("row")
    # Half of them in groups of three, asked as the last of the group; one group as a picture not among them.
    groups = uniques.head(uniques.height // 2).with_columns(group=pl.int_range(pl.len()) // 3)
    stands = pl.col("image_key").last().over("group")
    asked = groups.select(
        "image_key", "row", asked_key=pl.when(group=0).then(pl.lit("0" * 32)).otherwise(stands)
    )
    parts.keep_same(asked.filter(pl.col("image_key") != pl.col("asked_key")).select("image_key", "asked_key"))
    passed = [
        Verdict(key, Outcome.PASSED, check_pass=True, paid_micro_usd=574)
        for key in asked["asked_key"].unique()
    ]
    parts.keep_judged(stage5.judged_frame(passed))
    parts.keep_judged(stage5.judged_frame(passed[:100]))
    counts = parts.write(rows, tmp_path / "verdicts.parquet", "budget_spent", same_content=True)
    written = pl.read_parquet(tmp_path / "verdicts.parquet")

    assert counts["passed"] == asked["asked_key"].n_unique()
    firsts = asked.group_by("asked_key").agg(pl.col("row").min())["row"].sort()
    assert written.filter(outcome="passed")["row"].equals(firsts)
    others = asked.join(asked.group_by("asked_key").agg(first=pl.col("row").min()), on="asked_key")
    others = others.filter(pl.col("row") != pl.col("first")).join(written, on="row")
    assert others["outcome"].unique().to_list() == ["duplicate"]
    assert others["duplicate_of"].equals(others["first"], check_names=False)
    assert others["reason"].unique().to_list() == ["same_content"]
    assert (
        written["image_key"]
        .drop_nulls()
        .equals(stage1.identify(rows, "image_url").collect()["image_key"].drop_nulls())
    )
    check_unique(pl.scan_parquet(tmp_path / "verdicts.parquet"), ROWS)


def test_what_copies_tell_twice_of_a_picture_is_one_row(tmp_path: Path) -> None:
    """Its charge, as the ledger told it before and after the look, and its verdict; else that is an error."""
    rows = candidates(100)
    parts = Parts(tmp_path / "work")
    parts.cut(rows, "image_url")
    key, other = parts.unique(0)["image_key"].head(2)
    charged = Verdict(key, Outcome.UNSPENT, "run_stopped", attempts=1, paid_micro_usd=574)
    parts.keep_charged(stage5.judged_frame([charged]))
    parts.keep_charged(stage5.judged_frame([charged]))
    for outcome in (Outcome.UNSPENT, Outcome.PASSED):
        parts.keep_judged(stage5.judged_frame([Verdict(other, outcome, paid_micro_usd=574)]))
    with pytest.raises(ConservationError):
        parts.write(rows, tmp_path / "verdicts.parquet", "budget_spent")
    counts = parts.write(rows, tmp_path / "verdicts.parquet", "budget_spent", same_content=True)
    assert counts["passed"] == 1
    assert pl.read_parquet(tmp_path / "verdicts.parquet")["paid_usd"].sum() == pytest.approx(2 * 574e-6)


def test_another_life_takes_up_what_was_screened_and_nothing_else(tmp_path: Path) -> None:
    """What the screen told is kept; what was judged is asked of the ledger, which knows better."""
    rows = candidates(1_000)
    first = Parts(tmp_path)
    first.cut(rows, "image_url")
    told_about(first)
    screened = first.screened(0)
    second = Parts(tmp_path)
    second.cut(pl.LazyFrame({"image_url": ["the input is not looked at again"]}), "image_url")
    assert (second.rows, second.count, second.pictures) == (first.rows, first.count, first.pictures)
    assert second.screened(0).equals(screened)
    counts = second.write(rows, tmp_path / "verdicts.parquet", "run_stopped")
    assert counts["passed"] == 0
    assert counts["screened_out"] > 200


def test_a_cut_that_was_stopped_is_made_anew(tmp_path: Path) -> None:
    """Half a cut is never taken for a whole one."""
    rows = candidates(ROWS)
    answers = iter([True, True, False])
    stopped = Parts(tmp_path, PART_ROWS)
    stopped.cut(rows, "image_url", go_on=lambda: next(answers))
    assert stopped.rows == 0
    again = Parts(tmp_path, PART_ROWS)
    again.cut(rows, "image_url")
    assert sum(again.identified(part).height for part in range(again.count)) == ROWS


def test_lost_scratch_is_noticed(tmp_path: Path) -> None:
    """Rows that were cut and are not there any more are an error, never a shorter result."""
    rows = candidates(1_000)
    parts = Parts(tmp_path)
    parts.cut(rows, "image_url")
    with (tmp_path / "placed" / "000000").open("rb+") as file:
        file.truncate(100)
    with pytest.raises(ConservationError, match="1000 rows went in and 0 came out"):
        parts.write(rows, tmp_path / "verdicts.parquet", "run_stopped")
    assert not (tmp_path / "verdicts.parquet").exists()


@given(st.integers(1, 50), st.lists(st.text("0123456789abcdef", min_size=32, max_size=32), max_size=30))
@settings(max_examples=50, deadline=None)
def test_a_pictures_rows_are_all_in_one_part(parts: int, keys: list[str]) -> None:
    """The part depends on the key alone, and is one of those there are; rows without a key have one too."""
    frame = pl.DataFrame({"image_key": [*keys, *keys, None, None]}, schema={"image_key": pl.String})
    frame = frame.with_row_index("row").with_columns(part=stage1.part_of(parts))
    assert frame["part"].is_between(0, parts - 1).all()
    assert (
        frame.drop_nulls("image_key").group_by("image_key").agg(pl.col("part").n_unique())["part"] == 1
    ).all()


def test_parts_are_about_equal() -> None:
    """Keys are hashes."""
    placed = stage1.placed(candidates(60_000), "image_url").with_columns(part=stage1.part_of(6))
    sizes = placed.group_by("part").len().collect()["len"]
    assert sizes.min() > 9_000
    assert sizes.max() < 11_000
