"""Nothing is published behind a closed gate; what is published never goes back to an older run."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_run
import old_run
import polars as pl
import pytest
from s2v_tasks.flows.gate import gate
from workbench import PRICE_USD, Bench, Ran, files_below, flow_runs, ledger_ids, load, pointer

import s2v_tasks
from s2v_tasks import CurationResult, S2VError, Screening, Thresholds, curate


def texts_below(folder: Path) -> str:
    return "\n".join(path.read_text("utf-8") for path in folder.rglob("*.html"))


async def curated(bench: Bench, candidates: str, **thresholds: Any) -> Any:
    return await curate(
        candidates,
        str(bench.out),
        1.0,
        screening=Screening(allow_private_hosts=True),
        thresholds=Thresholds(**thresholds),
        return_state=True,
    )


def check_closed(ran: Ran) -> None:
    """The command, the report, Data Docs and Prefect say the same, with the numbers."""
    message = "pass_rate: observed 0.25, wanted at least 0.9"
    assert ran.status == 3
    assert ran.err.splitlines()[-1] == f"s2v: Gate closed: {message}."
    (failed,) = [e for e in ran.gate["expectations"] if not e["success"]]
    assert (failed["name"], failed["observed"], failed["threshold"]) == ("pass_rate", "0.25", "at least 0.9")
    assert ran.gate["open"] is False
    assert ran.manifest["status"] == "closed"
    assert ran.manifest["gate"] == {"open": False, "failed": [message], "left_out": []}
    (flow_run,) = flow_runs()
    assert flow_run.state is not None
    assert flow_run.state.name == "Failed"
    assert flow_run.state.message == f"Gate closed: {message}."
    pages = texts_below(ran.run_dir / "data_docs")
    assert "Failed" in pages
    assert re.search(r"0\.9\b", pages)


def test_a_closed_gate_publishes_nothing_until_it_is_open(
    in_process: Bench, command: Callable[..., Ran]
) -> None:
    """Too few passes: status 3 and nothing moves; evaluated again with a lower limit it may be published."""
    bench = in_process
    good = command(*bench.curating(bench.candidates(bench.portraits(4), "good.parquet")))
    assert good.status == 0, good.err
    assert not (good.run_dir / "data_docs").exists()
    published = (bench.out / "published" / "current.json").read_bytes()
    urls = [bench.url(0), *(bench.url(n, "crowd") for n in range(1, 4))]
    bad = command(*bench.curating(bench.candidates(urls), "--min-pass-rate", 0.9, "--data-docs"))
    check_closed(bad)
    assert (bench.out / "published" / "current.json").read_bytes() == published

    first, calls = (bad.run_dir / "gate.json").read_bytes(), bench.received()
    closed = command("gate", bad.run_dir, "--max-cost-usd", 5)
    assert closed.status == 3, closed.err
    assert "wanted at least 0.9" in closed.out + closed.err
    before = files_below(bad.run_dir)
    opened = command("gate", bad.run_dir, "--min-pass-rate", 0.1)
    assert opened.status == 0, opened.err
    new = {name for name in files_below(bad.run_dir) - before if "/" not in name}
    (report,) = [name for name in new if re.fullmatch(r"gate-\d{8}T\d+Z\.json", name)]
    assert json.loads((bad.run_dir / report).read_text())["thresholds"]["min_pass_rate"] == 0.1
    assert (bad.run_dir / "gate.json").read_bytes() == first
    assert (bench.out / "published" / "current.json").read_bytes() == published

    moved = command("gate", bad.run_dir, "--min-pass-rate", 0.1, "--publish")
    assert moved.status == 0, moved.err
    assert pointer(bench.out).run_id == bad.run_dir.name
    assert pointer(bench.out).rows == 1
    assert (bad.run_dir / "gate.json").read_bytes() == first
    assert bench.received() == calls

    moved_to = (bench.out / "published" / "current.json").read_bytes()
    pl.read_parquet(bad.run_dir / "approved.parquet").head(0).write_parquet(bad.run_dir / "approved.parquet")
    changed = command("gate", bad.run_dir, "--min-pass-rate", 0.1, "--publish")
    assert changed.status == 2, changed.err
    assert "approved.parquet is not what the run wrote" in changed.out + changed.err
    assert (bench.out / "published" / "current.json").read_bytes() == moved_to


@pytest.mark.ci
async def test_the_pointer_never_goes_back_to_a_run_that_started_earlier(in_process: Bench) -> None:
    """An older run whose gate opens later leaves the newer publication where it is."""
    urls = [in_process.url(0, "crowd"), in_process.url(1)]
    older = await curated(in_process, in_process.candidates(urls), min_pass_rate=0.9)
    assert older.is_failed()
    (old_dir,) = (in_process.out / "runs").iterdir()
    newer: CurationResult = await (
        await curated(in_process, in_process.candidates(in_process.portraits(2)))
    ).aresult()
    published = (in_process.out / "published" / "current.json").read_bytes()

    state = await gate(str(old_dir), Thresholds(min_pass_rate=0.1), publish=True, return_state=True)
    assert state.is_completed()
    assert (in_process.out / "published" / "current.json").read_bytes() == published
    assert pointer(in_process.out).run_id == newer.run_id
    assert "started later" in state.message


async def test_a_run_that_is_not_finished_is_not_evaluated_again(in_process: Bench) -> None:
    """The verdicts of a stopped run are a part of the dataset; nothing publishes them."""
    in_process.emulator.set_faults(["InvalidApiKey:first=2"])
    state = await curated(in_process, in_process.candidates(in_process.portraits(4)))
    assert state.is_failed()
    (run_dir,) = (in_process.out / "runs").iterdir()
    again = await gate(str(run_dir), Thresholds(min_pass_rate=0), publish=True, return_state=True)
    error = await again.aresult(raise_on_failure=False)
    assert isinstance(error, S2VError)
    assert error.exit_status == 2
    assert not (in_process.out / "published").exists()


LIMITS = {
    "error_share": ("max_error_share", 0.1, "observed 0.333333, wanted at most 0.1"),
    "unreachable_share": ("max_unreachable_share", 0.2, "observed 0.25, wanted at most 0.2"),
    "dataset_cost": ("max_cost_usd", 0.001, "observed 0.001148, wanted at most 0.001"),
    "cost_per_approved": ("max_cost_per_approved_usd", 0.0005, "observed 0.000574, wanted at most 0.0005"),
}


async def test_an_unfinished_run_of_the_first_version_cannot_be_finished(in_process: Bench) -> None:
    """The command that began it would be refused: a new run is the advice."""
    candidates = Path(in_process.candidates([in_process.url(0)]))
    folder = old_run.unfinished(in_process.out, candidates, in_process.folder / "ledger.sqlite3")
    state = await gate(str(folder), return_state=True)
    error = await state.aresult(raise_on_failure=False)
    assert "start a new one with --new-run: nothing is paid twice" in str(error)


async def test_each_limit_is_named_with_what_was_seen(in_process: Bench) -> None:
    """Errors, dead links and cost are reasons of their own, in the manifest, the report and the state."""
    in_process.emulator.set_faults(["InvalidFile.Format:match=portrait-2.jpg"])
    urls = [*in_process.portraits(3), in_process.url(3, query="?status=404")]
    limits = {option: limit for option, limit, _ in LIMITS.values() if option != "max_error_share"}
    state = await curated(in_process, in_process.candidates(urls), **limits)
    assert state.is_failed()
    (run_dir,) = (in_process.out / "runs").iterdir()
    failed = [f"{name}: {message}" for name, (_, _, message) in LIMITS.items()]
    assert load(run_dir / "manifest.json")["gate"]["failed"] == failed
    assert state.message == f"Gate closed: {'; '.join(failed[:3])}; and 1 more."


@pytest.mark.ci
def test_a_budget_is_met_exactly_and_the_data_set_keeps_its_cost(
    in_process: Bench, command: Callable[..., Ran]
) -> None:
    """50 of 80 are billed and 30 named skipped; the rest costs the rest; a re-run can't hide the cost."""
    bench = in_process
    candidates, half = bench.candidates(bench.portraits(80)), round(50 * PRICE_USD, 6)
    part = command(*bench.curating(candidates, "--budget-usd", half))
    assert part.status == 4, part.err
    assert len(bench.billed_urls()) == 50
    counts = part.verdicts.group_by("outcome", "reason").len().sort("outcome").rows()
    assert counts == [("passed", None, 50), ("skipped", "budget_exhausted", 30)]
    assert part.manifest["status"] == "budget_exhausted"
    assert "--budget-usd" in part.err
    assert not (bench.out / "published").exists()

    allowed = command(*bench.curating(candidates, "--budget-usd", half / 50, "--publish-partial"))
    assert allowed.status == 4, allowed.err
    assert pointer(bench.out).rows == 51
    assert len(bench.billed_urls()) == 51

    rest = command(*bench.curating(candidates, "--budget-usd", 1))
    assert rest.status == 0, rest.err
    assert len(set(bench.billed_urls())) == len(bench.billed_urls()) == 80
    assert ledger_ids(bench.out / "ledger.sqlite3") == bench.billed_ids()

    expensive = command(*bench.curating(candidates, "--budget-usd", 1, "--max-cost-usd", 79 * PRICE_USD))
    assert expensive.status == 3, expensive.err
    assert expensive.manifest["run_cost_usd"] == {"billed": 0.0, "unknown": 0.0}
    assert expensive.manifest["dataset_cost_usd"] == pytest.approx(80 * PRICE_USD)
    assert "dataset_cost: observed 0.04592" in expensive.err
    assert pointer(bench.out).run_id == rest.run_dir.name


@pytest.mark.ci
def test_only_segments_that_pass_are_published(in_process: Bench, command: Callable[..., Ran]) -> None:
    """The rest is named; another evaluation publishes other segments, in a file of its own."""
    bench = in_process
    urls = [*bench.portraits(4), bench.url(4, "crowd"), bench.url(5, "crowd"), bench.url(6, "scenery")]
    candidates = bench.candidates(urls, source=["a", "a", "b", None, "b", "b", None])
    only = ["--segment-column", "source", "--publish-passing-segments", "--min-pass-rate", 0.6]
    ran = command(*bench.curating(candidates, *only))
    assert ran.status == 0, ran.err
    published = pointer(bench.out)
    assert published.segments_left_out == ("(null)", "b")
    assert (published.rows, published.gate.pass_rate) == (2, 1.0)
    assert pl.read_parquet(published.path)["row"].to_list() == [0, 1]
    assert Path(published.path) == ran.run_dir / "approved.parquet"
    assert ran.manifest["gate"]["left_out"] == ["(null)", "b"]
    assert (
        "2 segments are left out: (null) (pass_rate 0.5, wanted at least 0.6); b" in ran.manifest["message"]
    )
    assert [fact["rows"] for fact in ran.gate["facts"]] == [2, 2]
    assert ran.gate["left_out"][1]["facts"]["pass_rate"] == pytest.approx(1 / 3)
    assert "2 of 3 are left out" in (ran.run_dir / "report.html").read_text("utf-8")

    again = command("gate", ran.run_dir, "--min-pass-rate", 0.5, "--publish")
    assert again.status == 0, again.err
    wider = pointer(bench.out)
    assert (wider.rows, wider.segments_left_out) == (3, ("b",))
    assert Path(wider.path).name.startswith("approved-")
    assert pl.read_parquet(wider.path)["row"].to_list() == [0, 1, 3]
    assert s2v_tasks.published(bench.out).approved.collect()["row"].to_list() == [0, 1, 3]
    assert pl.read_parquet(published.path)["row"].to_list() == [0, 1]

    none = command("gate", ran.run_dir, "--min-pass-rate", 0.5, "--max-cost-usd", 0, "--publish")
    assert none.status == 3
    assert "Gate closed: no segment passed. 3 segments are left out: (null) (dataset_cost_usd" in none.out
    assert pointer(bench.out) == wider


def baselines(run_dir: str) -> list[Any]:
    """Of each evaluation after the first."""
    return [json.loads(one.read_text())["baseline"] for one in Path(run_dir).glob("gate-*.json")]


@pytest.mark.ci
def test_a_drop_below_the_last_publications_closes_the_gate(
    in_process: Bench, command: Callable[..., Ran]
) -> None:
    """Each fixed threshold holds; a later evaluation compares with the same, whatever was published since."""
    out = in_process.out
    image = {
        "run_cost_usd": PRICE_USD, "lifetime_cost_usd": PRICE_USD, "http_status": 200, "billing": "billed",
        "checked_at": made_run.STARTED_AT, "width_px": 640, "height_px": 800, "image_format": "jpeg",
    }  # fmt: skip
    checks = [("passed", None), ("failed", "no_face")]
    frame = made_run.verdicts(
        *(
            made_run.row("a.example", "web", checks[n >= 60][0], 1, reason=checks[n >= 60][1],
                         check_pass=n < 60, humanoid=n < 60, image_key=f"{n:032x}", **image)
            for n in range(100)
        )
    )  # fmt: skip
    known = [{"scope": "overall", "attempted": 100, "pass_rate": 0.9}]
    for number in (1, 2, 3):
        made_run.made(out, f"r{number}", frame, number, facts=known)
    run_dir = made_run.made(out, "r4", frame, 4, published=False)
    closed = command("gate", run_dir, "--max-pass-rate-drop", "0.3")
    assert closed.status == 3
    assert "Gate closed: pass_rate_drop: observed 0.333333, wanted at most 0.3." in closed.out
    (baseline,) = baselines(run_dir)
    assert baseline["runs"] == ["r3", "r2", "r1"]
    assert "is 33.3% below the median" in (Path(run_dir) / "report.html").read_text()
    made_run.made(out, "r5", frame, 5, facts=known)
    assert command("gate", run_dir, "--max-pass-rate-drop", "0.34").status == 0
    assert baselines(run_dir) == [baseline, baseline]
    for file in (out / "published" / "history").iterdir():
        file.write_text("{}")
    other = made_run.made(out, "r6", frame, 6, published=False)
    assert command("gate", other).status == 0  # no threshold needs the history
    refused = command("gate", other, "--max-pass-rate-drop", "0.3")
    assert refused.status not in (0, 3)
    assert "can't be read as a publication" in refused.out + refused.err
