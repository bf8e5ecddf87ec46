"""A command that can't begin: one line that says what to do, exit status 2, and nothing written."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from workbench import Bench, Ran, files_below

Check = Callable[..., str]


@pytest.fixture
def refused(in_process: Bench, command: Callable[..., Ran]) -> Check:
    """Run the command; check what every refusal has in common, and give its one line."""

    def run(*arguments: object, files: Callable[[Path], object] = lambda folder: None) -> str:
        files(in_process.folder / "cwd")
        before, received = files_below(in_process.folder), in_process.received()
        ran = command(*arguments)
        assert ran.status == 2, ran.err
        assert ran.out == ""
        assert "Traceback" not in ran.err
        (line,) = ran.err.splitlines()
        assert line.startswith("s2v: ")
        assert files_below(in_process.folder) == before
        assert in_process.received() == received
        return line.removeprefix("s2v: ")

    return run


def good(folder: Path) -> None:
    pl.DataFrame({"image_url": ["http://127.0.0.1:1/a.jpg"], "n": [1]}).write_parquet(folder / "c.parquet")


def empty(folder: Path) -> None:
    pl.DataFrame({"image_url": pl.Series([], dtype=pl.String)}).write_parquet(folder / "c.parquet")


def clashing(folder: Path) -> None:
    pl.DataFrame({"image_url": ["x"], "row": [1], "code": ["y"]}).write_parquet(folder / "c.parquet")


def file(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content)


def two_kinds(folder: Path) -> None:
    good(folder)
    (folder / "c.csv").write_text("image_url\nx\n")


def no_folder(folder: Path) -> None:
    (folder / "ledger").mkdir()
    good(folder)


CURATE = ("curate", "c.parquet", "--out", "out", "--budget-usd", 1)


@pytest.mark.parametrize(
    ("arguments", "files", "message"),
    [
        pytest.param(CURATE, None, "no such file: c.parquet", id="no such file"),
        pytest.param(
            ("curate", "*.csv", *CURATE[2:]), None, "no such file: *.csv", id="glob without a match"
        ),
        pytest.param(("curate", ".", *CURATE[2:]), None, "no such file: .", id="a folder"),
        pytest.param(("curate", "c.*", *CURATE[2:]), two_kinds, "must all be", id="files of two kinds"),
        pytest.param(
            (*CURATE, "--url-column", "link"),
            good,
            "no column 'link'; they have: image_url, n; name the one with the URLs (--url-column)",
            id="no column",
        ),
        pytest.param(
            (*CURATE, "--url-column", "n"),
            good,
            "'n' must hold strings, it holds Int64; cast it",
            id="numbers for URLs",
        ),
        pytest.param(
            (*CURATE, "--segment-column", "s"),
            good,
            "no column 's'; they have: image_url, n",
            id="no segment column",
        ),
        pytest.param(CURATE, clashing, "'row', 'code', which a run adds itself: rename", id="name clash"),
        pytest.param(CURATE, empty, "holds no rows", id="no rows"),
        pytest.param(CURATE, file("c.parquet", "text"), "can't read c.parquet", id="text called parquet"),
        pytest.param(CURATE, file("c.parquet", ""), "can't read c.parquet", id="empty parquet file"),
        pytest.param(
            ("curate", "c.csv", *CURATE[2:]), file("c.csv", ""), "can't read c.csv", id="empty csv file"
        ),
        pytest.param(
            ("curate", "c.csv", *CURATE[2:]),
            file("c.csv", "image_url,n\nhttp://a/b,1\nhttp://a/c,1,2,3\n"),
            "can't read c.csv",
            id="ragged csv",
        ),
        pytest.param(
            ("curate", "c.csv", *CURATE[2:]),
            lambda folder: (folder / "c.csv").write_bytes(b"image_url\n\xff\xfe\xe9\n"),
            "can't read c.csv",
            id="csv that is no UTF-8",
        ),
        pytest.param(
            ("curate", "c.ndjson", *CURATE[2:]),
            file("c.ndjson", '{"image_url": "http://a/b"}\n{"image_url": '),
            "can't read c.ndjson",
            id="ndjson cut off",
        ),
        pytest.param(("curate", "c.txt", *CURATE[2:]), file("c.txt", "x"), "ending: .txt", id="ending"),
        pytest.param(("curate", *CURATE[2:]), good, "one of them", id="no candidates"),
        pytest.param(CURATE[:4], good, "--budget-usd", id="no budget"),
        pytest.param(CURATE[:2], good, "(s2v curate --help shows how)", id="no output folder"),
        pytest.param(
            ("ledger", "show", "--b", 1), None, "(s2v ledger show --help shows how)", id="verb's help"
        ),
        pytest.param((*CURATE, "--budget", 1), good, "No such option", id="unknown option"),
        pytest.param((*CURATE[:5], 0), good, "--budget-usd", id="budget 0"),
        pytest.param((*CURATE[:5], -1), good, "--budget-usd", id="budget below 0"),
        pytest.param((*CURATE[:5], "nan"), good, "--budget-usd", id="budget nan"),
        pytest.param((*CURATE[:5], "inf"), good, "--budget-usd", id="budget infinite"),
        pytest.param((*CURATE[:5], "abc"), good, "--budget-usd", id="budget abc"),
        pytest.param((*CURATE[:5], 0.0001), good, "buys no image", id="budget below an image"),
        pytest.param((*CURATE, "--limit", 0), good, "--limit", id="limit 0"),
        pytest.param((*CURATE, "--min-pass-rate", 2), good, "--min-pass-rate", id="share above 1"),
        pytest.param((*CURATE, "--max-cost-usd", -1), good, "--max-cost-usd", id="cost below 0"),
        pytest.param(
            (*CURATE, "--on-lost-response", "never"), good, "--on-lost-response", id="on-lost-response"
        ),
        pytest.param((*CURATE, "--account", ""), good, "--account", id="account without a name"),
        pytest.param((*CURATE, "--ledger", "mysql://x/y"), good, "sqlite:///PATH", id="other database"),
        pytest.param((*CURATE, "--ledger", "here"), good, "sqlite:///PATH", id="ledger that is no URL"),
        pytest.param((*CURATE, "--ledger", "sqlite://"), good, "needs a file", id="ledger in memory"),
        pytest.param((*CURATE, "--ledger", "sqlite:///ledger"), no_folder, "--ledger", id="ledger a folder"),
        pytest.param((*CURATE, "--ledger", "sqlite:///no/l"), good, "--ledger", id="ledger in no folder"),
        pytest.param(
            (*CURATE, "--ledger", "postgresql://u@127.0.0.1:1/x"), good, "--ledger", id="no such server"
        ),
        pytest.param((*CURATE, "--run-id", "../x"), good, "--run-id", id="run id with a path"),
        pytest.param((*CURATE, "--run-id", "/x/y"), good, "--run-id", id="run id of another folder"),
        pytest.param((*CURATE, "--run-id", ".."), good, "--run-id", id="run id above"),
        pytest.param(
            (*CURATE, "--run-id", "a", "--new-run"), good, "leave one of the two out", id="both runs"
        ),
        pytest.param((*CURATE, "--run-id", ""), good, "--run-id", id="run id without a name"),
        pytest.param(
            ("curate", "c.parquet", "--out", "c.parquet", *CURATE[4:]), good, "--out", id="out is a file"
        ),
        pytest.param(("gate", "."), None, "is no run's folder", id="gate of no run"),
        pytest.param(("gate", "no/such"), None, "is no run's folder", id="gate of nothing"),
        pytest.param(("gate",), None, "Missing argument", id="gate of what"),
        pytest.param(("curated",), None, "No such command", id="unknown command"),
        pytest.param(("emulator", "--port", 70000), None, "port", id="emulator's port"),
        pytest.param(("emulator", "--fault", "nonsense"), None, "no fault is called", id="emulator's fault"),
    ],
)
def test_what_cannot_begin_is_refused_in_one_line(
    refused: Check, arguments: tuple[object, ...], files: Callable[[Path], object] | None, message: str
) -> None:
    """The line names what is wrong; nothing is written, no request is sent."""
    assert message in refused(*arguments, files=files or (lambda folder: None))


def int128(folder: Path) -> None:
    (folder / "c.ndjson").write_text('{"image_url": "http://a/b", "h": 18446744073709551615}\n')


def decimal60(folder: Path) -> None:
    column = pa.array([Decimal("1.00")], type=pa.decimal256(60, 2))
    pq.write_table(pa.table({"image_url": ["http://a/b"], "d": column}), folder / "c.parquet")


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("c.csv", file("c.csv", "image_url,n\nhttp://a/b,1\nhttp://a/c,1,2\n"), "can't read c.csv"),
        ("c.csv", file("c.csv", 'image_url,n\n1,"a \\" b"\n2,x\n3,"a \\" b"\n4,y\n'), "c.csv: line 2 "),
        ("c.csv", file("c.csv", "image_url\rhttp://a/b\rhttp://a/c\r"), "c.csv: its lines end with"),
        ("c.csv", file("c.csv", "image_url\n"), "c.csv holds no rows"),
        ("c.csv", lambda f: (f / "c.csv").write_text("image_url\nx\n", "utf-16"), "c.csv: it is UTF-16"),
        ("c.parquet", clashing, "'row', 'code', which a run adds itself: rename"),
        ("c.parquet", decimal60, "column 'd' holds Decimal"),
        ("c.ndjson", int128, "column 'h' holds Int128"),
    ],
)
def test_an_estimate_prices_nothing_that_a_run_refuses(
    refused: Check, name: str, files: Callable[[Path], object], message: str
) -> None:
    """Both commands read in one way, and say the same; nothing is written."""
    run = refused("curate", name, *CURATE[2:], files=files)
    assert message in run
    assert refused("estimate", name, "--no-screen", files=files) == run


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"DASHSCOPE_API_KEY": None}, "no API key: set DASHSCOPE_API_KEY"),
        ({"DASHSCOPE_API_KEY": ""}, "DASHSCOPE_API_KEY is empty"),
        ({"DASHSCOPE_API_KEY": "  "}, "DASHSCOPE_API_KEY is empty"),
        ({"DASHSCOPE_API_KEY": "sk-ä"}, "DASHSCOPE_API_KEY"),
        ({"DASHSCOPE_API_KEY": "sk-a\nb"}, "DASHSCOPE_API_KEY"),
        ({"DASHSCOPE_HTTP_BASE_URL": "dashscope"}, "DASHSCOPE_HTTP_BASE_URL"),
        ({"DASHSCOPE_HTTP_BASE_URL": "ftp://127.0.0.1/api/v1"}, "DASHSCOPE_HTTP_BASE_URL"),
        ({"DASHSCOPE_HTTP_BASE_URL": ""}, "DASHSCOPE_HTTP_BASE_URL"),
        ({"S2V_LEDGER_URL": "mysql://x/y"}, "ledger"),
    ],
    ids=str,
)
def test_an_environment_that_cannot_work_is_refused_in_one_line(
    refused: Check, monkeypatch: pytest.MonkeyPatch, env: dict[str, str | None], message: str
) -> None:
    """A missing or impossible key, base URL or ledger is named before anything is read or written."""
    for name, value in env.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    assert message in refused(*CURATE, files=good)


def test_a_refusal_of_the_real_command_reads_the_same(bench: Bench) -> None:
    """As a process of its own: status 2, one line on standard error, nothing on standard output."""
    ran = bench.curate("missing.parquet")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.splitlines() == [
        "s2v: no such file: missing.parquet; name a parquet, csv or ndjson file, a folder or a glob of them"
    ]
    assert files_below(bench.folder) == set()
