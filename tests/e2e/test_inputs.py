"""Whatever the candidates are: every row and column passes through, in order, with its outcome."""

import datetime as dt
from typing import Any

import polars as pl
from workbench import Bench

from s2v_tasks import SCHEMA, Advanced, CurationResult, Screening, Source, curate


async def curated(bench: Bench, candidates: str, **groups: Any) -> CurationResult:
    """Curate in this process; the gate must open."""
    groups = {"screening": Screening(allow_private_hosts=True), **groups}
    state = await curate(candidates, str(bench.out), 1.0, **groups, return_state=True)
    assert state.is_completed(), state.message
    return await state.aresult()


def verdicts(run: CurationResult) -> pl.DataFrame:
    return pl.read_parquet(run.run_dir / "verdicts.parquet")


def check_passed_through(given: pl.DataFrame, output: pl.DataFrame) -> None:
    """The input's own columns are there first, values and types untouched, in order."""
    assert output.columns == [*given.columns, *SCHEMA]
    assert output.select(given.columns).equals(given, null_equal=True)
    assert dict(output.select(given.columns).schema) == dict(given.schema)
    assert dict(output.select(*SCHEMA).schema) == SCHEMA
    assert output["row"].to_list() == list(range(given.height))


async def test_parquet_columns_of_every_kind_pass_through(in_process: Bench) -> None:
    """Numbers, nulls, times, lists, structs and categories come out as they went in."""
    when = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
    given = pl.DataFrame(
        {
            "id": pl.Series([1, None, 3], dtype=pl.UInt16),
            "image_url": [in_process.url(0), None, in_process.url(0, "crowd")],
            "score": [0.1, float("nan"), None],
            "tags": [["a"], [], None],
            "person": [{"name": "A", "age": 1}, {"name": None, "age": 2}, None],
            "when": pl.Series([when, None, when], dtype=pl.Datetime("ms", "Europe/Rome")),
            "kind": pl.Series(["x", "y", None], dtype=pl.Categorical),
            "raw": [b"\x00\xff", b"", None],
            "Ünïcode name": ["ä", "\n", ""],
        }
    )
    path = in_process.folder / "given.parquet"
    given.write_parquet(path)
    run = await curated(in_process, str(path))
    output = verdicts(run)
    check_passed_through(given, output)
    assert output["outcome"].to_list() == ["passed", "screened_out", "failed"]
    assert output["reason"].to_list() == [None, "empty_url", "several_humans"]


async def test_csv_values_stay_the_text_they_are(in_process: Bench) -> None:
    """An id of 007 is not 7, and a quoted comma or line break is not a border."""
    path = in_process.folder / "given.csv"
    path.write_text(
        f'id,image_url,note\n007,{in_process.url(1)},"a, b"\n1e3,{in_process.url(2)},"two\nlines"\n'
    )
    output = verdicts(await curated(in_process, str(path)))
    given = {"id": ["007", "1e3"], "image_url": in_process.portraits(2, 1), "note": ["a, b", "two\nlines"]}
    check_passed_through(pl.DataFrame(given), output)


async def test_ndjson_values_keep_their_types(in_process: Bench) -> None:
    """Numbers, nested objects and keys that only some rows have come through."""
    given = pl.DataFrame(
        {
            "image_url": in_process.portraits(3),
            "n": [1, 2, None],
            "who": [{"name": "A"}, {"name": "B"}, {"name": None}],
            "late": [None, None, "only here"],
        }
    )
    path = in_process.folder / "given.ndjson"
    given.write_ndjson(path)
    check_passed_through(given, verdicts(await curated(in_process, str(path))))


async def test_files_of_a_glob_follow_each_other_by_name(in_process: Bench) -> None:
    """Rows of the second file come after those of the first, and know their duplicates there."""
    for name, numbers in (("b", [2, 1]), ("a", [0, 1])):
        in_process.candidates([in_process.url(n) for n in numbers], f"part-{name}.parquet", file=[name] * 2)
    output = verdicts(await curated(in_process, str(in_process.folder / "part-*.parquet")))
    assert output["file"].to_list() == ["a", "a", "b", "b"]
    assert output["image_url"].to_list() == [in_process.url(n) for n in (0, 1, 2, 1)]
    assert output["duplicate_of"].to_list() == [None, None, None, 1]


async def test_a_duplicate_names_the_row_that_was_sent_and_copies_its_verdict(in_process: Bench) -> None:
    """An image under other spellings and signatures is sent once, by its newest URL; copies cost nothing."""
    one = in_process.url(0)
    signed = "?X-Amz-Algorithm=A&X-Amz-Credential=C&X-Amz-Date={}&X-Amz-Expires=9&X-Amz-SignedHeaders=host"
    signed += "&X-Amz-Signature={}"
    urls = [
        one, one + "#face", one.replace("http", "HTTP"), in_process.url(1, "crowd"),
        in_process.url(1, "crowd"), one + signed.format(1, "aa"), one + signed.format(2, "bb"),
        one + "?width=500",
    ]  # fmt: skip
    run = await curated(in_process, in_process.candidates(urls), advanced=Advanced(keep_duplicates=True))
    output = verdicts(run)
    assert output["duplicate_of"].to_list() == [6, 6, 6, None, 3, 6, None, None]
    assert output["outcome"].to_list() == [
        *["duplicate"] * 3,
        "failed",
        *["duplicate"] * 2,
        *["passed"] * 2,
    ]
    for column in ("check_pass", "humanoid", "code", "request_id", "image_key"):
        values = output[column].to_list()
        assert values == [values[n] for n in (6, 6, 6, 3, 3, 6, 6, 7)]
    copies = output.filter(outcome="duplicate")
    assert copies["run_cost_usd"].sum() == copies["lifetime_cost_usd"].sum() == copies["attempts"].sum() == 0
    assert set(copies["billing"]) == {"none"}
    assert sorted(in_process.billed_urls()) == sorted({urls[6], urls[3], urls[7]})
    kept = pl.read_parquet(run.run_dir / "approved.parquet")
    assert kept["row"].to_list() == [0, 1, 2, 5, 6, 7]
    assert run.publication is not None
    assert run.publication.rows == 6

    once = await curated(in_process, in_process.candidates(urls))
    assert pl.read_parquet(once.run_dir / "approved.parquet")["row"].to_list() == [6, 7]


async def test_a_limit_leaves_the_other_rows_out_of_the_run(in_process: Bench) -> None:
    """Only the first rows are checked and written."""
    candidates = in_process.candidates(in_process.portraits(5))
    run = await curated(in_process, candidates, advanced=Advanced(limit=2))
    assert verdicts(run)["image_url"].to_list() == in_process.portraits(2)
    assert len(in_process.billed_urls()) == 2


async def test_one_bad_segment_closes_the_gate(in_process: Bench) -> None:
    """A dataset that passes as a whole is held back by the source that does not; any type will do."""
    urls = [*in_process.portraits(6), in_process.url(7, "crowd"), in_process.url(8, "scenery")]
    candidates = in_process.candidates(urls, source=[None] * 3 + [1] * 3 + [2] * 2)
    state = await curate(
        candidates,
        str(in_process.out),
        1.0,
        source=Source(segment_column="source"),
        screening=Screening(allow_private_hosts=True),
        return_state=True,
    )
    assert state.is_failed()
    assert "pass_rate (segment 2): observed 0, wanted at least 0.5" in state.message
    assert not (in_process.out / "published").exists()
    run = await curated(in_process, candidates)
    assert run.summary.pass_rate == 0.75


async def test_without_the_screen_every_image_is_sent(in_process: Bench) -> None:
    """Too small an image is then refused by the service, which charges nothing for it."""
    urls = [in_process.url(0), in_process.url(1, query="?width=200")]
    run = await curated(
        in_process,
        in_process.candidates(urls),
        screening=Screening(enabled=False),
        advanced=Advanced(max_error_share=0.5),
    )
    output = verdicts(run)
    assert output["outcome"].to_list() == ["passed", "error"]
    assert output["reason"].to_list() == [None, "image_size"]
    assert output["billing"].to_list() == ["billed", "not_billed"]
    assert in_process.received() == 2
    assert output["width_px"].null_count() == 2


async def test_folders_with_brackets_are_folders(in_process: Bench) -> None:
    """No path, given or made by the program, is taken as a pattern."""
    in_process.folder /= "a [b] c"
    in_process.folder.mkdir()
    run = await curated(in_process, in_process.candidates(in_process.portraits(1), "d [e].parquet"))
    assert run.publication is not None
    assert pl.read_parquet(run.publication.path, glob=False).height == 1
