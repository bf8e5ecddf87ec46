"""How much of the allowed rate is used, and how often it is passed: this project beside what else there is.

Calls are counted where they arrive, at the emulator, which stands in for the vendor. How to run: README.md.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parents[1]
# This tree, not an installed one; for the callers and servers too.
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "adapters")]
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
os.environ["NO_PROXY"] = "*"

import _scenarios as s  # noqa: E402  (from this tree)
from _fleet import Backends, host  # noqa: E402
from _measure import medians  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: E402
from rich.table import Table  # noqa: E402
from rich.text import Text  # noqa: E402


@dataclass(frozen=True, slots=True)
class Column:
    """A figure as it is shown; ``wanted`` is for this project's rows only, ``met`` says whether it is."""

    title: str
    show: Callable[[dict[str, Any]], str]
    met: Callable[[dict[str, Any]], bool] | None = None
    wanted: str = ""


def _percent(name: str, digits: int = 1) -> Callable[[dict[str, Any]], str]:
    return lambda f: "-" if f.get(name) is None else f"{100 * f[name]:.{digits}f} %"


def _number(name: str, digits: int = 0) -> Callable[[dict[str, Any]], str]:
    return lambda f: "-" if f.get(name) is None else f"{f[name]:.{digits}f}"


def _cpu(f: dict[str, Any]) -> str:
    server = f["server_cpu_s_per_1000"]
    return f"{f['cpu_s_per_1000']:.1f}" + (f" + {server:.1f}" if server else "")


def _ms(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda f: f"{f[f'{name}_ms_p50']:.1f} / {f[f'{name}_ms_p95']:.1f}" if f.get(f"{name}s") else "-"


def _cores(f: dict[str, Any]) -> str:
    return " + ".join(f"{f[f'{who}_cpu_s'] / f['span_s']:.2f}" for who in ("callers", "servers", "receiver"))


ELSEWHERE = Column("cores busy\nelsewhere", _number("cores_busy_elsewhere", 2))
COMPARE = (
    Column("calls", _number("calls")),
    Column("share of the\nallowed rate", _percent("share"), lambda f: f["share"] >= 0.985, ">= 98.5 %"),
    Column("most in a\nsecond", _number("most_in_a_second"), lambda f: f["most_in_a_second"] <= 5, "5"),
    Column("calls over\nthe limit", _number("over"), lambda f: f["over"] == 0, "0"),
    Column(
        "fairness\n(Jain)",
        _number("fairness", 4),
        lambda f: f["fairness"] is None or f["fairness"] >= 0.99,
        ">= 0.99",
    ),
    Column(
        "gap after\nkill -9, s",
        _number("gap_after_kill_s", 2),
        lambda f: f["gap_after_kill_s"] is None or f["gap_after_kill_s"] <= 1,
        "<= 1",
    ),
    Column("CPU s per 1,000\ncallers + server", _cpu),
    Column("send times\nmissed", _number("postpones")),
    ELSEWHERE,
)
JITTER = (
    Column("calls", _number("calls")),
    Column(
        "verdicts, share of\nthe allowed rate", _percent("share"), lambda f: f["share"] >= 0.93, ">= 93 %"
    ),
    Column(
        "throttled",
        _percent("throttled_share", 2),
        lambda f: f["throttled_share"] <= 0.01,
        "<= 1 %",
    ),
    Column("throttled in the\nfirst minute", _number("throttled_at_first")),
    Column("pauses", _number("slow_downs")),
    ELSEWHERE,
)
RATES = (
    Column("allowed\na second", lambda f: f"{f['allowed']:.0f}"),
    Column("calls", _number("calls")),
    Column(
        "share of the\nallowed rate",
        _percent("share"),
        lambda f: f["share"] >= 0.95 or f["allowed"] > 50,
        ">= 95 % of 50",
    ),
    Column("over", _number("over")),
    Column("reserve ms\np50 / p95", _ms("reserve")),
    Column("settle ms\np50 / p95", _ms("settle")),
    Column("send times\nmissed", _number("postpones")),
    Column("cores: callers\n+ server + service", _cores),
    ELSEWHERE,
)
NEWCOMER = (
    Column("first call after, s\n(median)", _number("newcomer_s_p50", 2)),
    Column("(longest)", _number("newcomer_s_max", 2), lambda f: f["newcomer_s_max"] <= 1, "<= 1"),
)
MEMORY = (
    Column("images", _number("images")),
    Column("RSS MB\nwhen ready", _number("rss_mb_0")),
    *(Column(f"RSS MB\nat {part:.0%}", _number(f"rss_mb_{part:.0%}")) for part in s.WAYMARKS),
    *(
        Column(f"CPU ms an\nimage at {part:.0%}", _number(f"cpu_ms_per_image_{part:.0%}", 2))
        for part in s.WAYMARKS
    ),
    Column("images\na second", _number("images_per_s_100%")),
    Column("cores: callers\n+ server + service", _cores),
    ELSEWHERE,
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A table: what is run for each row, and what of it is shown. ``span`` is the length of its bar."""

    title: str
    rows: Sequence[s.Row]
    run: Callable[[s.Row, str, Backends, float, s.Wait], s.Figures]
    columns: Sequence[Column]
    span: Callable[[s.Row, float], float]
    stretch: float = 1.0


SCENARIOS: Final = {
    "compare": Scenario(
        "5 calls a second, counted where they arrive",
        s.ROWS,
        s.compare,
        COMPARE,
        lambda row, seconds: seconds + (s.AFTER_KILL_S if row.processes > 1 else 0),
    ),
    "jitter": Scenario(
        "a sliding window of 5 that refuses, arrival jitter on the way; first 60 s left out",
        s.JITTER_ROWS,
        s.jitter,
        JITTER,
        lambda _, seconds: s.ADAPTING_S + seconds,
        stretch=6.0,
    ),
    "rates": Scenario("larger allowances", s.RATE_ROWS, s.rates, RATES, lambda _, seconds: seconds),
    "newcomer": Scenario(
        "a fifth process joins four",
        [row for row in s.OURS if row.processes == 4],
        s.newcomer,
        NEWCOMER,
        lambda *_: 5.0 + 3 * s.NEWCOMERS,
    ),
    "memory": Scenario(
        "many images, as fast as it goes",
        [row for row in s.OURS if row.processes == 1],
        s.memory,
        MEMORY,
        lambda *_: sum(s.WAYMARKS),
    ),
}


def main() -> None:
    """Run the chosen scenarios, print and save the figures."""
    args = _arguments()
    console = Console(width=None if sys.stdout.isatty() else 160)
    report: dict[str, Any] = {"host": host(), "seconds": args.seconds, "scenarios": {}}
    try:
        with Backends() as backends:
            for name in args.scenarios:
                report["scenarios"][name] = _measure(SCENARIOS[name], args, backends, console)
    except KeyboardInterrupt:
        console.print("stopped; what was measured so far:")
    report["host"]["load_average_after"] = [round(each, 2) for each in os.getloadavg()]
    for name, results in report["scenarios"].items():
        console.print(_table(SCENARIOS[name], results))
    console.print(
        f"{report['host']['cores']} cores, load {report['host']['load_average'][0]} before and"
        f" {report['host']['load_average_after'][0]} after; medians of {args.runs} run(s), each shown above."
        " Calls over the limit are only meaningful in runs with few cores busy elsewhere."
    )
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    keys = ", ".join(dict.fromkeys(row.key for each in SCENARIOS.values() for row in each.rows))
    parser = argparse.ArgumentParser(description=__doc__, epilog=f"rows: {keys}")
    parser.add_argument(
        "scenarios", nargs="*", help=f"{', '.join(SCENARIOS)} or all (default: compare)", default=["compare"]
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="for each row and run (default 30)")
    parser.add_argument("--runs", type=int, default=1, help="repeats of each row (default 1)")
    parser.add_argument(
        "--only", action="append", default=[], help="rows whose key holds this; may be repeated"
    )
    parser.add_argument("--images", type=int, default=100_000, help="of scenario memory (default 100,000)")
    parser.add_argument("--json", type=Path, help="also write every figure to this file")
    args = parser.parse_args()
    if "all" in args.scenarios:
        args.scenarios = list(SCENARIOS)
    if unknown := set(args.scenarios) - set(SCENARIOS):
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    if not any(_rows(SCENARIOS[name], args.only) for name in args.scenarios):
        parser.error("--only leaves no row")
    if args.seconds < 5 or args.runs < 1 or args.images < 1000:
        parser.error("--seconds is at least 5, --runs at least 1, --images at least 1,000")
    return args


def _rows(scenario: Scenario, only: list[str]) -> list[s.Row]:
    return [row for row in scenario.rows if not only or any(each in row.key for each in only)]


def _measure(
    scenario: Scenario, args: argparse.Namespace, backends: Backends, console: Console
) -> list[dict[str, Any]]:
    """Every row, ``args.runs`` times, in turn, so that a noisy minute does not affect a single row."""
    amount = float(args.images) if scenario.run is s.memory else args.seconds * scenario.stretch
    rows = _rows(scenario, args.only)
    results: list[dict[str, Any]] = [
        {"row": row.key, "label": row.label, "processes": row.processes, "runs": []} for row in rows
    ]
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        for run in range(1, args.runs + 1):
            for row, result in zip(rows, results, strict=True):
                what = f"{row.label}, {row.processes} process(es), run {run}"
                task = progress.add_task(what, total=scenario.span(row, amount))
                wait = _waiter(progress, task, timed=scenario.run is not s.memory)
                figures = scenario.run(row, f"{row.key}-{run}", backends, amount, wait)
                figures["allowed"] = row.rate_per_s
                result["runs"].append(figures)
                progress.remove_task(task)
                progress.console.print(_line(scenario, what, figures))
    for result in results:
        result["median"] = medians(result["runs"])
    return results


def _waiter(progress: Progress, task: Any, *, timed: bool) -> s.Wait:
    def wait(amount: float) -> None:
        if not timed:
            progress.advance(task, amount)
            return
        end_s = time.monotonic() + amount
        while (left_s := end_s - time.monotonic()) > 0:
            step_s = min(0.5, left_s)
            time.sleep(step_s)
            progress.advance(task, step_s)

    return wait


def _line(scenario: Scenario, what: str, figures: s.Figures) -> str:
    shown = (f"{column.title.replace(chr(10), ' ')} {column.show(figures)}" for column in scenario.columns)
    return f"{what}: " + ", ".join(shown)


def _table(scenario: Scenario, results: list[dict[str, Any]]) -> Table:
    table = Table(title=scenario.title, title_justify="left", show_footer=True)
    table.add_column("", footer="wanted of s2v-tasks")
    table.add_column("proc.", justify="right")
    for column in scenario.columns:
        table.add_column(column.title, justify="right", footer=column.wanted)
    ours = {row.key for row in scenario.rows if row.is_ours}
    for result in results:
        figures = result["median"]
        cells = []
        for column in scenario.columns:
            style = ""
            if result["row"] in ours and column.met is not None:
                style = "green" if column.met(figures) else "red"
            cells.append(Text(column.show(figures), style=style))
        table.add_row(result["label"], str(result["processes"]), *cells)
    return table


if __name__ == "__main__":
    main()
