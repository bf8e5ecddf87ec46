"""The report of a run: written from its folder alone, of any format, with nothing of others unescaped."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import made_run
import old_run
import polars as pl
import pytest
from made_run import row

from s2v_tasks.adapters.storage import file_io
from s2v_tasks.adapters.storage.run_data import read_run
from s2v_tasks.adapters.storage.run_folder import open_run_folder
from s2v_tasks.domain.confidence import Tally
from s2v_tasks.errors import UsageError
from s2v_tasks.runtime.run_report import link_to, read_report, write_report

EVIL = """<script>alert("x")</script>'"--><img src=x onerror=1>"""
SIGNED = "https://a.example/<script>1.jpg?Signature=sesame"
FRAME = made_run.verdicts(
    row("a.example", "web", "failed", 1, reason="several_humans", image_url=SIGNED, image_key="1"),
    row("a.example", EVIL, "passed", 1, image_key="2", width_px=640, height_px=800),
    row("b.example", SIGNED, "error", 2, reason="origin_failed", code=EVIL, image_key="3"),
    row("b.example", None, "screened_out", reason="too_small", width_px=10, height_px=20),
)


def page_of(run_dir: str | Path) -> str:
    return Path(str(write_report(run_dir))).read_text("utf-8")


def thumbnails(run_dir: str, *tiles: tuple[int, str, bytes | None, str | None]) -> None:
    rows = [(n, sheet, data, data and 120, data and 160, note) for n, sheet, data, note in tiles]
    schema = {"row": pl.Int64, "sheet": pl.String, "thumbnail": pl.Binary, "width_px": pl.Int64,
              "height_px": pl.Int64, "note": pl.String}  # fmt: skip
    pl.DataFrame(rows, schema=schema, orient="row").write_parquet(Path(run_dir) / "thumbnails.parquet")


def made(out: Path, run_id: str = "one", number: int = 1, **more: Any) -> str:
    return made_run.made(out, run_id, FRAME, number, segment_column="source", **more)


def test_nothing_of_others_stands_in_the_page_as_it_is(tmp_path: Path) -> None:
    """Segments, codes, notes and URLs are text; no query string; only the page's two scripts."""
    run_dir = made(tmp_path)
    thumbnails(run_dir, (1, "passed", None, EVIL), (2, "error/origin_failed", b"RIFF", None))
    page = page_of(run_dir)
    assert re.findall(r"<script[^>]*>", page) == [
        '<script type="application/json" id="gate-facts">', "<script>",
    ]  # fmt: skip
    assert "sesame" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert" in page
    assert page.count("default-src &#39;none&#39;") == 1
    assert not re.search(r"""(?:src|href)=["'](?!#|data:)""", page)
    assert " style=" not in page


def test_tiles_are_images_or_say_why_there_is_none(tmp_path: Path) -> None:
    """A size reject is drawn beside a frame of 400 pixels, and the funnel's bar leads to its sheet."""
    run_dir = made(tmp_path)
    thumbnails(
        run_dir, (1, "passed", b"RIFFxxxx", None), (3, "screened_out/too_small", b"\xff\xd8", None),
        (0, "failed/several_humans", None, "not_fetched"),
    )  # fmt: skip
    page = page_of(run_dir)
    assert "data:image/webp;base64,UklGRnh4eHg=" in page
    assert "can&#39;t be fetched any more" in page
    assert '<rect class="frame" width="160.0"' in page
    assert 'width="4.0" height="8.0"' in page  # 10 x 20 where 400 pixels are 160
    for sheet in re.findall(r'href="#(sheet-\d)"', page):
        assert f'id="{sheet}"' in page


def test_what_the_face_check_drops_is_a_step_of_the_funnel_with_its_sheets(tmp_path: Path) -> None:
    """Beside it is what passed in the sample though the rule drops such; the bound is with its threshold."""
    rows = [row("a.example", "web", "passed", 1, image_key=f"{n}", faces_seen=n > 0, audited=True,
                audited_in_run=True) for n in range(200)]  # fmt: skip
    rows += [row("a.example", "web", "screened_out", reason="no_face", image_key="d", faces_seen=0)]
    rows += [row("a.example", "web", "screened_out", reason="too_small", image_key="e")]
    rows += [row("a.example", EVIL, "skipped", reason="hopeless", image_key="f")]
    frame = made_run.verdicts(*rows)
    run_dir = made_run.made(tmp_path, "one", frame, segment_column="source")
    sheets = ("passed/no_face", "screened_out/no_face", "screened_out/too_small", "skipped/hopeless")
    first = zip((0, 200, 201, 202), sheets, strict=True)
    thumbnails(run_dir, *((number, sheet, None, None) for number, sheet in first))
    page = page_of(run_dir)
    assert "dropped by rule, checked in the sample, passed: no_face" in page
    assert "dropped by the face check: no_face" in page
    assert f"s2v rows {run_dir} --outcome=passed<" in page
    report = read_report(read_run(run_dir))
    bars = {bar.label: bar.rows for bar in report.bars}
    assert (bars["screened out for free"], bars["dropped by the face check"]) == (1, 1)
    assert bars["left out as hopeless"] == 1
    commands = {bar.label: bar.command for bar in report.bars}
    assert commands["dropped by the face check"].endswith("--outcome=screened_out --reason=no_face")
    assert commands["screened out for free"].endswith("--outcome=screened_out --reason=too_small")
    assert commands["left out as hopeless"].endswith("--outcome=skipped --reason=hopeless")
    linked = dict(re.findall(r'<th scope="row"><a href="#(sheet-\d)">([^<]*)</a>', page))
    heads = dict(re.findall(r'<section id="(sheet-\d)">\n<h3>([^<]*)</h3>', page))
    assert {label: heads[sheet] for sheet, label in linked.items()} == {
        "passed": "dropped by rule, checked in the sample, passed: no_face",
        "screened out for free": "screened_out: too_small",
        "dropped by the face check": "dropped by the face check: no_face",
        "left out as hopeless": "skipped: hopeless",
    }
    beside = page.partition("--max-missed-share")[2].partition('class="slider"')[0]
    assert "1 image dropped (no_face 1)" in beside
    assert "the rules would have dropped 1 of 200 passed images of the whole run" in beside
    assert "1 image of 1 segment (&lt;script&gt;" in beside
    assert "good ones among them are not in the missed share" in beside
    assert '<th scope="col">dropped</th>' in page
    bounds = re.findall(r'<th scope="row">([^<]*)</th><td>([^<]*)</td><td>([^<]*)</td></tr>', beside)
    upper = f"{Tally(1, 199).bounds.high:.1%}"
    assert bounds == [("overall", upper, "-"), ("web", upper, "-")]
    (slider,) = (one for one in report.gate.sliders if one.fact == "missed_share_upper")
    assert slider.limit == 0.05
    assert slider.observed is not None
    assert 0.03 < slider.observed < 0.05


def test_each_number_names_the_command_for_its_rows(tmp_path: Path) -> None:
    """The command's words are taken as they are; a value that is not shown whole has none."""
    run_dir = made(tmp_path)
    report = read_report(read_run(run_dir))
    failed = next(bar for bar in report.bars if bar.key == "failed")
    assert shlex.split(failed.command or "") == ["s2v", "rows", run_dir, "--outcome=failed"]
    assert failed.reasons[0][:2] == ("several_humans", 1)
    page = page_of(run_dir)
    assert "--host=b.example" in page


def test_a_published_and_a_closed_run_say_so_and_what_is_next(tmp_path: Path) -> None:
    """The pointer decides; a closed gate names the thresholds that would open it."""
    run_dir = made(tmp_path)
    assert "Published: 1 approved images." in page_of(run_dir)
    closed = made(tmp_path / "closed", published=False)
    failed = {"suite": "gate", "name": "pass_rate", "success": False, "observed": "0.33", "threshold": "0.5"}
    document = {"open": False, "checked_at": "now", "facts": [], "expectations": [failed],
                "thresholds": {"min_pass_rate": 0.5}}  # fmt: skip
    file_io.write_json(Path(closed) / "gate.json", document)
    report = read_report(read_run(closed))
    assert report.headline == "Not published: the gate is closed."
    assert report.gate.others == ()
    assert "--min-pass-rate 0 " in (report.steps[-1].command or "")
    failed["suite"] = "verdicts"
    file_io.write_json(Path(closed) / "gate.json", document)
    assert "No slider opens the gate" in page_of(closed)


def test_what_changed_since_the_last_publication_is_shown(tmp_path: Path) -> None:
    """Against the run that published before this one; the first has none."""
    first, second = made(tmp_path), made(tmp_path, "two", 2)
    assert "Nothing was published from this output before." in page_of(first)
    page = page_of(second)
    assert "Compared with run one" in page
    assert f"s2v compare {first} {second}" in page


def test_the_run_is_beside_the_last_publications(tmp_path: Path) -> None:
    """From the baseline in the gate's report; a source that is gone is named, as text, and has a slider."""
    run_dir = made(tmp_path)
    assert "There is no earlier publication of this output to compare with." in page_of(run_dir)
    medians = [
        {"metric": "pass_rate", "segment": segment, "median": 0.5, "publications": 4}
        for segment in (None, EVIL, "gone<script>")
    ]
    gate = {"open": True, "checked_at": "now", "facts": [], "baseline": {"runs": ["a"], "medians": medians}}
    file_io.write_json(Path(run_dir) / "gate.json", gate)
    page = page_of(run_dir)
    assert "gone&lt;script&gt;" in page
    assert "not in this run" in page
    assert "passed before, and none now: gone&lt;script&gt;." in page.partition("</header>")[0]
    assert "33.3%" in page.partition('id="drift"')[2].partition("</tr>")[2]
    assert "--max-pass-rate-drop; overall -" in page  # of 3 images no drop is evaluated


@pytest.mark.parametrize("old", [old_run.finished, old_run.exhausted])
def test_a_folder_of_the_first_version_has_a_report(tmp_path: Path, old: Any) -> None:
    """By today's names."""
    folder = old(tmp_path)
    (folder / "gate.json").unlink(missing_ok=True)
    page = page_of(folder)
    assert old_run.RUN_ID in page
    assert "budget_spent" not in page


def test_a_run_without_verdicts_has_no_report_and_a_second_one_replaces_the_first(tmp_path: Path) -> None:
    """A clear line; the file is whole at any time."""
    run_dir = made(tmp_path)
    (Path(run_dir) / "report.html").write_text("half")
    assert page_of(run_dir).endswith("</html>")
    (Path(run_dir) / "verdicts.parquet").unlink()
    with pytest.raises(UsageError, match=r"verdicts\.parquet is missing"):
        write_report(run_dir)


def test_facts_for_the_script_are_json_even_if_nothing_passed(tmp_path: Path) -> None:
    """An infinite cost per approved is written in a way that the script reads."""
    frame = made_run.verdicts(row("a.example", None, "failed", 1, reason="no_human", image_key="1"))
    run_dir = made_run.made(tmp_path, "one", frame, published=False)
    page = page_of(run_dir)
    (facts,) = re.findall(r'id="gate-facts">(.*?)</script>', page)
    assert "Infinity" in json.loads(facts)["worst"]


def test_the_link_is_a_url_where_the_environment_says_that_the_folder_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise, and for what is no plain http(s) URL, it is the path; without a report there is none."""
    folder = open_run_folder(made(tmp_path))
    assert link_to(folder) == ""
    write_report(folder.path)
    assert link_to(folder) == str(folder.path / "report.html")
    for prefix, wanted in (
        ("https://files.example/curated/", "https://files.example/curated/runs/one/report.html"),
        ("https://files.example/c?token=sesame", "https://files.example/c/runs/one/report.html"),
        ("javascript:alert(1)", str(folder.path / "report.html")),
        ("https://x.example/)[a](b", str(folder.path / "report.html")),
    ):
        monkeypatch.setenv("S2V_REPORT_URL_PREFIX", prefix)
        assert link_to(folder) == wanted
