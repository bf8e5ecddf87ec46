"""How long the commands take when there is almost nothing to do: start, one image, end.

Beside them a flow that does nothing, on Prefect's own ephemeral server, and on request the commands of
another environment. All on loopback against the emulator; no account is charged. How to run: README.md.
"""

import argparse
import ctypes
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # this tree's emulator and helpers, not an installed one

import psutil  # noqa: E402  (as the next lines)
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from s2v_tasks import Emulator  # noqa: E402

HELLO = "from prefect import flow\n\n\n@flow\ndef hello():\n    return 'hello'\n\n\nhello()\n"
HERE, BESIDE = "here", "beside"
KEYS = ("s2v --help", "s2v estimate", "s2v curate", "s2v gate", "hello-world flow")
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, slots=True)
class Run:
    """One command from its start to its end. ``cpu_s`` includes its server, ``elsewhere`` is in cores."""

    key: str
    environment: str
    wall_s: float
    cpu_s: float
    elsewhere: float


@dataclass(slots=True)
class Bench:
    """An environment's `s2v`, with a home for Prefect and a folder of its own."""

    name: str
    s2v: Path
    folder: Path
    emulator: Emulator
    runs: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir()
        (self.folder / "hello.py").write_text(HELLO, "utf-8")
        url = f"{self.emulator.origin}/samples/gen/portrait-1.jpg"
        (self.folder / "one.csv").write_text(f"image_url\n{url}\n", "utf-8")

    def arguments(self, key: str) -> list[str]:
        """The command line of a row of the table."""
        screen = ["--allow-private-hosts", "--allow-port", self.emulator.origin.rpartition(":")[2]]
        match key:
            case "s2v curate":  # a new folder, or the ledger would know the image
                self.runs += 1
                spent = ["--out", f"out-{self.runs}", "--budget-usd", "1"]
                return [str(self.s2v), "curate", "one.csv", *spent, *screen]
            case "s2v gate":
                (run_dir,) = (self.folder / "out-1" / "runs").iterdir()
                return [str(self.s2v), "gate", str(run_dir)]
            case "s2v estimate":
                return [str(self.s2v), "estimate", "one.csv", *screen]
            case "hello-world flow":
                return [str(self.s2v.with_name("python")), "hello.py"]
        return [str(self.s2v), "--help"]

    def run(self, key: str) -> Run:
        """Run a command, and wait for all that it has started.

        Raises:
            SystemExit: The command failed.
        """
        others = {child.pid for child in psutil.Process().children()}
        busy_before, began = _busy_s(), time.monotonic()
        with (self.folder / "output.txt").open("wb") as output:
            child = psutil.Popen(
                self.arguments(key), cwd=self.folder, env=self._env(), stdout=output, stderr=output
            )
            _, status, used = os.wait4(child.pid, 0)
        wall_s = time.monotonic() - began
        if status:
            raise SystemExit(f"{child.args} failed:\n{(self.folder / 'output.txt').read_text('utf-8')}")
        cpu_s = used.ru_utime + used.ru_stime + sum(_ended(others))
        elsewhere = (_busy_s() - busy_before - cpu_s) / (time.monotonic() - began)
        return Run(key, self.name, wall_s, cpu_s, max(0.0, elsewhere))

    def _env(self) -> dict[str, str]:
        private = ("PREFECT_", "S2V_", "DASHSCOPE_", "PYTHONPATH")
        env = {name: value for name, value in os.environ.items() if not name.startswith(private)}
        return env | {
            "PREFECT_HOME": str(self.folder / "prefect"),
            "DASHSCOPE_API_KEY": "benchmark",
            "DASHSCOPE_HTTP_BASE_URL": self.emulator.base_url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }


def _busy_s() -> float:
    times = psutil.cpu_times()
    return times.user + times.nice + times.system


def _ended(others: set[int]) -> Iterator[float]:
    """Wait for the orphans of a command that has ended: their CPU seconds. Only Linux hands them to us."""
    for orphan in psutil.Process().children():
        if orphan.pid not in others:
            _, _, used = os.wait4(orphan.pid, 0)
            yield used.ru_utime + used.ru_stime


def _median(runs: list[Run], what: str) -> float:
    return statistics.median(getattr(run, what) for run in runs)


def _table(runs: list[Run], keys: list[str]) -> Table:
    table = Table(title=f"medians of {max(len(_of(runs, key, HERE)) for key in keys)} alternating runs")
    for header in (
        "",
        "s",
        "CPU s",
        "beside: s",
        "beside: CPU s",
        "times quicker",
        "times less CPU",
        "elsewhere",
    ):
        table.add_column(header, justify="left" if not header else "right")
    for key in keys:
        here, beside = _of(runs, key, HERE), _of(runs, key, BESIDE)
        cells = [f"{_median(here, what):.2f}" for what in ("wall_s", "cpu_s")]
        cells += [f"{_median(beside, what):.2f}" if beside else "" for what in ("wall_s", "cpu_s")]
        for what in ("wall_s", "cpu_s"):  # of each pair, which ran on an equally busy machine
            ratios = [getattr(b, what) / getattr(h, what) for h, b in zip(here, beside, strict=False)]
            cells.append(f"{statistics.median(ratios):.2f}" if ratios else "")
        table.add_row(key, *cells, f"{_median(here + beside, 'elsewhere'):.1f}")
    return table


def _of(runs: list[Run], key: str, environment: str) -> list[Run]:
    return [run for run in runs if (run.key, run.environment) == (key, environment)]


def _measured(benches: list[Bench], keys: list[str], count: int, console: Console) -> Iterator[Run]:
    for bench in benches:  # warm: byte code, Prefect's database, and the run whose gate is evaluated again
        for key in dict.fromkeys(["s2v curate", *keys]):
            bench.run(key)
    for number in range(count):
        for key in keys:
            for bench in benches:
                run = bench.run(key)
                console.print(
                    f"{number + 1}/{count} {key}, {bench.name}: {run.wall_s:.2f} s, CPU {run.cpu_s:.2f} s"
                )
                yield run


def main() -> None:
    """Measure, show the table, and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--beside", type=Path, metavar="S2V", help="another environment's s2v, for comparison"
    )
    parser.add_argument("--runs", type=int, default=7, help="of each command, alternating")
    parser.add_argument(
        "--only", action="append", metavar="TEXT", help=f"rows with this text: {', '.join(KEYS)}"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="every figure of every run")
    given = parser.parse_args()
    keys = [key for key in KEYS if given.only is None or any(text in key for text in given.only)]
    if not keys:
        parser.error(f"--only keeps no row; rows: {', '.join(KEYS)}")
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    programs = {HERE: Path(sys.executable).with_name("s2v"), BESIDE: given.beside and given.beside.absolute()}
    sys.stdout.reconfigure(line_buffering=True)  # each run is seen as it ends, in a file too
    console = Console(width=None if sys.stdout.isatty() else 130)
    with tempfile.TemporaryDirectory() as folder, Emulator() as emulator:
        benches = [
            Bench(name, program, Path(folder, name), emulator)
            for name, program in programs.items()
            if program
        ]
        runs = list(_measured(benches, keys, given.runs, console))
    console.print(_table(runs, keys))
    if given.json:
        given.json.write_text(json.dumps([asdict(run) for run in runs], indent=1), "utf-8")


if __name__ == "__main__":
    main()
