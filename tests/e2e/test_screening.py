"""The free screen as a user meets it: where it may not go, what it says aloud, its page's commands."""

import asyncio
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from PIL import Image
from prefect import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from s2v_tasks.flows.curate import curate
from test_flows import PRIVATE
from workbench import Bench, flow_runs, wait_until

from s2v_tasks import Screening, Spending
from s2v_tasks.addresses import PRIVATE_ALLOWED

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "screening.md").read_text("utf-8")
COMMANDS = {
    "python benchmarks/screen.py --img2dataset .img2dataset/bin/img2dataset",
    "python benchmarks/screen.py clients",
}


def test_candidates_that_lead_into_the_own_network_are_dropped_and_nobody_is_asked(bench: Bench) -> None:
    """Without permission: a reason for each, no call, no word about permission; the gate is closed."""
    own = bench.url(1)
    port = int(own.split(":")[2].split("/")[0])
    urls = [own, "http://127.0.0.1:22/p.jpg", "http://169.254.169.254/latest/meta-data/"]
    ran = bench.run(
        "curate", bench.candidates(urls), "--out", bench.out, "--budget-usd", 1, "--allow-port", port
    )
    assert ran.status == 3, ran.err
    assert ran.verdicts["reason"].to_list() == ["private_address", "odd_port", "private_address"]
    assert bench.received() == 0
    assert "private hosts are allowed" not in ran.err


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_a_port_that_is_none_is_refused(bench: Bench, port: str) -> None:
    """One line that names the option; nothing is written."""
    ran = bench.run("curate", "x.csv", "--out", bench.out, "--budget-usd", 1, "--allow-port", port)
    assert ran.status == 2
    assert "--allow-port" in ran.err
    assert not bench.out.exists()


async def test_permission_for_private_hosts_is_loud_in_the_log(in_process: Bench) -> None:
    """On the run's page in Prefect, as a warning."""
    await curate(in_process.candidates(in_process.portraits(1)), str(in_process.out), 1.0, screening=PRIVATE)
    (flow_run,) = await asyncio.to_thread(flow_runs)

    def warned() -> bool:
        with get_client(sync_client=True) as client:
            logs = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run.id])))
        return any(log.message == PRIVATE_ALLOWED and log.level >= 30 for log in logs)

    assert await asyncio.to_thread(wait_until, warned)


def test_permission_for_private_hosts_is_loud_in_the_terminal(bench: Bench) -> None:
    """Before anything is asked; and not of a command that can't begin."""
    candidates = bench.candidates(bench.portraits(1))
    assert f"warning: {PRIVATE_ALLOWED}" in bench.run("estimate", candidates, "--allow-private-hosts").err
    assert PRIVATE_ALLOWED not in bench.run("estimate", "no such file.csv", "--allow-private-hosts").err


def test_the_commands_of_the_page_run(tmp_path: Path) -> None:
    """Both, with few pictures: a small part of the bytes is fetched, and what is too small is told."""
    blocks = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert {line for block in blocks for line in block.splitlines()} == COMMANDS
    for command in sorted(COMMANDS):
        figures = tmp_path / "figures.json"
        few = ["--pictures", "20", "--in-flight", "8", "--json", str(figures)]
        program = [sys.executable, *command.split()[1:], *few]
        ran = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        told = json.loads(figures.read_text("utf-8"))
        if "clients" not in command:
            assert "pip install img2dataset" in " ".join(ran.stdout.split())
            (screened,) = told
            assert screened["kept"] == 18
            assert screened["bytes"] < 20_000
        else:
            assert {row["who"] for row in told} >= {"httpx", "aiohttp"}


async def test_a_later_run_looks_again_only_at_what_is_not_fresh(in_process: Bench) -> None:
    """A header that was read is not asked for again, a dead link is; and all where nothing stays fresh.

    What is a little old is asked after with its validator, and has not changed.
    """
    small = io.BytesIO()
    Image.new("1", (90, 90)).save(small, "PNG")
    fetched: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = asked.split(" ", 2)[1]
        status, body = ("200 OK", small.getvalue()) if path == "/small.png" else ("404 Not Found", b"")
        if 'if-none-match: "v1"' in asked.lower():
            status, body = "304 Not Modified", b""
        fetched.append(f"{status[:3]} {path}")
        head = f'HTTP/1.1 {status}\r\nConnection: close\r\nETag: "v1"\r\nContent-Length: {len(body)}\r\n\r\n'
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    async def looked_at(out: str, fresh_for_h: float) -> list[str]:
        fetched.clear()
        state = await curate(
            candidates,
            str(in_process.folder / out),
            1.0,
            screening=Screening(allow_private_hosts=True, fresh_for_h=fresh_for_h),
            spending=Spending(ledger=f"sqlite:///{in_process.folder}/ledger.sqlite3"),
            return_state=True,
        )
        assert "Gate closed" in state.message
        (verdicts,) = (in_process.folder / out).glob("runs/*/verdicts.parquet")
        told = pl.read_parquet(verdicts).select("reason", "width_px").rows()
        assert told == [("too_small", 90), ("not_found", None)]
        return sorted(fetched)

    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        candidates = in_process.candidates([f"{origin}/small.png", f"{origin}/gone.png"])
        assert await looked_at("first", 24) == ["200 /small.png", "404 /gone.png"]
        assert await looked_at("second", 24) == ["404 /gone.png"]
        assert await looked_at("third", 0) == ["200 /small.png", "404 /gone.png"]
        assert await looked_at("fourth", 1e-6) == ["304 /small.png", "404 /gone.png"]
