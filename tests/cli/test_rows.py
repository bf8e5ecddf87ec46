"""``s2v rows``: the rows behind a number, as a table without secrets or as a file with all of them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_run
import old_run
import polars as pl
import pytest
from made_run import row
from object_store import client

from s2v_tasks.domain.shown_text import shown

S2V = Callable[..., tuple[int, str, str]]
SIGNED = "https://a.example/1.jpg?Signature=sesame"
ROWS = made_run.verdicts(
    row("a.example", "web", "failed", 1, reason="several_humans", image_url=SIGNED, caption="two [b]people"),
    row("a.example", "web", "failed", 1, reason="no_human", caption=f"see {SIGNED} or sesame"),
    row("b.example", None, "failed", 1, reason="several_humans", caption="\x1b[31mred\n"),
    row("B.example", "lab", "passed", 1, caption="fine"),
)  # fmt: skip


@pytest.fixture
def run_dir(tmp_path: Path) -> str:
    """The folder of a run with segments."""
    return made_run.made(tmp_path / "out", "one", ROWS, segment_column="source")


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ([], [0, 1, 2, 3]),
        (["--outcome", "failed"], [0, 1, 2]),
        (["--outcome", "failed", "--reason", "several_humans", "--segment", "web"], [0]),
        (["--reason", "several_humans", "--reason", "no_human"], [0, 1, 2]),
        (["--segment", "(null)"], [2]),
        (["--host", "B.EXAMPLE"], [2, 3]),
        (["--outcome", "failed", "--limit", "2"], [0, 1]),
    ],
)
def test_the_criteria_choose_rows(s2v: S2V, run_dir: str, options: list[str], wanted: list[int]) -> None:
    """Values of one criterion are joined by or, criteria by and."""
    assert s2v("rows", run_dir, *options, "--to", "found.parquet")[0] == 0
    assert pl.read_parquet("found.parquet")["row"].to_list() == wanted


def test_the_table_shows_no_query_string_and_says_where_it_is(s2v: S2V, run_dir: str) -> None:
    """Nor in another column; markup and control characters are text."""
    status, out, _ = s2v("rows", run_dir, "--columns", "row,image_url,caption")
    assert (status, "sesame" in out, "\x1b" in out) == (0, False, False)
    lines = out.splitlines()
    assert lines[0].split() == ["row", "image_url", "caption"]
    assert lines[1].split() == ["0", "https://a.example/1.jpg?...", "two", "[b]people"]
    assert r"\x1b[31mred\n" in lines[3]
    assert "--to FILE writes whole URLs" in lines[-1]


def test_a_table_that_ends_early_says_how_many_rows_there_are(s2v: S2V, run_dir: str) -> None:
    """And how to have them all."""
    out = s2v("rows", run_dir, "--limit", "2", "--columns", "row, row")[1]
    assert [line.rstrip() for line in out.splitlines()] == [
        "row", "  0", "  1", "2 of 4 rows; --limit prints more, --to FILE writes all of them",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("f.csv", pl.read_csv),
        ("f.parquet", pl.read_parquet),
        ("f.ndjson", pl.read_ndjson),
        ("f.jsonl", pl.read_ndjson),
    ],
)
def test_a_file_has_whole_urls_and_all_columns(s2v: S2V, run_dir: str, name: str, read: Any) -> None:
    """By its ending."""
    status, out, _ = s2v("rows", run_dir, "--reason", "several_humans", "--to", name)
    assert (status, out.strip()) == (0, f"2 rows in {Path(name).resolve()}")
    found = read(name)
    assert (found.columns, found["image_url"][0]) == (ROWS.columns, SIGNED)


def test_no_row_is_no_error_and_names_what_there_is(s2v: S2V, run_dir: str) -> None:
    """A misspelt reason is seen at once; the file is there and empty."""
    there = "no row matches; the run has 2 failed several_humans, 1 failed no_human, 1 passed"
    assert s2v("rows", run_dir, "--reason", "many_humans")[:2] == (0, f"{there}\n")
    assert s2v("rows", run_dir, "--reason", "many_humans", "--to", "none.csv")[1].startswith(
        f"{there}; 0 rows in"
    )
    assert pl.read_csv("none.csv").height == 0


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--outcome", "fail"], "--outcome: passed, failed, .*given: 'fail'"),
        (["--columns", "row,image"], "no column 'image'; the rows have others: image_url, "),
        (["--to", "f.xlsx"], r"must end in \.csv, \.parquet, .*given: 'f.xlsx'"),
        (["--to", "out/runs/one/verdicts.parquet"], "is among the files of runs; name a file outside"),
        (["--to", "out/published/rows.csv"], "is among the files of runs"),
        (["--to", "ftp://x/rows.csv"], "ftp:// can't be written"),
        (["--limit", "0"], "--limit"),
    ],
)
def test_a_bad_option_is_one_line_and_changes_nothing(
    s2v: S2V, run_dir: str, tmp_path: Path, options: list[str], line: str
) -> None:
    """Exit status 2."""
    before = sorted(tmp_path.rglob("*"))
    content = (Path(run_dir) / "verdicts.parquet").read_bytes()
    status, out, err = s2v("rows", run_dir, *options)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert re.search(line, err)
    assert sorted(tmp_path.rglob("*")) == before
    assert (Path(run_dir) / "verdicts.parquet").read_bytes() == content


def test_a_csv_refuses_nested_columns_and_other_files_take_them(s2v: S2V, tmp_path: Path) -> None:
    """The URL may be a field of a struct, a column of its own in the table."""
    frame = ROWS.with_columns(image=pl.struct(url="image_url")).drop("image_url")
    run_dir = made_run.made(tmp_path / "out", "one", frame, url_column="image.url")
    status, _, err = s2v("rows", run_dir, "--to", "f.csv")
    assert (status, "nested column 'image'" in err, Path("f.csv").exists()) == (2, True, False)
    assert s2v("rows", run_dir, "--columns", "image.url", "--limit", "1", "--to", "f.csv")[0] == 0
    assert Path("f.csv").read_text().splitlines() == ["image.url", SIGNED]
    out = s2v("rows", run_dir, "--host", "a.example")[1]
    assert "https://a.example/1.jpg?..." in out
    assert "sesame" not in out


def test_a_damaged_file_is_one_line_that_names_the_run(s2v: S2V, run_dir: str) -> None:
    """Its footer can be read and a page of it can't."""
    path = Path(run_dir) / "verdicts.parquet"
    content = bytearray(path.read_bytes())
    content[8:40] = bytes(byte ^ 0xFF for byte in content[8:40])
    path.write_bytes(content)
    status, out, err = s2v("rows", run_dir)
    assert (status, out) == (2, "")
    assert re.fullmatch(rf"s2v: {re.escape(run_dir)}: a file is damaged \(.*\); restore it .*\n", err)


def test_a_segment_needs_a_segment_column(s2v: S2V, tmp_path: Path) -> None:
    """The run's, chosen when it was started."""
    run_dir = made_run.made(tmp_path / "out", "one", ROWS)
    status, _, err = s2v("rows", run_dir, "--segment", "web")
    assert (status, "no segment column" in err) == (2, True)


def test_rows_of_a_run_of_the_first_version(s2v: S2V, tmp_path: Path) -> None:
    """By today's names."""
    status, out, _ = s2v("rows", old_run.exhausted(tmp_path), "--outcome", "skipped")
    assert (status, out.splitlines()[1].split()) == (
        0,
        ["2", "https://a.example/2.jpg", "skipped", "budget_exhausted"],
    )


def test_rows_of_a_store_into_a_store(s2v: S2V, in_store: dict[str, str]) -> None:
    """Both are named by their URLs."""
    client(in_store, "rows").put("there", b"")
    run_dir = made_run.made("s3://rows/out", "one", ROWS)
    assert s2v("rows", run_dir, "--outcome", "passed", "--to", "s3://rows/passed.csv")[0] == 0
    assert b"fine" in bytes(client(in_store, "rows").get("passed.csv").bytes())


@pytest.mark.parametrize(
    ("value", "is_url", "text"),
    [
        (None, False, ""),
        (0.000574, False, "0.000574"),
        ("what? yes", False, "what? yes"),
        ("no scheme/x.jpg?sig=a b sesame", True, "no scheme/x.jpg?..."),
        ("https://a.example/x.jpg?sig=a b sesame", False, "https://a.example/x.jpg?..."),
        ("https://a.example/x%3Fsig=sesame", True, "https://a.example/x?..."),
        ("//user:ses@me@a.example/x", True, "//...@a.example/x"),
        ({"url": "ftp://a.example/#sesame"}, False, "{'url': 'ftp://a.example/?..."),
        ("\u202eexe", False, r"\u202eexe"),
        ("张 é", False, "张 é"),
    ],
)
def test_shown_text_has_no_secret_and_no_control_character(value: object, is_url: bool, text: str) -> None:
    """Whatever the writer of a URL put behind its path."""
    assert shown(value, is_url=is_url) == text
