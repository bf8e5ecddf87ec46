"""Candidates as a table: keys, duplicates, partitions, samples, columns."""

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2v_tasks.domain import candidate_table
from s2v_tasks.domain.candidate_table import SCHEMA, add_image_keys, check_columns, unique_images
from s2v_tasks.domain.image_url import former_key, image_key
from s2v_tasks.errors import InputError


def test_rows_keep_the_key_under_which_an_early_ledger_holds_them() -> None:
    """Only those that it holds; the others get today's, and two signatures of one image fall together."""
    signed = "https://cdn.discordapp.com/a.png?ex={}&is=1&hm=2"
    urls = [signed.format(1), signed.format(2), signed.format(3), "https://a.example/p?x=1"]
    batch = candidate_table.assign_keys(rows_of(*urls), "image_url").collect()
    former = former_key(urls[0])
    assert former is not None
    looked_up: list[str] = []

    def known(keys: list[str]) -> set[str]:
        looked_up.extend(keys)
        return {former}

    keys = candidate_table.with_former_keys(batch, known)["image_key"].to_list()
    assert keys == [former, image_key(urls[1]), image_key(urls[1]), image_key(urls[3])]
    assert len(looked_up) == 3


@pytest.mark.parametrize("partitions", [1, 2, 3, 7, 100, 1234])
def test_the_range_of_a_partition_holds_its_keys_and_no_others(partitions: int) -> None:
    """At every border, on both sides."""
    ranges = [candidate_table.key_range(number, partitions) for number in range(partitions)]
    assert [low for low, _ in ranges[1:]] == [high for _, high in ranges[:-1]]
    borders = [low for low, _ in ranges] + ["ffffffff"]
    numbers = {int(b, 16) + d for b in borders for d in (-1, 0, 1) if 0 <= int(b, 16) + d < 2**32}
    keys = pl.DataFrame({"image_key": [f"{n:08x}{'0' * 24}" for n in sorted(numbers)]})
    for key, number in keys.with_columns(number=candidate_table.partition_of_key(partitions)).iter_rows():
        assert ranges[number][0] <= key < ranges[number][1]


def rows_of(*urls: str | None) -> pl.LazyFrame:
    return pl.LazyFrame(
        {"id": range(len(urls)), "image_url": urls}, schema_overrides={"image_url": pl.String}
    )


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_rows_are_numbered_keyed_and_marked(engine: str) -> None:
    """Every row comes out in order; repeats name their first, rejected rows repeat nothing."""
    a, b = "https://a.example/p.jpg", "https://b.example/p.jpg"
    rows = rows_of(a, None, b, a + "#again", "", b, a)
    out = add_image_keys(rows, "image_url").collect(engine=engine)  # type: ignore[call-overload]
    assert out.schema == SCHEMA
    assert out["row"].to_list() == list(range(7))
    assert out["url"].to_list() == [a, None, b, a + "#again", "", b, a]
    ka, kb = image_key(a), image_key(b)
    assert out["image_key"].to_list() == [ka, None, kb, ka, None, kb, ka]
    assert out["reason"].to_list() == [None, "empty_url", None, None, "empty_url", None, None]
    assert out["duplicate_of"].to_list() == [None, None, None, 0, None, 2, 0]


def test_each_image_is_screened_once() -> None:
    """Rejected rows and repeats are left out of what is screened; the first spelling of a URL is sent."""
    a, b = "https://a.example/p.jpg#1", "https://b.example/p.jpg"
    out = unique_images(
        add_image_keys(rows_of(a, None, b, "https://a.example/p.jpg", b), "image_url")
    ).collect()
    assert out.rows() == [(image_key(a), a, 0), (image_key(b), b, 2)]


def test_no_rows_give_a_typed_empty_frame() -> None:
    """An empty input has the columns and types of any other."""
    assert add_image_keys(rows_of(), "image_url").collect().schema == SCHEMA
    assert add_image_keys(rows_of(), "image_url").collect_schema() == SCHEMA


def test_duplicates_are_found_across_batches(tmp_path: Path) -> None:
    """Streaming reads in batches; numbers run on and a repeat is found across them."""
    distinct = 150_000
    urls = [f"https://a.example/{i}" for i in range(distinct)] * 2
    rows_of(*urls).sink_parquet(tmp_path / "in.parquet", row_group_size=20_000)
    add_image_keys(pl.scan_parquet(tmp_path / "in.parquet"), "image_url").sink_parquet(
        tmp_path / "out.parquet"
    )
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert out["row"].to_list() == list(range(2 * distinct))
    assert out["duplicate_of"].head(distinct).null_count() == distinct
    assert out["duplicate_of"].tail(distinct).to_list() == list(range(distinct))


def test_the_url_column_may_have_any_name() -> None:
    """A URL column called like one of ours inside this stage does no harm."""
    for name in ("row", "url", "reason"):
        out = add_image_keys(pl.LazyFrame({name: ["https://a.example/"]}), name).collect()
        assert out.select("row", "url").rows() == [(0, "https://a.example/")]


@pytest.mark.parametrize(
    ("schema", "segment", "message"),
    [
        ({"a": pl.String, "b": pl.Int64}, None, "no column 'image_url'; they have: a, b"),
        ({}, None, "they have: none"),
        ({f"c{i}": pl.Int64 for i in range(25)}, None, "c19 and 5 more"),
        ({"image_url": pl.String}, "country", "no column 'country'"),
        ({"image_url": pl.Int64}, None, "'image_url' must hold strings, it holds Int64"),
        (
            {"image_url": pl.String, "outcome": pl.String},
            None,
            "column 'outcome', which a run adds itself: rename",
        ),
    ],
)
def test_an_input_that_cannot_be_used_is_refused_in_one_line(
    schema: dict[str, type[pl.DataType]], segment: str | None, message: str
) -> None:
    """The message names the column and what to do."""
    with pytest.raises(InputError) as caught:
        check_columns(pl.Schema(schema), "image_url", {"row", "outcome"}, segment)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_good_input_is_accepted() -> None:
    """The URL column, a segment column of any type and columns of the user's own are fine."""
    check_columns(pl.Schema({"image_url": pl.String, "country": pl.Int64}), "image_url", {"row"}, "country")


# -- which rows ------------------------------------------------------------------------------------------


def numbered(count: int) -> pl.LazyFrame:
    return pl.LazyFrame({"n": range(count)}).with_columns(kind=pl.when(pl.col("n") % 10 == 0).then(1))


def test_a_sample_is_the_same_on_any_day() -> None:
    """The seed decides, not the machine or the version of a library: these rows, in their order."""
    drawn = (2, 33, 42, 53, 94)
    rows = numbered(100)
    assert tuple(candidate_table.selected(rows, sample=5).collect()["n"]) == drawn
    again = candidate_table.selected(rows, sample=5, seed=0)
    assert tuple(again.collect(engine="streaming")["n"]) == drawn
    other = candidate_table.selected(rows, sample=5, seed=1).collect()["n"]
    assert tuple(other) != drawn
    assert other.is_sorted()


def test_random_ranks_are_those_of_splitmix64() -> None:
    """The generator's published first outputs: polars' integers wrap around as it needs."""
    numbers = pl.DataFrame({"row": [0, 1, 2]})
    ranks = numbers.select(candidate_table.random_rank(pl.col("row"), 0).alias("row"))["row"]
    assert ranks.to_list() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


@pytest.mark.parametrize("seed", range(5))
def test_a_sample_is_even(seed: int) -> None:
    """About as many of each tenth of the rows; nothing twice, nothing else; a limit comes first."""
    drawn = candidate_table.selected(numbered(12_000), limit=10_000, sample=1_000, seed=seed).collect()["n"]
    assert drawn.n_unique() == 1_000
    tenths = (drawn // 1_000).value_counts()["count"]
    assert len(tenths) == 10
    assert tenths.min() > 60  # type: ignore[operator]
    assert tenths.max() < 140  # type: ignore[operator]


@given(
    st.lists(st.sampled_from([None, "a", "b", "c"]), min_size=1, max_size=60),
    st.integers(1, 70),
    st.integers(0, 9),
)
def test_every_value_gets_its_share_of_a_stratified_sample(
    kinds: list[str | None], size: int, seed: int
) -> None:
    """Its exact share of the sample, to within one row; null is a value too; at most all rows."""
    rows = pl.LazyFrame({"kind": kinds}, schema={"kind": pl.String}).with_row_index("n")
    drawn = candidate_table.selected(rows, sample=size, seed=seed, stratify_by="kind").collect()
    assert drawn.height == min(size, len(kinds))
    assert drawn["n"].is_sorted()
    for kind in set(kinds):
        share = drawn.height * kinds.count(kind) / len(kinds)
        got = drawn["kind"].to_list().count(kind)
        assert abs(got - share) <= 1.5


def test_without_a_sample_rows_are_left_as_they_are() -> None:
    """No number is added and none is lost; the first rows may be selected."""
    rows = numbered(9)
    assert candidate_table.selected(rows).collect().equals(rows.collect())
    assert candidate_table.selected(rows, limit=4).collect().equals(rows.collect().head(4))
    assert candidate_table.selected(rows, sample=20).collect().equals(rows.collect())


def test_a_url_may_be_a_field_of_a_struct() -> None:
    """By its path; a column that is really called so comes first; missing ones are named."""
    nested = pl.LazyFrame({"image": [{"meta": {"url": "http://a/1"}}, {"meta": {"url": None}}, None]})
    schema = nested.collect_schema()
    candidate_table.check_columns(schema, "image.meta.url", ())
    assert add_image_keys(nested, "image.meta.url").collect()["url"].to_list() == ["http://a/1", None, None]
    flat = nested.with_columns(pl.lit("http://b/1").alias("image.meta.url"))
    assert add_image_keys(flat, "image.meta.url").collect()["url"].to_list() == ["http://b/1"] * 3
    for missing in ("image.url", "image.meta.url.x", "other.url", "."):
        with pytest.raises(InputError, match="no column"):
            candidate_table.check_columns(schema, missing, ())
    with pytest.raises(InputError, match="must hold strings"):
        candidate_table.check_columns(schema, "image.meta", ())
    with pytest.raises(InputError, match="no column 'kind'"):
        candidate_table.check_columns(schema, "image.meta.url", (), stratify_by="kind")
