"""`s2v estimate`: what a run would cost, without a call, a key, or a file."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx
from prefect import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from workbench import Bench, Ran, files_below, flow_runs

from s2v_tasks import Curated, Screening, curate


def test_an_estimate_is_free_and_true(command: Callable[..., Ran], in_process: Bench) -> None:
    """Rows, duplicates, known and screened out are told apart; nobody is asked, nothing is written."""
    ledger = f"sqlite:///{in_process.folder / 'ledger.sqlite3'}"
    known = in_process.candidates(in_process.portraits(4), "known.parquet")
    assert command(*in_process.curating(known, "--ledger", ledger)).status == 0
    paid, before = in_process.received(), files_below(in_process.folder)
    del os.environ["DASHSCOPE_API_KEY"]
    small = in_process.url(99, query="?width=320&height=320")
    urls = [*in_process.portraits(10), in_process.url(1), None, f"{in_process.emulator.origin}/nothing.jpg"]
    candidates = in_process.candidates([*urls, small], "candidates.parquet")
    ran = command("estimate", candidates, "--ledger", ledger, "--allow-private-hosts", "--budget-usd", 1)
    assert ran.status == 0, ran.err
    told = {line.split("  ")[0].strip(): line.split()[-1] for line in ran.out.splitlines()[:8]}
    assert told["rows"] == "14"
    assert told["refused by their address"] == "1"
    assert told["duplicates"] == "1"
    assert told["known to the ledger, free"] == "4"
    assert "2 (2 of 8 looked at)" in ran.out
    assert told["pictures to pay for"] == "6"
    assert told["cost, USD"] == "0.0034"
    assert in_process.received() == paid
    assert files_below(in_process.folder) == before | {"candidates.parquet"}


def test_an_estimate_of_nothing_readable_is_bad_usage(command: Callable[..., Ran], in_process: Bench) -> None:
    """One line and status 2, as of every command; a ledger that is not there is not made."""
    missing = command("estimate", "missing.parquet")
    assert (missing.status, missing.out) == (2, "")
    assert "no such file: missing.parquet" in missing.err
    candidates = in_process.candidates(in_process.portraits(1))
    for options, words in [
        (("--budget-usd", 0), "--budget-usd"),
        (("--estimate-from", -1), "--estimate-from"),
        (("--url-column", "link"), "no column 'link'"),
        (("--on-unknown", "never"), "--on-unknown"),
    ]:
        ran = command("estimate", candidates, *options)
        assert (ran.status, ran.out, words in ran.err) == (2, "", True), ran.err
    ledger = in_process.folder / "none.sqlite3"
    assert command("estimate", candidates, "--no-screen", "--ledger", f"sqlite:///{ledger}").status == 0
    assert not ledger.exists()


@contextmanager
def counting(picture_url: str) -> Iterator[tuple[str, list[str]]]:
    """A host of one picture under every name, and the paths that the screen asked it for."""
    with httpx.Client(trust_env=False) as client:
        picture = client.get(picture_url).content
    looks: list[str] = []

    class Host(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if "s2v-tasks" in self.headers["User-Agent"]:
                looks.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(picture)))
            self.end_headers()
            with suppress(OSError):  # the screen reads no more than it needs
                self.wfile.write(picture)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Host) as server:
        serving = Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", looks
        finally:
            server.shutdown()
            serving.join()


async def test_a_run_tells_its_cost_first_and_looks_at_no_picture_twice(in_process: Bench) -> None:
    """The estimate is on the run's page; the sample's fetches serve the screen."""
    screening = Screening(allow_private_hosts=True, estimate_from=5)
    with counting(in_process.portraits(1)[0]) as (origin, looks):
        urls = [f"{origin}/portrait-{n}.jpg" for n in range(12)]
        run: Curated = await curate(
            in_process.candidates(urls), str(in_process.out), 1.0, screening=screening
        )
    assert run.summary.passed == 12
    assert sorted(looks) == sorted(url.removeprefix(origin) for url in urls)
    (flow_run,) = flow_runs()
    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run.id]))
    async with get_client() as client:
        shown = {a.key: str(a.data) for a in await client.read_artifacts(artifact_filter=wanted)}
    assert "| rows | 12 |" in shown["s2v-estimate"]
    assert "5 looked at" in shown["s2v-estimate"]
