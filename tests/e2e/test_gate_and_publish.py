"""Nothing is published behind a closed gate; what is published never goes back to an older run."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from s2v_tasks.flows.gate import gate
from workbench import PRICE_USD, Bench, Ran, files_below, flow_runs, ledger_ids, load, pointer

from s2v_tasks import Curated, S2VError, Screening, Thresholds, curate


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
    words = "pass_rate: observed 0.25, wanted at least 0.9"
    assert ran.status == 3
    assert ran.err.splitlines()[-1] == f"s2v: Gate closed: {words}."
    (failed,) = [e for e in ran.gate["expectations"] if not e["success"]]
    assert (failed["name"], failed["observed"], failed["threshold"]) == ("pass_rate", "0.25", "at least 0.9")
    assert ran.gate["open"] is False
    assert ran.manifest["status"] == "closed"
    assert ran.manifest["gate"] == {"open": False, "failed": [words]}
    (flow_run,) = flow_runs()
    assert flow_run.state is not None
    assert flow_run.state.name == "Failed"
    assert flow_run.state.message == f"Gate closed: {words}."
    pages = texts_below(ran.run_dir / "data_docs")
    assert "Failed" in pages
    assert re.search(r"0\.9\b", pages)


def test_a_closed_gate_publishes_nothing_until_it_is_judged_open(
    in_process: Bench, command: Callable[..., Ran]
) -> None:
    """Too few passes: status 3 and nothing moves; judged again with a lower limit it may be published."""
    bench = in_process
    good = command(*bench.curating(bench.candidates(bench.portraits(4), "good.parquet")))
    assert good.status == 0, good.err
    published = (bench.out / "published" / "current.json").read_bytes()
    urls = [bench.url(0), *(bench.url(n, "crowd") for n in range(1, 4))]
    bad = command(*bench.curating(bench.candidates(urls), "--min-pass-rate", 0.9))
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


async def test_the_pointer_never_goes_back_to_a_run_that_started_earlier(in_process: Bench) -> None:
    """An older run that is judged open later leaves the newer publication where it is."""
    urls = [in_process.url(0, "crowd"), in_process.url(1)]
    older = await curated(in_process, in_process.candidates(urls), min_pass_rate=0.9)
    assert older.is_failed()
    (old_dir,) = (in_process.out / "runs").iterdir()
    newer: Curated = await (
        await curated(in_process, in_process.candidates(in_process.portraits(2)))
    ).aresult()
    published = (in_process.out / "published" / "current.json").read_bytes()

    state = await gate(str(old_dir), Thresholds(min_pass_rate=0.1), publish=True, return_state=True)
    assert state.is_completed()
    assert (in_process.out / "published" / "current.json").read_bytes() == published
    assert pointer(in_process.out).run_id == newer.run_id
    assert "started later" in state.message


async def test_a_run_that_is_not_finished_is_not_judged_again(in_process: Bench) -> None:
    """The verdicts of a stopped run are a part of the data set; nothing publishes them."""
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
    "data_set_cost": ("max_cost_usd", 0.001, "observed 0.001148, wanted at most 0.001"),
    "cost_per_approved": ("max_cost_per_approved_usd", 0.0005, "observed 0.000574, wanted at most 0.0005"),
}


async def test_each_limit_is_named_with_what_was_seen(in_process: Bench) -> None:
    """Errors, dead links and cost are reasons of their own, in the manifest, the report and the state."""
    in_process.emulator.set_faults(["InvalidFile.Format:match=portrait-2.jpg"])
    urls = [*in_process.portraits(3), in_process.url(3, query="?status=404")]
    limits = {option: limit for option, limit, _ in LIMITS.values()}
    state = await curated(in_process, in_process.candidates(urls), **limits)
    assert state.is_failed()
    (run_dir,) = (in_process.out / "runs").iterdir()
    failed = [f"{name}: {words}" for name, (_, _, words) in LIMITS.items()]
    assert load(run_dir / "manifest.json")["gate"]["failed"] == failed
    assert state.message == f"Gate closed: {'; '.join(failed[:3])}; and 1 more."


def test_a_budget_is_met_exactly_and_the_data_set_keeps_its_cost(
    in_process: Bench, command: Callable[..., Ran]
) -> None:
    """50 of 80 are billed and 30 named unspent; the rest costs the rest; a re-run can't hide the cost."""
    bench = in_process
    candidates, half = bench.candidates(bench.portraits(80)), round(50 * PRICE_USD, 6)
    part = command(*bench.curating(candidates, "--budget-usd", half))
    assert part.status == 4, part.err
    assert len(bench.billed_urls()) == 50
    counts = part.verdicts.group_by("outcome", "reason").len().sort("outcome").rows()
    assert counts == [("passed", None, 50), ("unspent", "budget_spent", 30)]
    assert part.manifest["status"] == "budget_spent"
    assert "--budget-usd" in part.err
    assert not (bench.out / "published").exists()

    allowed = command(*bench.curating(candidates, "--budget-usd", half / 50, "--allow-partial"))
    assert allowed.status == 4, allowed.err
    assert pointer(bench.out).rows == 51
    assert len(bench.billed_urls()) == 51

    rest = command(*bench.curating(candidates, "--budget-usd", 1))
    assert rest.status == 0, rest.err
    assert len(set(bench.billed_urls())) == len(bench.billed_urls()) == 80
    assert ledger_ids(bench.out / "ledger.sqlite3") == bench.billed_ids()

    dear = command(*bench.curating(candidates, "--budget-usd", 1, "--max-cost-usd", 79 * PRICE_USD))
    assert dear.status == 3, dear.err
    assert dear.manifest["cost_usd"] == {"billed": 0.0, "unknown": 0.0}
    assert dear.manifest["data_set_cost_usd"] == pytest.approx(80 * PRICE_USD)
    assert "data_set_cost: observed 0.04592" in dear.err
    assert pointer(bench.out).run_id == rest.run_dir.name
