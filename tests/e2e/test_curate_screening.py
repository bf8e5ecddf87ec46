"""The free screen as a user meets it: where it may not go, its warnings, the commands in its docs page."""

import asyncio
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from PIL import Image
from prefect import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from s2v_tasks.flows.curate import curate
from test_flows import PRIVATE
from workbench import Bench, Ran, flow_runs, wait_until

from s2v_tasks import Advanced, Screening
from s2v_tasks.domain.ssrf import PRIVATE_ALLOWED
from s2v_tasks.runtime.plan import OWN_LEDGER

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explanation" / "screening.md").read_text("utf-8")
COMMANDS = {
    "python benchmarks/screen.py --img2dataset .img2dataset/bin/img2dataset",
    "python benchmarks/screen.py clients",
}


def test_candidates_that_lead_into_the_own_network_are_dropped_and_not_requested(
    in_process: Bench, command: Callable[..., Ran]
) -> None:
    """Without permission: a reason for each, no call, no word about permission; the gate is closed."""
    bench = in_process
    own = bench.url(1)
    port = int(own.split(":")[2].split("/")[0])
    urls = [own, "http://127.0.0.1:22/p.jpg", "http://169.254.169.254/latest/meta-data/"]
    ran = command(
        "curate", bench.candidates(urls), "--out", bench.out, "--budget-usd", 1, "--allow-port", port
    )
    assert ran.status == 3, ran.err
    assert ran.verdicts["reason"].to_list() == ["private_address", "odd_port", "private_address"]
    assert bench.received() == 0
    assert "private hosts are allowed" not in ran.err


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_a_port_that_is_none_is_refused(in_process: Bench, command: Callable[..., Ran], port: str) -> None:
    """One line that names the option; nothing is written."""
    ran = command(*in_process.curating("x.csv", "--allow-port", port))
    assert ran.status == 2
    assert "--allow-port" in ran.err
    assert not in_process.out.exists()


async def test_permission_for_private_hosts_is_loud_in_the_log(in_process: Bench) -> None:
    """On the run's page in Prefect, as a warning; beside it, that the ledger is the run's own."""
    await curate(in_process.candidates(in_process.portraits(1)), str(in_process.out), 1.0, screening=PRIVATE)
    (flow_run,) = await asyncio.to_thread(flow_runs)

    def warned() -> bool:
        with get_client(sync_client=True) as client:
            logs = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run.id])))
        found = {log.message: log.level for log in logs}
        return found.get(PRIVATE_ALLOWED, 0) >= 30 and OWN_LEDGER in found

    assert await asyncio.to_thread(wait_until, warned)


def test_permission_for_private_hosts_is_loud_in_the_terminal(bench: Bench) -> None:
    """Before anything is sent; and not of a command that can't begin."""
    candidates = bench.candidates(bench.portraits(1))
    assert f"warning: {PRIVATE_ALLOWED}" in bench.run("estimate", candidates, "--allow-private-hosts").err
    assert PRIVATE_ALLOWED not in bench.run("estimate", "no such file.csv", "--allow-private-hosts").err


@pytest.mark.ci
def test_the_commands_of_the_page_run(tmp_path: Path) -> None:
    """Both, with few images: a small part of the bytes is fetched, and what is too small is reported."""
    blocks = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert {line for block in blocks for line in block.splitlines()} == COMMANDS
    for command in sorted(COMMANDS):
        figures = tmp_path / "figures.json"
        few = ["--images", "20", "--in-flight", "8", "--json", str(figures)]
        program = [sys.executable, *command.split()[1:], *few]
        ran = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        rows = json.loads(figures.read_text("utf-8"))
        if "clients" not in command:
            assert "pip install img2dataset" in " ".join(ran.stdout.split())
            (screened,) = rows
            assert screened["kept"] == 18
            assert screened["bytes"] < 20_000
        else:
            assert {row["who"] for row in rows} >= {"httpx", "aiohttp"}


@pytest.mark.ci
async def test_a_later_run_fetches_only_what_is_not_cached(in_process: Bench) -> None:
    """A header that was read is not fetched again, a dead link is; and all where nothing stays fresh.

    A header that has just expired is revalidated, and has not changed.
    """
    small = io.BytesIO()
    Image.new("1", (90, 90)).save(small, "PNG")
    fetched: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = request.split(" ", 2)[1]
        status, body = ("200 OK", small.getvalue()) if path == "/small.png" else ("404 Not Found", b"")
        if 'if-none-match: "v1"' in request.lower():
            status, body = "304 Not Modified", b""
        fetched.append(f"{status[:3]} {path}")
        head = f'HTTP/1.1 {status}\r\nConnection: close\r\nETag: "v1"\r\nContent-Length: {len(body)}\r\n\r\n'
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    async def requested(out: str, ttl_h: float) -> list[str]:
        fetched.clear()
        state = await curate(
            candidates,
            str(in_process.folder / out),
            1.0,
            screening=Screening(allow_private_hosts=True),
            advanced=Advanced(
                header_cache_ttl_h=ttl_h,
                ledger=f"sqlite:///{in_process.folder}/ledger.sqlite3",
                report_images=False,
            ),
            return_state=True,
        )
        assert "Gate closed" in state.message
        (verdicts,) = (in_process.folder / out).glob("runs/*/verdicts.parquet")
        found = pl.read_parquet(verdicts).select("reason", "width_px").rows()
        assert found == [("too_small", 90), ("not_found", None)]
        return sorted(fetched)

    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        candidates = in_process.candidates([f"{origin}/small.png", f"{origin}/gone.png"])
        gone = ["404 /gone.png"] * 2  # with Range and without
        assert await requested("first", 24) == ["200 /small.png", *gone]
        assert await requested("second", 24) == gone
        assert await requested("third", 0) == ["200 /small.png", *gone]
        assert await requested("fourth", 1e-6) == ["304 /small.png", *gone]
