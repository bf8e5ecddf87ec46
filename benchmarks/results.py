"""How long and how much memory it takes to read the results of a large run: sources, rows, two runs, report.

Makes two run folders of ``--rows`` verdicts, 300 segments and 2,000 hosts, then measures each command in a
process of its own. No network. How to run: README.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import polars as pl
from rich.console import Console
from rich.table import Table

from s2v_tasks.adapters.storage.run_folder import Manifest, RunFolder
from s2v_tasks.domain.publish_rules import GateSummary, Publication
from s2v_tasks.domain.verdict_table import SCHEMA
from s2v_tasks.models import FORMAT
from s2v_tasks.settings import CurateParameters, Source

SEGMENTS: Final = 300
HOSTS: Final = 2_000
PRICE_USD: Final = 0.000574
STARTED_AT: Final = datetime(2026, 10, 1, tzinfo=UTC)
BY_SOURCE: Final = """
import sys
from s2v_tasks import read_run
from s2v_tasks.domain.by_source import by_source
run = read_run(sys.argv[1])
by_source(run.verdicts, run.url_column, run.segment_column).collect(engine="streaming")
"""


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.make:
        make(args.make, 1, args.rows)
        make(args.make, 2, args.rows)
        return
    with tempfile.TemporaryDirectory(prefix="s2v-results-") as folder:
        # In a process of its own: a child's highest memory is never below its parent's when it was started.
        making = [sys.executable, __file__, "--rows", str(args.rows), "--make", folder]
        subprocess.run(making, check=True)
        a, b = (f"{folder}/runs/run-{number}" for number in (1, 2))
        s2v = [sys.executable, "-m", "s2v_tasks"]
        jobs = {
            "by source": [sys.executable, "-c", BY_SOURCE, a],
            "s2v rows": [*s2v, "rows", a, "--outcome", "failed", "--segment", "source-7"],
            "s2v rows --to CSV": [*s2v, "rows", a, "--outcome", "failed", "--to", f"{folder}/failed.csv"],
            "s2v compare": [*s2v, "compare", a, b],
            "s2v report": [*s2v, "report", b],
        }
        found = [measured(name, command) for name, command in jobs.items()]
        page_mb = Path(b, "report.html").stat().st_size / 1e6
    table = Table("", "seconds", "CPU seconds", "peak MB", title=f"{args.rows:,} verdicts")
    for figures in found:
        table.add_row(*(f"{v:,.1f}" if isinstance(v, float) else str(v) for v in figures.values()))
    Console().print(table)
    Console().print(f"report.html, with what changed since the first run: {page_mb:.2f} MB")
    if args.json:
        args.json.write_text(json.dumps(found, indent=2))


def make(out: Path, number: int, rows: int) -> None:
    """Write a run folder; a twentieth of the images of each run is not in the other."""
    folder = RunFolder(out, f"run-{number}")
    folder.path.mkdir(parents=True)
    image = pl.int_range(rows, dtype=pl.Int64) + number * rows // 20
    chance = (image * 7 + number).hash(number) % 100
    outcome = (
        pl.when(chance < 10).then(pl.lit("duplicate"))
        .when(chance < 37).then(pl.lit("screened_out"))
        .when(chance < 62).then(pl.lit("failed"))
        .otherwise(pl.lit("passed"))
    )  # fmt: skip
    sent = pl.col("outcome").is_in(["failed", "passed"])
    host = image * 7_919 % HOSTS
    frame = (
        pl.select(image=image, host=host, outcome=outcome)
        .with_columns(
            image_url=pl.format("https://h{}.example/{}.jpg?Signature={}", "host", "image", "image"),
            source=pl.format("source-{}", pl.col("host") % SEGMENTS),
            row=pl.int_range(rows),
            image_key=pl.col("image").cast(pl.String).str.zfill(32),
            reason=pl.when(outcome="failed").then(pl.lit("no_human")),
            attempts=sent.cast(pl.Int64),
            run_cost_usd=sent * PRICE_USD,
            lifetime_cost_usd=sent * PRICE_USD,
            from_ledger=pl.lit(value=False),
        )
        .select("image_url", "source", *(pl.col(n) for n in SCHEMA if n in _MADE), *_rest())
        .select("image_url", "source", *SCHEMA)
    )
    frame.write_parquet(folder.verdicts)
    parameters = CurateParameters(
        candidates="portraits.parquet",
        out=str(out),
        budget_usd=1_000.0,
        source=Source(segment_column="source"),
    )
    started_at = STARTED_AT + timedelta(days=number)
    folder.write(
        Manifest(
            format=FORMAT,
            run_id=folder.run_id,
            status="published",
            number=number,
            started_at=started_at,
            service="http://127.0.0.1:9",
            ledger="sqlite:///ledger.sqlite3",
            identity="",
            parameters=parameters,
            rows=rows,
            publication=Publication(
                run_id=folder.run_id,
                number=number,
                started_at=started_at.isoformat(),
                path=str(folder.approved),
                rows=rows,
                sha256="",
                run_cost_usd=0.0,
                dataset_cost_usd=0.0,
                gate=GateSummary(checked_at=started_at.isoformat(), expectations=1, pass_rate=None),
            ),
        )
    )


_MADE: Final = {
    "row", "image_key", "outcome", "reason", "attempts", "run_cost_usd", "lifetime_cost_usd", "from_ledger",
}  # fmt: skip


def _rest() -> list[pl.Expr]:
    return [pl.lit(None, dtype).alias(name) for name, dtype in SCHEMA.items() if name not in _MADE]


def measured(name: str, command: list[str]) -> dict[str, Any]:
    """One command: its wall-clock and CPU seconds and its highest resident memory."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{name} ended with status {process.returncode}")
    per_mb = 1_000_000 if sys.platform == "darwin" else 1_000
    return {
        "job": name,
        "seconds": time.monotonic() - started,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_mb": round(usage.ru_maxrss / per_mb),
    }


if __name__ == "__main__":
    main()
