"""Rows in partitions: whatever their number, the same rows come out as of one."""

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2v_tasks.domain import candidate_table, verdict_table
from s2v_tasks.errors import DataIntegrityError
from s2v_tasks.models import Billing, Outcome, Screened, Verdict
from s2v_tasks.runtime.partitions import PartitionStore
from s2v_tasks.runtime.verdict_file import check_unique, summary_of

ROWS, PARTITION_ROWS = 6_000, 2_500


def candidates(rows: int) -> pl.LazyFrame:
    """A tenth repeats an earlier image, some have no URL."""
    n = pl.int_range(rows, eager=True).alias("n").to_frame()
    name = pl.when(pl.col("n") % 10 == 3).then(pl.col("n") // 2).otherwise("n")
    url = pl.when(pl.col("n") % 97 == 5).then(None).otherwise(pl.format("https://a.example/{}.jpg", name))
    return n.select(url.alias("image_url"), (pl.col("n") * 2).alias("twice")).lazy()


def add_results(partitions: PartitionStore) -> None:
    """The screen rejects a third, the service passes a third, no stage reaches the rest."""
    for number in range(partitions.count):
        keys = partitions.unique_images(number).select(
            "image_key", pl.col("image_key").str.slice(-1).alias("last")
        )
        out = keys.filter(pl.col("last").is_in(list("01234")))["image_key"]
        passed = keys.filter(pl.col("last").is_in(list("56789")))["image_key"]
        partitions.add_screened(
            verdict_table.screened_frame(Screened(key, "too_small", 1, 1, "png") for key in out)
        )
        verdicts = (
            Verdict(
                key,
                Outcome.PASSED,
                check_pass=True,
                billing=Billing.BILLED,
                attempts=1,
                lifetime_cost_micro_usd=574,
            )
            for key in passed
        )
        partitions.add_checked(verdict_table.checked_frame(verdicts))


def test_many_partitions_give_what_one_frame_gives(tmp_path: Path) -> None:
    """Every row once, in input order, its own columns beside it, duplicates found across the file."""
    rows = candidates(ROWS)
    partitions = PartitionStore(tmp_path / "work", PARTITION_ROWS)
    partitions.build(rows, "image_url")
    assert (partitions.rows, partitions.count) == (ROWS, 3)
    add_results(partitions)
    counts = partitions.write_verdicts(rows, tmp_path / "verdicts.parquet", "budget_exhausted")
    written = pl.read_parquet(tmp_path / "verdicts.parquet")
    assert written.columns == ["image_url", "twice", *verdict_table.SCHEMA]
    assert written["row"].equals(pl.int_range(ROWS, eager=True).alias("row"))
    assert written["twice"].equals((written["row"] * 2).alias("twice"))
    assert sum(counts.values()) == ROWS

    whole = candidate_table.add_image_keys(rows, "image_url").collect()
    assert written.select("image_key", "duplicate_of").equals(whole.select("image_key", "duplicate_of"))
    assert partitions.images == candidate_table.unique_images(whole.lazy()).collect().height
    last = written["image_key"].str.slice(-1)
    unique = written.filter(pl.col("duplicate_of").is_null(), pl.col("image_key").is_not_null())
    for outcome, digits in (("screened_out", "01234"), ("passed", "56789"), ("skipped", "abcdef")):
        expected = unique.filter(pl.col("image_key").str.slice(-1).is_in(list(digits)))
        assert set(expected["outcome"]) == {outcome}
    copies = written.with_columns(last=last).filter(outcome="duplicate")
    assert copies.filter(pl.col("last").is_in(list("56789")))["check_pass"].all()
    summary = summary_of(tmp_path / "verdicts.parquet", "image_url")
    assert (summary.rows, summary.passed, summary.duplicates) == (ROWS, counts["passed"], counts["duplicate"])
    assert summary.dataset_cost_usd == pytest.approx(574e-6 * counts["passed"])


def test_the_same_content_is_found_across_partitions(tmp_path: Path) -> None:
    """Images checked under one key: the first row has the verdict; two results are still one row."""
    rows = candidates(ROWS)
    partitions = PartitionStore(tmp_path / "work", PARTITION_ROWS)
    partitions.build(rows, "image_url")
    uniques = pl.concat([partitions.unique_images(number) for number in range(partitions.count)]).sort("row")
    # Half of them in groups of three, checked as the last of the group; one group as an image not among them.
    groups = uniques.head(uniques.height // 2).with_columns(group=pl.int_range(pl.len()) // 3)
    canonical = pl.col("image_key").last().over("group")
    checked = groups.select(
        "image_key", "row", canonical_key=pl.when(group=0).then(pl.lit("0" * 32)).otherwise(canonical)
    )
    partitions.add_canonical(
        checked.filter(pl.col("image_key") != pl.col("canonical_key")).select("image_key", "canonical_key")
    )
    passed = [
        Verdict(key, Outcome.PASSED, check_pass=True, lifetime_cost_micro_usd=574)
        for key in checked["canonical_key"].unique()
    ]
    partitions.add_checked(verdict_table.checked_frame(passed))
    partitions.add_checked(verdict_table.checked_frame(passed[:100]))
    counts = partitions.write_verdicts(
        rows, tmp_path / "verdicts.parquet", "budget_exhausted", several_results=True
    )
    written = pl.read_parquet(tmp_path / "verdicts.parquet")

    assert counts["passed"] == checked["canonical_key"].n_unique()
    firsts = checked.group_by("canonical_key").agg(pl.col("row").min())["row"].sort()
    assert written.filter(outcome="passed")["row"].equals(firsts)
    others = checked.join(
        checked.group_by("canonical_key").agg(first=pl.col("row").min()), on="canonical_key"
    )
    others = others.filter(pl.col("row") != pl.col("first")).join(written, on="row")
    assert others["outcome"].unique().to_list() == ["duplicate"]
    assert others["duplicate_of"].equals(others["first"], check_names=False)
    assert others["reason"].unique().to_list() == ["same_content"]
    assert (
        written["image_key"]
        .drop_nulls()
        .equals(candidate_table.add_image_keys(rows, "image_url").collect()["image_key"].drop_nulls())
    )
    check_unique(pl.scan_parquet(tmp_path / "verdicts.parquet"), ROWS)


def test_two_results_of_an_images_copies_are_one_row(tmp_path: Path) -> None:
    """Its charge, as the ledger had it before and after the screen, and its verdict; else an error."""
    rows = candidates(100)
    partitions = PartitionStore(tmp_path / "work")
    partitions.build(rows, "image_url")
    key, other = partitions.unique_images(0)["image_key"].head(2)
    charged = Verdict(key, Outcome.SKIPPED, "run_stopped", attempts=1, lifetime_cost_micro_usd=574)
    partitions.add_charged(verdict_table.checked_frame([charged]))
    partitions.add_charged(verdict_table.checked_frame([charged]))
    for outcome in (Outcome.SKIPPED, Outcome.PASSED):
        partitions.add_checked(
            verdict_table.checked_frame([Verdict(other, outcome, lifetime_cost_micro_usd=574)])
        )
    with pytest.raises(DataIntegrityError):
        partitions.write_verdicts(rows, tmp_path / "verdicts.parquet", "budget_exhausted")
    counts = partitions.write_verdicts(
        rows, tmp_path / "verdicts.parquet", "budget_exhausted", several_results=True
    )
    assert counts["passed"] == 1
    assert pl.read_parquet(tmp_path / "verdicts.parquet")["lifetime_cost_usd"].sum() == pytest.approx(
        2 * 574e-6
    )


def test_a_continued_run_reuses_results_of_the_screen_and_nothing_else(tmp_path: Path) -> None:
    """Results of the screen are kept; those of the paid check are read from the ledger, which has more."""
    rows = candidates(1_000)
    first = PartitionStore(tmp_path)
    first.build(rows, "image_url")
    add_results(first)
    screened = first.screened(0)
    second = PartitionStore(tmp_path)
    second.build(pl.LazyFrame({"image_url": ["the input is not read again"]}), "image_url")
    assert (second.rows, second.count, second.images) == (first.rows, first.count, first.images)
    assert second.screened(0).equals(screened)
    counts = second.write_verdicts(rows, tmp_path / "verdicts.parquet", "run_stopped")
    assert counts["passed"] == 0
    assert counts["screened_out"] > 200


def test_partitions_that_were_not_finished_are_built_again(tmp_path: Path) -> None:
    """Half of the partitions are never taken for all."""
    rows = candidates(ROWS)
    decisions = iter([True, True, False])
    stopped = PartitionStore(tmp_path, PARTITION_ROWS)
    stopped.build(rows, "image_url", should_continue=lambda: next(decisions))
    assert stopped.rows == 0
    again = PartitionStore(tmp_path, PARTITION_ROWS)
    again.build(rows, "image_url")
    assert sum(again.marked_rows(number).height for number in range(again.count)) == ROWS


def test_lost_scratch_is_noticed(tmp_path: Path) -> None:
    """Rows that were split and are lost are an error, never a shorter result."""
    rows = candidates(1_000)
    partitions = PartitionStore(tmp_path)
    partitions.build(rows, "image_url")
    with (tmp_path / "placed" / "000000").open("rb+") as file:
        file.truncate(100)
    with pytest.raises(DataIntegrityError, match="1000 rows went in and 0 came out"):
        partitions.write_verdicts(rows, tmp_path / "verdicts.parquet", "run_stopped")
    assert not (tmp_path / "verdicts.parquet").exists()


@given(st.integers(1, 50), st.lists(st.text("0123456789abcdef", min_size=32, max_size=32), max_size=30))
@settings(max_examples=50, deadline=None)
def test_all_rows_of_an_image_are_in_one_partition(partitions: int, keys: list[str]) -> None:
    """The partition depends on the key alone; rows without a key have one too."""
    frame = pl.DataFrame({"image_key": [*keys, *keys, None, None]}, schema={"image_key": pl.String})
    frame = frame.with_row_index("row").with_columns(partition=candidate_table.partition_of(partitions))
    assert frame["partition"].is_between(0, partitions - 1).all()
    assert (
        frame.drop_nulls("image_key").group_by("image_key").agg(pl.col("partition").n_unique())["partition"]
        == 1
    ).all()


def test_partitions_are_about_equal() -> None:
    """Keys are hashes."""
    keyed = candidate_table.assign_keys(candidates(60_000), "image_url").with_columns(
        partition=candidate_table.partition_of(6)
    )
    sizes = keyed.group_by("partition").len().collect()["len"]
    assert sizes.min() > 9_000
    assert sizes.max() < 11_000
