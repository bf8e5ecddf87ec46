"""The report in a browser: what a validator, axe-core and the keyboard find in pages with every section."""

import json
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import made_run
import polars as pl
import pytest
from browser import Page, chromium
from made_run import STARTED_AT, row
from PIL import Image

from s2v_tasks.adapters.storage import file_io
from s2v_tasks.runtime.run_report import write_report

pytestmark = [pytest.mark.ci, pytest.mark.needs("chromium", "html-validate")]

KINDS: Final = ("open", "closed", "stopped")
SERIOUS: Final = ("serious", "critical")
FAILED: Final = {"suite": "gate", "name": "pass_rate", "success": False, "segment": "lab",
                 "observed": "0.33", "threshold": "at least 0.5"}  # fmt: skip
FACTS: Final = [
    {"scope": "overall", "attempted": 100, "pass_rate": 0.9},
    *({"scope": "segment", "segment": f"gone {n}", "attempted": 9, "pass_rate": 0.5} for n in range(12)),
]
"""Of the earlier publication: more segments than are shown at once."""
RULES: Final = {
    "extends": ["html-validate:standard", "html-validate:a11y"],
    "rules": {"no-inline-style": "error"},
}
OPERABLE: Final = (
    "[...document.querySelectorAll('a[href], summary, input:not(:disabled), [tabindex]')]"
    ".filter((one) => one.checkVisibility())"
)


def frame(first: int) -> pl.DataFrame:
    """Three sources and more hosts than are shown at once; every outcome; responses of a minute."""
    rows = [
        row(f"h{n}.example", ("web", "lab", "old")[n % 3], "passed" if n % 2 else "failed", 1,
            reason=None if n % 2 else "several_humans", width_px=640, height_px=800,
            checked_at=STARTED_AT + timedelta(seconds=2 * n))
        for n in range(first, first + 30)
    ] + [
        row("b.example", "web", "error", 2, reason="origin_failed", code="Invalid<URL>", http_status=400),
        row("b.example", "lab", "unknown", 1, reason="lost"),
        row("b.example", "lab", "screened_out", reason="too_small", width_px=90, height_px=120),
        row("b.example", None, "skipped", reason="budget_exhausted"),
        row("b.example", None, "duplicate", duplicate_of=0),
    ]  # fmt: skip
    return made_run.verdicts(*(one | {"image_key": f"{first + n:032x}"} for n, one in enumerate(rows)))


def thumbnails(run_dir: str) -> None:
    data = BytesIO()
    Image.new("RGB", (120, 160), "teal").save(data, "webp")
    tiles = [(1, "passed", data), (0, "failed/several_humans", data), (2, "failed/several_humans", None),
             (32, "screened_out/too_small", data)]  # fmt: skip
    rows = [(n, sheet, one and one.getvalue(), one and 120, one and 160, None if one else "not_fetched")
            for n, sheet, one in tiles]  # fmt: skip
    schema = {"row": pl.Int64, "sheet": pl.String, "thumbnail": pl.Binary, "width_px": pl.Int64,
              "height_px": pl.Int64, "note": pl.String}  # fmt: skip
    pl.DataFrame(rows, schema=schema, orient="row").write_parquet(Path(run_dir) / "thumbnails.parquet")


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The report of a published run, of one with a closed gate and of one that stopped before its gate."""
    found = {}
    for kind in KINDS:
        out = tmp_path_factory.mktemp(kind)
        made_run.made(out, "earlier", frame(5), facts=FACTS, segment_column="source")
        run_dir = made_run.made(out, kind, frame(0), 2, published=kind == "open", segment_column="source")
        thumbnails(run_dir)
        if kind == "closed":
            gate = {"open": False, "checked_at": "2026-10-01", "facts": [], "expectations": [FAILED],
                    "thresholds": {"min_pass_rate": 0.5}}  # fmt: skip
            file_io.write_json(Path(run_dir) / "gate.json", gate)
        if kind == "stopped":
            (Path(run_dir) / "gate.json").unlink()
        found[kind] = Path(str(write_report(run_dir)))
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


def test_the_pages_are_valid_html(reports: dict[str, Path], tmp_path: Path) -> None:
    """The validator's standard rules and those of accessibility."""
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps({"root": True, **RULES}))
    ran = subprocess.run(
        ["html-validate", "--config", rules, *reports.values()], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def axe() -> str:
    """The script of axe-core, where Node finds it."""
    place = ["node", "-p", "require.resolve('axe-core/axe.min.js')"]
    return Path(subprocess.check_output(place, text=True).strip()).read_text("utf-8")


@pytest.mark.parametrize("kind", KINDS)
def test_axe_finds_nothing_serious(kind: str, page: Page, reports: dict[str, Path], axe: str) -> None:
    """On a wide screen and a phone's, light and dark; the page asks for nothing and no error is logged."""
    found: list[Any] = []
    for width in (1280, 390):
        for scheme in ("light", "dark") if kind != "stopped" else ("light" if width == 1280 else "dark",):
            page.requests.clear()
            page.open(reports[kind], width, scheme)
            assert not [url for url in page.requests if not url.startswith(("file:", "data:"))]
            assert page.run("document.documentElement.scrollWidth") <= width
            page.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
            page.run(axe)
            for one in page.run("axe.run()")["violations"]:
                where = [node["html"][:200] for node in one["nodes"][:3]]
                found += [(width, scheme, one["id"], one["help"], where)] * (one["impact"] in SERIOUS)
    assert found == []
    assert page.errors == []


def test_a_slider_shows_at_once_what_the_gate_would_say(page: Page, reports: dict[str, Path]) -> None:
    """By the keyboard alone: the lowest pass rate, moved from one end to the other."""
    page.open(reports["open"])
    page.run("document.getElementById('slider-0').focus()")
    shown = "['value-0', 'gate-result'].map((id) => document.getElementById(id).textContent)"
    found = []
    for key, code in (("Home", 36), ("End", 35)):
        page.press(key, code)
        found.append(page.run(shown))
    assert found[0] == ["0", "The gate would be closed. 2 of 4 segments would pass."]
    assert found[1] == ["1", "The gate would be closed. 0 of 4 segments would pass."]


def test_the_keyboard_reaches_all_that_can_be_operated_in_its_order(
    page: Page, reports: dict[str, Path]
) -> None:
    """Links, folded rows, sliders and wide tables, each once and marked; none is taken out of the order."""
    page.open(reports["closed"], 390)
    wanted = page.run(OPERABLE + ".length")
    seen: list[int] = []
    for _ in range(wanted):
        page.press("Tab", 9)
        seen.append(page.run(OPERABLE + ".indexOf(document.activeElement)"))
        assert page.run("getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert seen == list(range(wanted))


def test_a_printed_page_cuts_nothing_off_and_unfolds_what_is_folded(
    page: Page, reports: dict[str, Path]
) -> None:
    """On A4 with the browser's margins (718 pixels): each table whole, the reasons of the funnel shown."""
    page.open(reports["open"])
    page.print_at(718)
    wide = "[...document.querySelectorAll('.scroll')].filter((one) => one.scrollWidth > one.clientWidth)"
    assert page.run(wide + ".map((one) => one.ariaLabel)") == []
    assert page.run("document.documentElement.scrollWidth") <= 718
    folded = "[...document.querySelectorAll('details:not(.rows) > :last-child')]"
    assert page.run(folded + ".filter((one) => !one.checkVisibility()).length") == 0
