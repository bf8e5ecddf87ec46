"""``--json`` of a run: the kind of its end, whether the pointer moved, counts and cost."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from workbench import FAST_PER_S, PRICE_USD, Bench, Ran, ended, pointer, set_rate, wait_until

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "docs" / "reference" / "result.schema.json").read_text("utf-8")
)


def read(ran: Ran) -> dict[str, Any]:
    """The object, which is all of standard output."""
    (line,) = ran.out.splitlines()
    found = json.loads(line)
    jsonschema.validate(found, SCHEMA)
    assert found["exit_status"] == ran.status
    return found


@pytest.mark.ci
def test_each_end_of_a_run_is_named(in_process: Bench, command: Callable[..., Ran]) -> None:
    """A run that published, the same entered again, a closed gate, a spent budget, a refused account."""
    bench = in_process
    few = bench.candidates([*bench.portraits(3), bench.url(9, "crowd")])
    arguments = bench.curating(few, "--run-id", "first", "--json")
    first = command(*arguments)
    found = read(first)
    assert (found["kind"], found["published"], found["run_id"]) == ("published", True, "first"), first.err
    assert found["published_file"] == pointer(bench.out).path
    assert Path(found["pointer"]).is_file()
    assert (found["counts"]["passed"], found["counts"]["failed"]) == (3, 1)
    assert found["cost"]["billed"] == pytest.approx(len(bench.emulator.invoice()) * PRICE_USD)
    assert "candidates" in first.err
    assert read(command(*arguments)) == found

    gate = ["gate", found["run_dir"], "--json"]
    assert read(command(*gate))["kind"] == "gate_open"
    shut = read(command(*gate, "--min-pass-rate", 0.9))
    assert (shut["kind"], shut["published"], shut["retryable"]) == ("gate_closed", False, False)

    later = read(command(*bench.curating(few, "--json", "--min-pass-rate", 0.6)))
    assert (later["kind"], later["published"], later["cost"]["billed"]) == ("published", True, 0)
    older = read(command(*gate, "--publish"))
    assert (older["kind"], older["published"], older["exit_status"]) == ("superseded", False, 0)

    more = bench.candidates(bench.portraits(5, first=20), "more.parquet")
    partial = bench.curating(more, "--json", "--budget-usd", 2 * PRICE_USD)
    spent = read(command(*partial))
    assert (spent["kind"], spent["published"], spent["exit_status"]) == ("budget_exhausted", False, 4)
    spent = read(command(*partial, "--publish-partial", "--min-pass-rate", 0.1))
    assert (spent["kind"], spent["published"], spent["exit_status"]) == ("published", True, 4)

    bench.emulator.set_faults(["InvalidApiKey"])
    refused = read(command(*bench.curating(bench.candidates(bench.portraits(3, first=30)), "--json")))
    assert (refused["kind"], refused["published"], refused["retryable"]) == ("account", False, True)


@pytest.mark.ci
def test_a_run_that_is_stopped_says_so(bench: Bench) -> None:
    """SIGTERM: everything settled, and the object has what was paid until then."""
    candidates = bench.candidates(bench.portraits(400))
    process = bench.start(*bench.curating(candidates, "--run-id", "r", "--json"))
    wait_until(lambda: len(bench.billed_urls()) >= 5)
    process.send_signal(signal.SIGTERM)
    found = read(ended(process))
    assert (found["kind"], found["retryable"], found["run_id"]) == ("interrupted", True, "r")
    assert found["cost"]["billed"] == pytest.approx(len(bench.emulator.invoice()) * PRICE_USD)


@pytest.mark.ci
def test_a_source_that_cannot_reach_the_pass_rate_is_checked_no_further(
    in_process: Bench, command: Callable[..., Ran]
) -> None:
    """Its rest is ``hopeless``, which the budget has not left over: the gate is closed, status 3."""
    bench, sources = in_process, ["good", "bad", "bad", "bad"] * 18
    urls = [bench.url(n, "portrait" if of == "good" else "scenery") for n, of in enumerate(sources)]
    candidates = bench.candidates(urls, source=sources)
    set_rate(5)
    try:
        ran = command(*bench.curating(candidates, "--faces", "order", "--segment-column", "source"))
    finally:
        set_rate(FAST_PER_S)
    assert ran.status == 3, ran.out + ran.err
    assert ran.verdicts.filter(outcome="passed")["source"].to_list() == ["good"] * 18
    left = ran.verdicts.filter(outcome="skipped")
    assert set(left.select("source", "reason").rows()) == {("bad", "hopeless")}
    assert len(bench.emulator.invoice()) + left.height == 72
    assert f"{left.height} rows were not checked" in ran.out + ran.err
    assert f"hopeless   {left.height} images of 1 segment (bad {left.height}) not checked" in ran.out
    figures = ran.manifest["face_check"]
    assert (figures["hopeless"], figures["hopeless_segments"], figures["dropped"]) == (left.height, 1, 0)
