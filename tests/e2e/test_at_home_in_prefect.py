"""At home on a Prefect server: set up by one command, deployed from yaml, run by a worker, called by API."""

import http.server
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import polars as pl
import pytest
from fleet import ROOT, cancel, ended, events, read, retry, runs_of, shell, start, working
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.schemas.objects import State
from workbench import FAST_PER_S, PRICE_USD, Bench, ledger_ids, pointer, set_rate, wait_until

from s2v_tasks import Emulator, EmulatorOptions
from s2v_tasks.models import WAN22_S2V_DETECT

pytestmark = pytest.mark.ci

PAGE = (ROOT / "docs" / "guides" / "prefect.md").read_text("utf-8")
SETUP = "s2v prefect setup"
ALERT = "s2v prefect setup --alert slack-webhook/team"
DEPLOY = "prefect deploy --prefect-file deployments/prefect.yaml --all"
WORKER = "prefect worker start --pool s2v"
SERVE = "s2v prefect serve --limit 2"
RUN = (
    "prefect deployment run curate/curate --param candidates=portraits.parquet --param out=curated"
    " --param budget_usd=5"
)
RUN_ELSEWHERE = {  # by tests/e2e/test_server_away.py, and as variables of the worker
    "prefect server start",
    "export PREFECT_API_URL=http://127.0.0.1:4200/api",
    "export DASHSCOPE_API_KEY=...",
    "export S2V_LEDGER_URL=sqlite:///$HOME/s2v.sqlite3",
}
PRIVATE = {"enabled": True, "allow_private_hosts": True}


@pytest.fixture(scope="module")
def chat() -> Iterator[tuple[str, list[str]]]:
    """A webhook of the team's chat on loopback: its URL, and what it received."""
    received: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["content-length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/", received
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, prefect_api: str, chat: Any) -> Iterator[Bench]:
    """Set up twice, deployed, and a worker at work; the vendor's account is the worker's environment."""
    CustomWebhookNotificationBlock(
        name="chat", url=chat[0], json_data={"subject": "{{subject}}", "body": "{{body}}"}
    ).save("chat", overwrite=True)
    with Emulator(EmulatorOptions(limit=None)) as emulator:
        bench = Bench(tmp_path_factory.mktemp("fleet"), emulator)
        bench.env["FIRST"] = shell(ALERT.replace("slack-webhook/team", "custom-webhook/chat"), bench)
        bench.env["SECOND"] = shell(SETUP, bench)
        shell(DEPLOY.replace("prefect", "prefect --no-prompt", 1), bench)
        exec(block_example(bench), {})  # noqa: S102  (our own page)
        set_rate(FAST_PER_S)
        with working(bench, WORKER, "started!"):
            yield bench


def blocks_of(language: str) -> list[str]:
    """The page's blocks of code in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def block_example(bench: Bench) -> str:
    """The page's Python, with the service and the database of this machine."""
    (example,) = blocks_of("python")
    url = f"sqlite:///{bench.folder}/by-block.sqlite3"
    example = example.replace("postgresql://s2v:secret@database/ledger", url)
    return example.replace('"sk-..."', f'"sk-of-a-block", http_base_url="{bench.emulator.base_url}"')


def start_by_command(bench: Bench, **parameters: Any) -> UUID:
    """Start a run with the page's command."""
    given = "".join(f" --param '{name}={json.dumps(value)}'" for name, value in parameters.items())
    ran = shell(RUN.partition(" --param")[0] + given, bench)
    found = re.search(r"UUID: (\S+)", ran)
    assert found, ran
    return UUID(found[1])


def form(bench: Bench, name: str, urls: list[str], **groups: Any) -> dict[str, Any]:
    """What a person types: plain values in groups; every dataset in a folder of its own."""
    return {
        "candidates": bench.candidates(urls, f"{name}.parquet"),
        "out": str(bench.folder / name),
        "budget_usd": 1,
        "screening": PRIVATE,
        **groups,
    }


def test_every_command_of_the_page_is_run_here() -> None:
    """A command that is added to docs/guides/prefect.md must be added to these tests, or this fails."""
    lines = {line for block in blocks_of("console") for line in block.splitlines()}
    assert lines == {SETUP, ALERT, DEPLOY, WORKER, SERVE, RUN, *RUN_ELSEWHERE}


def test_without_a_pool_one_process_serves_the_flows(fleet: Bench) -> None:
    """The deployments are there as long as it runs, and it ends when it is signalled."""
    bench = Bench(fleet.folder / "served", fleet.emulator)
    bench.folder.mkdir()
    with working(bench, SERVE, "pipeline/pipeline-served"):
        assert runs_of("curate/curate-served") == []


def test_the_set_up_says_what_it_made_and_changes_nothing_the_second_time(fleet: Bench) -> None:
    """Work pool, limit, block types and automations are there; the second run finds each of them."""
    first, second = fleet.env["FIRST"].splitlines(), fleet.env["SECOND"].splitlines()
    assert first.pop() == "made       automation         s2v alert to custom-webhook/chat"
    assert [line[11:] for line in first] == [line[11:] for line in second]
    assert all(line.startswith("was there ") for line in second)
    assert [line[30:] for line in second] == [
        "s2v", WAN22_S2V_DETECT.model, "dashscope-credentials", "s2v-ledger", "s2v zombie runs",
    ]  # fmt: skip


@dataclass(frozen=True)
class Retried:
    """A run that was cancelled in mid-run and then retried to its end."""

    run: UUID
    cancelled: State[Any]
    paid_before: int
    """Calls on the invoice when it had been cancelled."""
    invoice: list[Any]


@pytest.fixture(scope="module")
def retried(fleet: Bench) -> Retried:
    """A run of 60 portraits and one image that fails: cancelled and retried from the API."""
    set_rate(4)  # 15 s for 61 images: the worker sees the cancellation before the last
    urls = [*fleet.portraits(60, 1_000), fleet.url(9, "scenery")]
    before = len(fleet.billed_urls())
    run = start("curate/curate", **form(fleet, "good", urls, advanced={"shard_size": 10}))
    wait_until(lambda: len(fleet.billed_urls()) - before >= 8)
    cancelled = cancel(run)
    paid = len(fleet.billed_urls()) - before
    set_rate(FAST_PER_S)
    retry(run)
    assert wait_until(lambda: (s := ended(run)).is_completed() and s)
    return Retried(run, cancelled, paid, fleet.emulator.invoice()[before:])


def test_a_cancelled_run_is_retried_and_pays_nothing_twice(fleet: Bench, retried: Retried) -> None:
    """Cancelled in mid-run from the API: everything received is kept; the retry is the same run."""
    assert retried.cancelled.is_cancelled(), retried.cancelled.message
    assert retried.paid_before < 60
    assert read(retried.run).run_count == 2
    billed = [line["image_url"] for line in retried.invoice]
    assert len(set(billed)) == len(billed) == 61
    assert ledger_ids(fleet.folder / "good" / "ledger.sqlite3") == {
        line["request_id"] for line in retried.invoice
    }
    (run_dir,) = (fleet.folder / "good" / "runs").iterdir()
    assert run_dir.name == str(retried.run)
    outcomes = Counter(pl.read_parquet(run_dir / "verdicts.parquet")["outcome"])
    assert outcomes == {"passed": 60, "failed": 1}


def test_a_published_run_starts_the_downstream_stage_with_its_file(fleet: Bench, retried: Retried) -> None:
    """Form values in, a published dataset out; the event carries what a trigger needs."""
    run = retried.run
    flow_run = read(run)
    assert flow_run.state is not None
    assert flow_run.state.message == "published 60 approved images"
    assert (flow_run.name, flow_run.tags) == ("good.parquet to good, up to USD 1", ["s2v"])
    path = pointer(fleet.folder / "good").path
    (behind,) = wait_until(lambda: runs_of("train-stub/train-stub"))
    assert ended(behind.id).message == f"would train on 60 images of {path}"
    (event,) = wait_until(lambda: events("s2v.dataset.published", run))
    assert event["resource"]["s2v.out"] == str(fleet.folder / "good")
    assert event["payload"] == {
        "run_id": str(run),
        "out": str(fleet.folder / "good"),
        "run_dir": str(Path(path).parent),
        "message": "published 60 approved images",
        "candidates": 61,
        "rows": 60,
        "path": path,
        "pass_rate": pytest.approx(60 / 61),
        "run_cost_usd": pytest.approx(61 * PRICE_USD),
        "dataset_cost_usd": pytest.approx(61 * PRICE_USD),
    }
    (asset,) = wait_until(lambda: events("prefect.asset.materialization.succeeded", run))
    assert asset["resource"]["prefect.resource.id"] == f"file://{fleet.folder}/good/published"
    assert len(events("s2v.run.started", run)) == 2  # by each of its two processes


def test_a_closed_gate_starts_nothing_and_is_reported_to_the_team(fleet: Bench, chat: Any) -> None:
    """Failed with a message, on the account and the ledger of two blocks; the alert holds the same."""
    spending = {"credentials": "production", "ledger_block": "production"}
    urls = [fleet.url(number, "crowd") for number in range(3)]
    run = start_by_command(fleet, **form(fleet, "bad", urls, spending=spending))
    state = ended(run)
    message = "Gate closed: pass_rate: observed 0, wanted at least 0.5."
    assert (state.name, state.message) == ("Failed", message)
    (event,) = wait_until(lambda: events("s2v.gate.closed", run))
    assert (event["payload"]["message"], event["payload"]["path"]) == (message, None)
    # On a SQLite that is busy Prefect may send one twice.
    alert = wait_until(lambda: [json.loads(text) for text in chat[1] if message in text])[0]
    assert alert["subject"] == "s2v: curate Failed"
    # The alert has passed the same service as a trigger would, and behind the run's own events.
    assert all("/good/" in run.parameters["path"] for run in runs_of("train-stub/train-stub"))
    assert len(ledger_ids(fleet.folder / "by-block.sqlite3")) == 3
    assert not (fleet.folder / "bad" / "ledger.sqlite3").exists()
