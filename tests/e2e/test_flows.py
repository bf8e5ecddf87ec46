"""The flows, as Prefect runs them: results for callers, states with plain messages, pages for operators."""

import asyncio
import json
import time
from collections import Counter
from typing import Any

import pytest
from fleet import events
from prefect import flow, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import Artifact, FlowRun
from workbench import KEY, PRICE_USD, Bench, files_below, flow_runs, load, set_rate, wait_until

from s2v_tasks import Advanced, CurationResult, S2VError, Screening, Source, Spending, curate, pipeline
from s2v_tasks.domain.detect import parse_response
from s2v_tasks.errors import GateClosed
from s2v_tasks.models import WAN22_S2V_DETECT
from s2v_tasks.runtime.final_steps import log_codes
from s2v_tasks.runtime.run_stats import RunStats

PRIVATE = Screening(allow_private_hosts=True)

STAGE = """
from pathlib import Path

from prefect import flow


@flow
{}def stage(path: str):
    Path(__file__).with_name("received").write_text(path)
"""


def artifacts(flow_run: FlowRun) -> list[Artifact]:
    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run.id]))
    with get_client(sync_client=True) as client:
        return client.read_artifacts(artifact_filter=wanted)


async def test_a_caller_gets_what_the_run_came_to(in_process: Bench) -> None:
    """Awaited like any flow, it gives the record of the run; groups may be what a form sends."""
    urls = [*in_process.portraits(3), in_process.url(9, "scenery")]
    run = await curate(
        in_process.candidates(urls),
        str(in_process.out),
        1.0,
        screening={"allow_private_hosts": True},
        thresholds={"min_pass_rate": 0.25},
    )
    assert isinstance(run, CurationResult)
    assert load(run.run_dir / "manifest.json")["parameters"]["thresholds"]["min_pass_rate"] == 0.25
    assert (run.status, run.summary.passed, run.summary.failed) == ("published", 3, 1)
    assert run.summary.run_cost_usd == pytest.approx(4 * PRICE_USD)
    assert run.publication is not None
    assert run.publication.run_id == run.run_id == run.run_dir.name
    assert run.message == "published 3 approved images"


async def test_a_caller_gets_the_obstacle_as_an_exception(in_process: Bench) -> None:
    """A closed gate raises for callers; the state says why without a traceback."""
    candidates = in_process.candidates([in_process.url(1, "crowd")])
    with pytest.raises(GateClosed, match=r"pass_rate: observed 0, wanted at least 0\.5"):
        await curate(candidates, str(in_process.out), 1.0, screening=PRIVATE)
    (flow_run,) = await asyncio.to_thread(flow_runs)
    assert flow_run.state is not None
    assert flow_run.state.message == "Gate closed: pass_rate: observed 0, wanted at least 0.5."


async def test_a_run_shows_one_bar_one_summary_and_one_table(in_process: Bench) -> None:
    """Its page holds four artifacts; the summary shows funnel, sources, cost, gate and rate."""
    urls = [*in_process.portraits(3), in_process.url(9, "scenery"), None]
    run: CurationResult = await curate(
        in_process.candidates(urls), str(in_process.out), 1.0, screening=PRIVATE
    )
    (flow_run,) = await asyncio.to_thread(flow_runs)
    assert run.run_id == str(flow_run.id)  # so a retry of the flow run is the same run
    shown = await asyncio.to_thread(artifacts, flow_run)
    assert sorted((a.type, a.key) for a in shown) == [
        ("markdown", "s2v-estimate"),
        ("markdown", "s2v-summary"),
        ("progress", "s2v-progress"),
        ("table", "s2v-reasons"),
    ]
    data = {artifact.type: artifact.data for artifact in shown if artifact.key != "s2v-estimate"}
    assert data["progress"] == 100.0
    for text in ("| candidates | 5 |", "| **passed** | 3 |", "USD 0.002296", "Gate open", "200 a second"):
        assert text in str(data["markdown"])
    assert "| `127.0.0.1` | 4 | 0 | 4 | 3 | 75.0% | " in str(data["markdown"])
    assert "empty_url" in str(data["table"])


async def test_an_unknown_response_is_logged_as_a_warning(in_process: Bench) -> None:
    """Responses without a verdict are counted by code; the first unknown one is shown, as a warning."""
    teapot = parse_response(WAN22_S2V_DETECT, 418, {}, b'{"code": "Teapot", "request_id": "r-7"}')

    @flow
    async def finished() -> None:
        log_codes(
            RunStats(codes=Counter(Teapot=2, InternalError=3), unrecognised=2, first_unrecognised=teapot)
        )

    await finished()
    (flow_run,) = await asyncio.to_thread(flow_runs, "finished")

    def logged() -> dict[str, int]:
        with get_client(sync_client=True) as client:
            logs = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run.id])))
        found = {log.message: log.level for log in logs}
        return found if any(level >= 30 for level in found.values()) else {}

    found = await asyncio.to_thread(wait_until, logged)
    assert found["responses without a verdict: 3 InternalError, 2 Teapot"] == 20
    (loud,) = [message for message, level in found.items() if level == 30]
    assert "2 responses that this program does not know" in loud
    assert loud.endswith("HTTP 418 Teapot (request r-7)")


@pytest.mark.ci
async def test_the_rate_is_the_operators(in_process: Bench) -> None:
    """A limit turned down to 0 in mid-run pauses the calls, and a later value lets them go on."""
    set_rate(5)
    candidates = in_process.candidates(in_process.portraits(120))
    running = asyncio.create_task(curate(candidates, str(in_process.out), 1.0, screening=PRIVATE))
    await asyncio.to_thread(wait_until, lambda: in_process.received() >= 3)
    await asyncio.to_thread(set_zero)
    assert await asyncio.to_thread(wait_until, lambda: stands_still(in_process)) < 120
    await asyncio.to_thread(set_rate, 200)
    run: CurationResult = await running
    assert run.summary.passed == 120


def stands_still(bench: Bench, seconds: float = 3.0) -> int:
    """The calls received, once none was added for a while; the run reads the limit every 5 s."""
    before = bench.received()
    time.sleep(seconds)
    return before if bench.received() == before else 0


def set_zero() -> None:
    with get_client(sync_client=True) as client:
        from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate

        name = WAN22_S2V_DETECT.model
        client._client.patch(  # noqa: SLF001
            f"/v2/concurrency_limits/{name}",
            json=GlobalConcurrencyLimitUpdate(limit=0).model_dump(mode="json", exclude_unset=True),
        ).raise_for_status()


async def test_runs_of_one_name_share_one_budget(in_process: Bench) -> None:
    """Two runs over different images together never spend more than the one cap."""
    spending = Spending(budget_name="october")
    advanced = Advanced(ledger=f"sqlite:///{in_process.folder}/ledger.sqlite3")
    cap = round(10 * PRICE_USD, 6)
    states = [
        await curate(
            in_process.candidates(in_process.portraits(8, first), f"{first}.parquet"),
            str(in_process.folder / f"out-{first}"),
            cap,
            screening=PRIVATE,
            spending=spending,
            advanced=advanced,
            return_state=True,
        )
        for first in (0, 100)
    ]
    assert [state.is_completed() for state in states] == [True, False]
    assert "budget is exhausted: 6 of 8" in states[1].message
    assert len(in_process.billed_urls()) == 10


@pytest.mark.parametrize("kind", ["", "async "], ids=["sync", "async"])
async def test_the_downstream_stage_starts_on_an_open_gate_with_the_published_path(
    in_process: Bench, kind: str
) -> None:
    """A flow in a file is loaded, run to its end, and given the path of the approved file."""
    stage = in_process.folder / "stage.py"
    stage.write_text(STAGE.format(kind))
    state = await downstream(in_process, f"{stage}:stage", in_process.portraits(2))
    assert state.is_completed(), state.message
    (run_dir,) = (in_process.out / "runs").iterdir()
    assert (in_process.folder / "received").read_text() == str(run_dir / "approved.parquet")


async def test_the_downstream_stage_does_not_start_on_a_closed_gate(in_process: Bench) -> None:
    """The pipeline's state says why the gate is closed; the stage was not touched."""
    stage = in_process.folder / "stage.py"
    stage.write_text(STAGE.format(""))
    state = await downstream(in_process, f"{stage}:stage", [in_process.url(1, "crowd")])
    assert state.is_failed()
    assert "Gate closed: pass_rate" in state.message
    assert not (in_process.folder / "received").exists()


async def test_a_stage_that_fails_fails_the_pipeline(in_process: Bench) -> None:
    """What is published stays; the state is the stage's."""
    stage = in_process.folder / "stage.py"
    stage.write_text(STAGE.format("") + "    raise RuntimeError('no room')\n")
    state = await downstream(in_process, f"{stage}:stage", in_process.portraits(1))
    assert state.is_failed()
    assert (in_process.out / "published" / "current.json").is_file()


@pytest.mark.parametrize("stage", ["nothing", "no/such/stage", "missing.py:stage", "s2v_tasks:nothing"])
async def test_a_stage_that_is_not_there_is_named_before_anything_is_paid(
    in_process: Bench, stage: str
) -> None:
    """A typing error in the stage must not cost a dataset."""
    state = await downstream(in_process, stage, in_process.portraits(1))
    error = await state.aresult(raise_on_failure=False)
    assert isinstance(error, S2VError)
    assert error.exit_status == 2
    assert in_process.received() == 0


async def downstream(bench: Bench, stage: str, urls: list[str]) -> Any:
    """Run the pipeline with a stage downstream."""
    return await pipeline(
        bench.candidates(urls), str(bench.out), 1.0, stage, screening=PRIVATE, return_state=True
    )


async def test_bad_input_is_a_failed_state_with_a_plain_message(in_process: Bench) -> None:
    """What the command refuses with status 2, the flow refuses with the same line, and writes nothing."""
    candidates = in_process.candidates(in_process.portraits(1))
    state = await curate(
        candidates, str(in_process.out), 1.0, source=Source(url_column="link"), return_state=True
    )
    assert state.is_failed()
    assert state.message == (
        f"{candidates} has no column 'link'; they have: image_url; name the one with the URLs (--url-column)"
    )
    assert files_below(in_process.folder) == {"candidates.parquet"}


@pytest.mark.ci
async def test_what_stops_a_run_is_an_event(in_process: Bench) -> None:
    """A budget that ends and an account that is refused are reported, without key or query string."""
    signature = "TOPSECRET-of-a-signed-url"
    for faults, name in ([], "s2v.budget.exhausted"), (["InvalidApiKey:first=1"], "s2v.account.refused"):
        in_process.emulator.set_faults(faults)
        urls = [in_process.url(number, query=f"?sig={signature}") for number in range(len(faults) * 9, 18)]
        state = await curate(
            in_process.candidates(urls), str(in_process.folder / name), 3 * PRICE_USD, screening=PRIVATE,
            return_state=True,
        )  # fmt: skip
        assert state.is_failed()
        (flow_run,) = await asyncio.to_thread(flow_runs)
        (event,) = await asyncio.to_thread(wait_until, lambda run=flow_run, name=name: events(name, run.id))
        assert event["payload"]["message"] == state.message
        assert event["payload"]["rows"] == len(in_process.billed_urls())
        in_process.emulator.reset()
        assert signature not in json.dumps(event)
        assert KEY not in json.dumps(event)
