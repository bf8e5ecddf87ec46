"""`s2v estimate`: what a run would cost, without a call, a key, or a file."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx
import pytest
from prefect import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from workbench import PRICE_USD, Bench, Ran, files_below, flow_runs

from s2v_tasks import Advanced, CurationResult, Screening, curate


def test_an_estimate_is_free_and_true(command: Callable[..., Ran], in_process: Bench) -> None:
    """Rows, duplicates, known and screened out are counted apart; no call is paid, nothing is written."""
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
    report = {line.strip().split("  ")[0]: line.split()[-1] for line in ran.out.splitlines()[:10]}
    assert report["rows"] == "14"
    assert report["rejected by their URL"] == "1"
    assert report["duplicates"] == "1"
    assert report["already checked, free"] == "4"
    assert "2 (2 of 8 sampled)" in ran.out
    assert (report["not_found"], report["too_small"]) == ("8", "8")
    assert report["images to pay for"] == "6"
    assert report["cost, USD"] == "0.0034"
    assert in_process.received() == paid
    assert files_below(in_process.folder) == before | {"candidates.parquet"}


@pytest.mark.ci
def test_an_estimate_says_what_the_face_check_brings(command: Callable[..., Ran], in_process: Bench) -> None:
    """The same calls find more images with one face; nothing is paid or written."""
    urls = [in_process.url(n, subject) for n in range(4) for subject in ("portrait", "scenery", "crowd")]
    candidates, budget_usd = in_process.candidates(urls), 6.5 * PRICE_USD
    before = files_below(in_process.folder)
    options = ("--allow-private-hosts", "--budget-usd", budget_usd)
    assert "one face" not in command("estimate", candidates, *options).out
    ran = command("estimate", candidates, "--faces", "order", *options)
    assert ran.status == 0, ran.err
    assert "images with one face (4 of 12 sampled)" in ran.out
    assert "in 6 calls, --faces order" in ran.out
    ran = command("estimate", candidates, "--faces", "drop_several", "--max-missed-share", 0.1, *options)
    said = " ".join(ran.out.split())
    assert "dropped by --faces drop_several up to 0 (8 of 12 sampled)" in said, ran.err
    assert "10.0% of all that would pass" in said
    assert "nothing dropped: the proof takes 65 passed images, most of the run" in said
    assert files_below(in_process.folder) == before


def test_an_estimate_of_nothing_readable_is_bad_usage(command: Callable[..., Ran], in_process: Bench) -> None:
    """One line and status 2, as of every command; a ledger that is not there is not made."""
    missing = command("estimate", "missing.parquet")
    assert (missing.status, missing.out) == (2, "")
    assert "no such file: missing.parquet" in missing.err
    candidates = in_process.candidates(in_process.portraits(1))
    for options, message in [
        (("--budget-usd", 0), "--budget-usd"),
        (("--estimate-sample-size", -1), "--estimate-sample-size"),
        (("--url-column", "link"), "no column 'link'"),
        (("--on-lost-response", "never"), "--on-lost-response"),
    ]:
        ran = command("estimate", candidates, *options)
        assert (ran.status, ran.out, message in ran.err) == (2, "", True), ran.err
    ledger = in_process.folder / "none.sqlite3"
    assert command("estimate", candidates, "--no-screen", "--ledger", f"sqlite:///{ledger}").status == 0
    assert not ledger.exists()


@contextmanager
def counting(image_url: str) -> Iterator[tuple[str, list[str]]]:
    """A host of one image under every name, and the paths that the screen requested."""
    with httpx.Client(trust_env=False) as client:
        image = client.get(image_url).content
    paths: list[str] = []

    class Host(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if "s2v-tasks" in self.headers["User-Agent"]:
                paths.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(image)))
            self.end_headers()
            with suppress(OSError):  # the screen reads no more than it needs
                self.wfile.write(image)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Host) as server:
        serving = Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", paths
        finally:
            server.shutdown()
            serving.join()


async def test_a_run_estimates_its_cost_first_and_fetches_no_image_twice(in_process: Bench) -> None:
    """The estimate is on the run's page; the sample's fetches serve the screen."""
    screening = Screening(allow_private_hosts=True)
    advanced = Advanced(estimate_sample_size=5, report_images=False)
    with counting(in_process.portraits(1)[0]) as (origin, paths):
        urls = [f"{origin}/portrait-{n}.jpg" for n in range(12)]
        run: CurationResult = await curate(
            in_process.candidates(urls), str(in_process.out), 1.0, screening=screening, advanced=advanced
        )
    assert run.summary.passed == 12
    assert sorted(paths) == sorted(url.removeprefix(origin) for url in urls)
    (flow_run,) = flow_runs()
    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run.id]))
    async with get_client() as client:
        shown = {a.key: str(a.data) for a in await client.read_artifacts(artifact_filter=wanted)}
    assert "| rows | 12 |" in shown["s2v-estimate"]
    assert "5 sampled" in shown["s2v-estimate"]
