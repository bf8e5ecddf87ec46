"""How long and how much memory everything before the paid call takes, for millions of rows.

Beside it two plain programs that do the same with whole frames, one in polars and one in pandas.

Each measurement is a process of its own. No network. How to run: README.md.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
WORKER = Path(__file__).with_name("_candidates.py")
LABELS: Final = {"ours": "s2v-tasks", "polars": "plain polars", "plain": "plain pandas"}
MAX_MB: Final = 1_500
MAX_GROWTH: Final = 1.3
Figures = dict[str, Any]


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--only", choices=LABELS, help="one of the three")
    parser.add_argument("--json", type=Path, help="write every figure here")
    args = parser.parse_args()
    console, found = Console(), []
    for rows in sorted(args.rows):
        with tempfile.TemporaryDirectory(prefix="s2v-candidates-") as folder:
            made = _measured("make", rows, folder)
            console.print(f"{rows:,} rows made, {made['checked']:,} images already checked")
            for job in [args.only] if args.only else LABELS:
                figures = {"job": job, "rows": rows, **_measured(job, rows, folder)}
                shutil.rmtree(Path(folder) / "out", ignore_errors=True)
                found.append(figures)
                console.print(f"{LABELS[job]}: {figures['total']:.1f} s, {figures['peak_mb']:,} MB")
    console.print(_table(found))
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n", "utf-8")


def _measured(job: str, rows: int, folder: str) -> Figures:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, str(WORKER), job, str(rows), folder],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        check=True,
    )
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def _table(found: list[Figures]) -> Table:
    table = Table(title="Everything before the paid call, seconds", title_justify="left", show_footer=True)
    wanted = {"peak MB": f"<= {MAX_MB:,}", "times the\nsmallest": f"<= {MAX_GROWTH}"}
    titles = (
        "",
        "rows",
        "read, key,\ncut",
        "ledger,\nshards",
        "join back",
        "in all",
        "CPU s",
        "rows\na second",
    )
    for title in (*titles, *wanted):
        table.add_column(title, justify="right" if title else "left", footer=wanted.get(title, ""))
    for f in found:
        smallest = next(other for other in found if other["job"] == f["job"])
        growth, is_ours = f["peak_mb"] / smallest["peak_mb"], f["job"] == "ours"
        table.add_row(
            LABELS[f["job"]],
            f"{f['rows']:,}",
            *(f"{f[step]:.1f}" for step in ("read", "shards", "join", "total", "cpu")),
            f"{f['rows'] / f['total']:,.0f}",
            Text(f"{f['peak_mb']:,}", _style(is_ours=is_ours, met=f["peak_mb"] <= MAX_MB)),
            Text(f"{growth:.2f}", _style(is_ours=is_ours, met=growth <= MAX_GROWTH)),
        )
    return table


def _style(*, is_ours: bool, met: bool) -> str:
    return ("green" if met else "red") if is_ours else ""


if __name__ == "__main__":
    main()
