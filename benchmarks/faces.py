"""How much memory a run with the face check takes beside one without it.

The headers of all rows are in the ledger's cache, and the faces of all but ``--uncached`` images, which are
fetched from a host on loopback and decoded. No image has a verdict: all wait in the order, on disk, until
all were looked up; then ``--calls`` of them are sent to a service in the same process, as the budget buys no
more. The run without the face check sends as many, in the order of the rows. How to run: README.md.
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _candidates import peak_mb
from _image_host import image_host

MAX_RATIO: Final = 1.3
RATE_PER_S: Final = 400.0
SHARD_SIZE: Final = 1_000
PASSED: Final = json.dumps({"request_id": "r", "output": {"check_pass": True, "humanoid": True}}).encode()


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--uncached", type=int, default=5_000, help="images whose faces no run has seen")
    parser.add_argument("--calls", type=int, default=1_000, help="what the budget buys")
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.add_argument("--job", nargs=3, metavar=("NAME", "FOLDER", "PORT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        name, folder, port = args.job
        work = make(args, Path(folder), port) if name == "make" else measured(args, Path(folder), name)
        print(json.dumps(asyncio.run(work)))
        return
    console, found = Console(), {}
    with tempfile.TemporaryDirectory(prefix="s2v-faces-") as folder, image_host(1) as host:
        for name in ("make", "off", "order"):
            command = [sys.executable, __file__, *sys.argv[1:], "--job", name, folder, str(host.port)]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            found[name] = json.loads(done.stdout.splitlines()[-1]) | host.count()
            console.print(f"{name}: {found[name]}")
    ratio = found["order"]["peak_mb"] / found["off"]["peak_mb"]
    console.print(_table(args, found, ratio))
    if args.json:
        args.json.write_text(json.dumps(found | {"ratio": ratio}, indent=2) + "\n", "utf-8")


def _table(args: argparse.Namespace, found: dict[str, Any], ratio: float) -> Table:
    title = f"{args.rows:,} rows, faces of {args.uncached:,} checked, {args.calls:,} calls"
    table = Table(title=title, title_justify="left", show_footer=True)
    columns = ("seconds", "CPU s", "requests", "faces known", "sent", "peak MB", "decoders MB")
    for column in ("--faces", *columns):
        table.add_column(column, justify="right" if column in columns else "left")
    table.add_column("times off", justify="right", footer=f"<= {MAX_RATIO}")
    for name in ("off", "order"):
        one = found[name]
        figures = (
            one[key] for key in ("seconds", "cpu_s", "requests", "faces", "sent", "peak_mb", "decoders_mb")
        )
        times = f"{ratio:.2f}" if name == "order" else ""
        table.add_row(name, *(f"{value:,.0f}" for value in figures), times)
    return table


async def make(args: argparse.Namespace, folder: Path, port: str) -> dict[str, Any]:
    """The candidates, and a ledger whose cache knows them."""
    import polars as pl

    from s2v_tasks.adapters.clock import SystemClock
    from s2v_tasks.adapters.database.ledger import Ledger
    from s2v_tasks.domain.candidate_table import assign_keys
    from s2v_tasks.domain.faces import Faces, FileFaces
    from s2v_tasks.models import Screened
    from s2v_tasks.runtime.face_check import RULES

    n = pl.int_range(args.rows, eager=True).alias("n").to_frame()
    rows = n.select(
        pl.format(f"http://127.0.0.1:{port}/{{}}.jpg", "n").alias("image_url"),
        pl.format("a portrait, number {}", "n").alias("caption"),
    )
    rows.write_parquet(folder / "candidates.parquet")
    keys = assign_keys(rows.lazy(), "image_url").collect()["image_key"]
    every = max(1, args.rows // max(1, args.uncached))
    seen = (
        [Faces(1, 0.6 + 0.035 * k, 0.04 * k) for k in range(1, 11)]
        + [Faces(0)] * 20
        + [Faces(2, 0.9, 0.3)] * 5
    )
    screening, now = options_of(parameters_of(args, folder, "order")), SystemClock().utcnow()
    async with Ledger(ledger_of(folder), SystemClock()) as ledger:
        for first in range(0, args.rows, 20_000):
            part = list(enumerate(keys[first : first + 20_000], first))
            headers = [Screened(key, None, 1500, 1100, "jpeg") for _, key in part]
            await ledger.headers.put(headers, screening, now)
            known = {key: FileFaces(seen[i % len(seen)], None) for i, key in part if i % every}
            await ledger.headers.put_faces(known, screening, RULES)
    return {"ledger_mb": round((folder / "ledger.sqlite3").stat().st_size / 1e6)}


async def measured(args: argparse.Namespace, folder: Path, mode: str) -> dict[str, Any]:
    """A run from its opening to its verdicts, without Prefect's server and the gate."""
    import polars as pl
    from prefect.logging import disable_run_logger
    from pydantic import SecretStr

    from s2v_tasks import tasks
    from s2v_tasks.domain.detect import DetectResponse, parse_response
    from s2v_tasks.models import WAN22_S2V_DETECT
    from s2v_tasks.runtime.dispatch import process_shards
    from s2v_tasks.runtime.lifecycle import open_run
    from s2v_tasks.runtime.plan import plan
    from s2v_tasks.runtime.run_context import RunContext
    from s2v_tasks.runtime.verdict_file import write_verdict_files
    from s2v_tasks.settings import Credentials

    class Service:
        async def send(self, *call: object) -> DetectResponse:  # noqa: ARG002  (the signature of a client)
            return parse_response(WAN22_S2V_DETECT, 200, {}, PASSED)

    class Rate:
        run: RunContext | None = None
        source = "benchmark"

        @property
        def rate_per_s(self) -> float:
            state = None if self.run is None else self.run.state
            is_read = state is not None and state.kept + state.screened_out == args.rows
            return RATE_PER_S if is_read or mode == "off" else 0.0

    began, rate = time.perf_counter(), Rate()
    # Another service for each run, so that none takes the other's verdicts.
    credentials = Credentials(f"http://127.0.0.1:{1 + len(mode)}/api/v1", SecretStr("none"))
    planned = plan(parameters_of(args, folder, mode), credentials)
    with decoders_peak() as decoders:
        async with open_run(planned, f"run-{mode}", rate, client=Service()) as run:
            rate.run = run
            with disable_run_logger(), tasks.current_run(run):
                await process_shards(run, tasks.screen.fn, tasks.detect.fn)
            counts = write_verdict_files(run)
            verdicts = pl.scan_parquet(run.folder.verdicts)
            faces = verdicts.select(pl.col("faces_seen").count()).collect(engine="streaming").item()
    assert sum(counts.values()) == args.rows, counts  # noqa: S101  (a benchmark of a wrong result is none)
    cpu = os.times()
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_s": round(cpu.user + cpu.system, 1),
        "peak_mb": round(peak_mb()),
        "decoders_mb": round(max(decoders, default=0)),
        "faces": faces,
        "sent": counts["passed"],
        "outcomes": counts,
    }


def ledger_of(folder: Path) -> str:
    """The URL of the ledger of both runs."""
    return f"sqlite:///{folder / 'ledger.sqlite3'}"


def parameters_of(args: argparse.Namespace, folder: Path, mode: Any) -> Any:
    """The parameters of a run."""
    from s2v_tasks.settings import Advanced, CurateParameters, Screening

    return CurateParameters(
        candidates=str(folder / "candidates.parquet"),
        out=str(folder / "out"),
        budget_usd=(args.calls + 0.5) * 574e-6,
        screening=Screening(faces=mode, allow_private_hosts=True),
        advanced=Advanced(ledger=ledger_of(folder), shard_size=SHARD_SIZE),
    )


def options_of(parameters: Any) -> Any:
    """What the screen of such a run goes by."""
    from s2v_tasks.domain.screen_options import ScreenOptions

    return ScreenOptions.of(parameters.screening, parameters.advanced)


@contextlib.contextmanager
def decoders_peak() -> Iterator[list[float]]:
    """MB of all child processes together, sampled each second."""
    import psutil

    found, is_over = [0.0], threading.Event()

    def sample() -> None:
        while not is_over.wait(1.0):
            with contextlib.suppress(psutil.Error):
                children = psutil.Process().children(recursive=True)
                found.append(sum(child.memory_info().rss for child in children) / 2**20)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        is_over.set()
        thread.join()


if __name__ == "__main__":
    main()
