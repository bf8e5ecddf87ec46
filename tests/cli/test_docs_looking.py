"""docs/guides/looking-at-results.md: its commands and its code are run on a folder made of a few rows."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_run
import polars as pl
from made_run import row

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "looking-at-results.md").read_text("utf-8")
ROWS = [
    (
        "s2v rows curated/runs/<run_id> --outcome failed --reason several_humans --segment web"
        " --columns image_url,caption --limit 50"
    ),
    "s2v rows curated/runs/<run_id> --outcome screened_out --host cdn.example --to rejected.csv",
]
REPORT = "s2v report curated/runs/<run_id>"
DRIFT = "s2v gate curated/runs/<run_id> --max-pass-rate-drop 0.3"  # run by tests/e2e/test_gate_and_publish.py
SEGMENTS = (
    "s2v gate curated/runs/<run_id> --min-pass-rate 0.6 --publish-passing-segments --publish"  # as DRIFT
)
COMPARE = [
    "s2v compare previous current --out curated",
    "s2v compare curated/runs/<run_id> curated/runs/<other_run_id>",
]
PUBLISHED = [
    "s2v publications curated",
    "s2v rollback curated <other_run_id>",  # run by tests/e2e/test_rollback.py, as the next one
    "s2v gate curated/runs/<run_id> --publish --again",
]
FRAME = made_run.verdicts(
    row("a.example", "web", "failed", 1, reason="several_humans", caption="a crowd", image_key="1"),
    row("cdn.example", "web", "screened_out", reason="too_small", caption="tiny", image_key="2"),
    row("cdn.example", "lab", "passed", 1, caption="fine", image_key="3"),
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_every_command_of_the_page_is_run_here() -> None:
    """A command that is added to the page must be added here, or this fails."""
    assert [line for block in blocks("console") for line in block.splitlines()] == [
        REPORT,
        *ROWS,
        DRIFT,
        SEGMENTS,
        *COMPARE,
        *PUBLISHED,
    ]


def test_the_commands_of_the_page_work_as_written(s2v: Callable[..., tuple[int, str, str]]) -> None:
    """The table, the file, and two runs."""
    for number, run_id in enumerate(("other", "one")):
        made_run.made("curated", run_id, FRAME, number, segment_column="source")

    def run(line: str) -> str:
        status, out, err = s2v(
            *shlex.split(line.replace("<run_id>", "one").replace("<other_run_id>", "other"))[1:]
        )
        assert status == 0, err
        return out

    assert run(REPORT).rstrip().endswith("curated/runs/one/report.html")
    assert "a crowd" in run(ROWS[0])
    assert "1 rows in" in run(ROWS[1])
    for line in COMPARE:
        assert "0 images only in A, 0 only in B, 0 with another verdict" in run(line)
    assert "current" in run(PUBLISHED[0])
    assert pl.read_csv("rejected.csv")["caption"].to_list() == ["tiny"]


def test_the_code_of_the_page_works_as_written(tmp_path: Path, monkeypatch: Any) -> None:
    """Its last lines give the rows and the sources."""
    monkeypatch.chdir(tmp_path)
    made_run.made("curated", "one", FRAME, segment_column="source")
    (code,) = blocks("python")
    *body, rows, sources = code.replace("<run_id>", "one").strip().splitlines()
    names: dict[str, Any] = {}
    exec("\n".join(body), names)  # noqa: S102  (the page's own code)
    assert eval(rows, names)["caption"].to_list() == ["a crowd"]  # noqa: S307
    assert eval(sources, names)["source"].to_list() == ["web", "lab", "a.example", "cdn.example"]  # noqa: S307
