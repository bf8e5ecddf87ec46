"""How fast a run sends when the ledger's disk is slow: a shim delays every fsync of the caller.

Beside it what such a disk allows: one over the time of one reserve and one settle, timed without calls, at
most 5 a second. Needs gcc and Linux. How to run: README.md.
"""

import argparse
import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "adapters")]

from _fleet import Backends, Service, host, workers  # noqa: E402
from _measure import over_the_limit, share_used  # noqa: E402
from _parent import Orders  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from rich.text import Text  # noqa: E402

RATE_PER_S: Final = 5.0
WANTED: Final = 0.8
CALLS: Final = 40
"""So many calls are awaited at each delay: enough for a rate, whatever the delay."""
SHIM: Final = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
static void delay(void) {
  double seconds = 0;
  FILE *file = fopen(getenv("FSYNC_DELAY_FILE"), "r");
  if (file) { if (fscanf(file, "%lf", &seconds) != 1) seconds = 0; fclose(file); }
  usleep((useconds_t)(seconds * 1e6));
}
int fsync(int fd) { delay(); return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd); }
int fdatasync(int fd) { delay(); return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd); }
"""
SQLITE, PGBOUNCER = "sqlite", "pgbouncer"
LABELS: Final = {SQLITE: "SQLite", PGBOUNCER: "PostgreSQL behind PgBouncer in transaction mode"}
Figures = dict[str, Any]


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delays", type=float, nargs="+", default=[0, 0.1, 0.3, 1, 2.5], metavar="SECONDS")
    parser.add_argument("--ledger", choices=LABELS, nargs="+", default=[SQLITE], help="(default sqlite)")
    parser.add_argument("--calls", type=int, default=CALLS, help=f"at each delay (default {CALLS})")
    parser.add_argument("--json", type=Path, help="write every figure here")
    args = parser.parse_args()
    console, found = Console(), []
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="s2v-shim-"))
        set_delay = stack.enter_context(slow_fsync(Path(folder)))
        backends = stack.enter_context(Backends())
        create = {SQLITE: backends.sqlite, PGBOUNCER: backends.pgbouncer}
        for ledger, delay_s in itertools.product(args.ledger, args.delays):
            alone, used = create[ledger](), create[ledger]()  # a database is made of many fsyncs
            set_delay(delay_s)
            figures = _measured(alone, used, args.calls, f"disk-{delay_s}")
            set_delay(0)
            found.append({"ledger": ledger, "delay_s": delay_s, **figures})
            console.print(f"fsync of {delay_s} s: {figures['calls_per_s']:.3f} calls a second")
    for ledger in args.ledger:
        console.print(_table(LABELS[ledger], [each for each in found if each["ledger"] == ledger]))
    if args.json:
        args.json.write_text(json.dumps({"host": host(), "delays": found}, indent=2) + "\n", "utf-8")


def _compiled(folder: Path) -> Path:
    source, shim = folder / "shim.c", folder / "shim.so"
    source.write_text(SHIM, "utf-8")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", shim, source, "-ldl"], check=True)  # noqa: S607
    return shim


@contextlib.contextmanager
def slow_fsync(folder: Path) -> Iterator[Callable[[float], object]]:
    """Programs that start inside have the shim; gives what sets its delay, in seconds."""
    folder.chmod(0o755)  # where root starts PostgreSQL, it runs as another user
    delay = folder / "delay"
    os.environ.update(LD_PRELOAD=str(_compiled(folder)), FSYNC_DELAY_FILE=str(delay))
    try:
        yield lambda delay_s: delay.write_text(str(delay_s), "utf-8")
    finally:
        del os.environ["LD_PRELOAD"], os.environ["FSYNC_DELAY_FILE"]


def _measured(empty: str, ledger: str, calls: int, run: str) -> Figures:
    """The commits alone, then a run with calls; each with a new ledger."""
    with Service() as service:
        alone = Orders("commits", 0, f"{run}-alone", service.base_url, RATE_PER_S, ledger=empty)
        with workers([alone]) as [caller]:
            caller.say("go")
            commit_s = caller.hear()["commit_s"]
        orders = Orders("engine", 0, run, service.base_url, RATE_PER_S, ledger=ledger)
        with workers([orders]) as [caller]:
            caller.say("go")
            began_s = time.monotonic()
            allowed_per_s = min(RATE_PER_S, 1 / commit_s)
            while len(service.arrivals().at_s) < calls:
                time.sleep(0.2)
                if time.monotonic() - began_s > 60 + 10 * calls / allowed_per_s:
                    break
            arrivals = service.arrivals()
            inside = caller.stop()
    return {
        "commit_s": commit_s,
        "allowed_per_s": allowed_per_s,
        "calls": len(arrivals.at_s),
        "calls_per_s": RATE_PER_S * share_used(arrivals.at_s, RATE_PER_S),
        "share": share_used(arrivals.at_s, allowed_per_s),
        "over": over_the_limit(arrivals.at_s, round(RATE_PER_S)),
        **inside,
    }


def _table(ledger: str, found: list[Figures]) -> Table:
    table = Table(title=f"A slow disk below the ledger: {ledger}", title_justify="left", show_footer=True)
    wanted = {"share": f">= {WANTED:.0%}", "over the limit": "0"}
    for title in ("fsync, s", "reserve and settle, s", "allowed, calls/s", "sent, calls/s", *wanted):
        table.add_column(title, justify="right", footer=wanted.get(title, ""))
    for f in found:
        table.add_row(
            f"{f['delay_s']:g}",
            f"{f['commit_s']:.4f}",
            f"{f['allowed_per_s']:.3f}",
            f"{f['calls_per_s']:.3f}",
            Text(f"{f['share']:.1%}", "green" if f["share"] >= WANTED else "red"),
            Text(str(f["over"]), "red" if f["over"] else "green"),
        )
    return table


if __name__ == "__main__":
    main()
