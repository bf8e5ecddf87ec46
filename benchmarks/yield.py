"""What the account's calls bring: approved images for each 1,000 calls and each dollar, by face check.

Labelled images make a list as on the web; the emulator goes by the labels, and each run is the command
`s2v curate`. Time is counted in calls, not by the clock. No account is charged. How to run: README.md.
"""

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, get_args
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # this tree, not an installed one

import httpx  # noqa: E402  (from this tree)
import polars as pl  # noqa: E402
from _image_host import image_host  # noqa: E402
from _measure import longest_gap_s, share_used  # noqa: E402
from _web_list import MIX, Listed, labelled, web_list, write_files  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from rich.text import Text  # noqa: E402

from s2v_tasks import Emulator, EmulatorOptions  # noqa: E402
from s2v_tasks.models import WAN22_S2V_DETECT  # noqa: E402
from s2v_tasks.settings import Screening  # noqa: E402

PRICE_USD: Final = WAN22_S2V_DETECT.price_micro_usd / 1e6
NAIVE, OFF = "naive", "off"
MODES: Final = (NAIVE, *get_args(Screening.model_fields["faces"].annotation))
BUDGET_OF_ROWS: Final = 5
"""A budget buys a call for each fifth row."""
MIN_PASS_RATE: Final = 0.05
WANTED: Final = {NAIVE: 4.2, OFF: 2.5}
"""Times as many approved images with the budget."""
AT_ONCE: Final = 16
"""Calls of the naive run."""
GOOD_ENDS: Final = (0, 3, 4)
"""Exit statuses: published, the gate is closed, or the budget was spent."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a run brought. ``share``: of the rate, from first to last call; ``gap_s``: longest without one."""

    mode: str
    budget_calls: int | None
    calls: int
    throttled: int
    approved: int
    usd: float
    share: float
    gap_s: float
    wall_s: float

    @property
    def per_1000(self) -> float:
        """Approved images for 1,000 calls."""
        return 1000 * self.approved / self.calls


@dataclass(slots=True)
class Bench:
    """The list, the service that checks it, and the environment of `s2v`."""

    folder: Path
    emulator: Emulator
    listed: Sequence[Listed]
    origin: str
    rate_per_s: float
    runs: int = 0

    def url(self, image: Listed) -> str:
        """The URL of an image."""
        return f"{self.origin}/{image.name}"

    def write_candidates(self) -> None:
        """Write the list."""
        columns = {
            "image_url": [self.url(image) for image in self.listed],
            "source": [image.source for image in self.listed],
        }
        pl.DataFrame(columns).write_parquet(self.folder / "candidates.parquet")

    def run(self, mode: str, budget_calls: int | None) -> Run:
        """One run, from an empty ledger."""
        self.emulator.reset()
        began = time.monotonic()
        if mode == NAIVE:
            approved = asyncio.run(self._send_each(self.listed[:budget_calls]))
        else:
            approved = self._curate(mode, budget_calls or len(self.listed))
        wall_s = time.monotonic() - began
        counted = self.emulator.calls()
        at_s = [call["at_s"] for call in counted["arrivals"] if call["admitted"]]
        return Run(
            mode=mode,
            budget_calls=budget_calls,
            calls=counted["admitted"],
            throttled=counted["throttled"],
            approved=approved,
            usd=counted["billed"] * PRICE_USD,
            share=share_used(at_s, self.rate_per_s),
            gap_s=longest_gap_s(at_s, at_s[0], at_s[-1]),
            wall_s=wall_s,
        )

    async def _send_each(self, listed: Sequence[Listed]) -> int:
        """Send every row in its order, by a plain client; return how many different images pass."""
        slots, passed = asyncio.Semaphore(AT_ONCE), set[int]()
        url = self.emulator.base_url + WAN22_S2V_DETECT.path
        async with httpx.AsyncClient(headers={"Authorization": "Bearer benchmark"}) as client:

            async def send(image: Listed) -> None:
                body = {"model": WAN22_S2V_DETECT.model, "input": {"image_url": self.url(image)}}
                async with slots:
                    response = await client.post(url, json=body)
                if response.json().get("output", {}).get("check_pass"):
                    passed.add(image.number)

            async with asyncio.TaskGroup() as group:
                for image in listed:
                    group.create_task(send(image))
        return len(passed)

    def _curate(self, mode: str, calls: int) -> int:
        """Run the command; return how many images it approved."""
        self.runs += 1
        out, output = self.folder / f"out-{self.runs}", self.folder / "output.txt"
        command = [
            *(str(Path(sys.executable).with_name("s2v")), "curate", "candidates.parquet"),
            *("--out", str(out), "--budget-usd", f"{(calls + 0.5) * PRICE_USD:.6f}"),
            *("--segment-column", "source", "--min-pass-rate", str(MIN_PASS_RATE), "--faces", mode),
            *("--allow-private-hosts", "--allow-port", str(urlsplit(self.origin).port)),
            *("--no-report-images", "--json"),
        ]
        with output.open("wb") as file:
            ended = subprocess.run(
                command, cwd=self.folder, env=self._env(), stdout=file, stderr=file, check=False
            )
        if ended.returncode not in GOOD_ENDS:
            raise SystemExit(f"{' '.join(command)} failed:\n{output.read_text('utf-8')[-4000:]}")
        (verdicts,) = out.glob("runs/*/verdicts.parquet")
        return int(pl.scan_parquet(verdicts).filter(outcome="passed").select(pl.len()).collect().item())

    def _env(self) -> dict[str, str]:
        private = ("S2V_", "DASHSCOPE_")
        env = {name: value for name, value in os.environ.items() if not name.startswith(private)}
        return env | {
            "DASHSCOPE_API_KEY": "benchmark",
            "DASHSCOPE_HTTP_BASE_URL": self.emulator.base_url,
        }


@contextmanager
def prefect_server(home: Path, rate_per_s: float) -> Iterator[None]:
    """A Prefect server for all runs, with the account's rate set as an operator sets it."""
    os.environ |= {"PREFECT_HOME": str(home), "PREFECT_LOGGING_LEVEL": "WARNING"}
    os.environ.pop("PREFECT_API_URL", None)
    from s2v_tasks.adapters.prefect import server

    server.ensure_prefect_api()
    server.wait_until_ready()
    from prefect import get_client

    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(
            WAN22_S2V_DETECT.model, max(1, round(rate_per_s)), rate_per_s
        )
    yield  # the server ends with this process


def ceiling(listed: Sequence[Listed], calls: int) -> float:
    """How many times what the naive run finds all good images are, which a perfect choice would find."""
    found = {image.number for image in listed[:calls] if image.is_good}
    good = {image.number for image in listed if image.is_good}
    return min(len(good), calls) / max(1, len(found))


def show(runs: Sequence[Run], listed: Sequence[Listed], passing: Sequence[str], console: Console) -> None:
    """The table, and the ceiling below it."""
    images = {image.number: image for image in listed}.values()
    good = sum(image.is_good for image in images)
    table = Table(
        title=f"{len(listed):,} rows, {len(images):,} images, {good:,} of them good: {', '.join(passing)}",
        title_justify="left",
    )
    table.add_column("faces")
    for title in (
        "budget,\ncalls",
        "calls",
        "approved\nimages",
        "for 1,000\ncalls",
        "for 1 USD",
        "x naive",
        "x off",
        "share of\nthe rate",
        "longest\ngap, s",
        "429",
        "minutes",
    ):
        table.add_column(title, justify="right")
    for run in runs:
        table.add_row(
            run.mode,
            "none" if run.budget_calls is None else f"{run.budget_calls:,}",
            f"{run.calls:,}",
            f"{run.approved:,}",
            f"{run.per_1000:.0f}",
            f"{run.approved / run.usd:.0f}" if run.usd else "-",
            *(_times(run, runs, beside) for beside in (NAIVE, OFF)),
            *(
                ("-",) * 3
                if run.mode == NAIVE
                else (f"{run.share:.1%}", f"{run.gap_s:.1f}", str(run.throttled))
            ),
            f"{run.wall_s / 60:.1f}",
        )
    console.print(table)
    wanted = " and ".join(f"{times} x {beside}" for beside, times in WANTED.items())
    calls = len(listed) // BUDGET_OF_ROWS
    console.print(
        f"Ceiling with a budget: {ceiling(listed, calls):.2f} x naive. Wanted of the face check with a budget"
        f" where only portraits pass: at least {wanted}."
    )


def _times(run: Run, runs: Sequence[Run], beside: str) -> Text:
    """How many times as many approved images for a call as another run with the same budget."""
    others = [other for other in runs if (other.mode, other.budget_calls) == (beside, run.budget_calls)]
    if not others or not others[0].approved or run.mode == beside:
        return Text("")
    times = run.per_1000 / others[0].per_1000
    is_wanted = run.budget_calls is not None and run.mode not in (NAIVE, OFF)
    style = ("green" if times >= WANTED[beside] else "red") if is_wanted else ""
    return Text(f"{times:.2f}", style=style)


def main() -> None:
    """Make the list, run each mode, print and save the figures."""
    args = _arguments()
    sys.stdout.reconfigure(line_buffering=True)  # each run is seen as it ends, in a file too
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    originals = labelled(args.folder)
    if missing := set(args.mix) - originals.keys():
        raise SystemExit(f"{args.folder} has no image with the label {', '.join(sorted(missing))}")
    passing = args.passes or ["portrait"]
    listed = web_list(originals, args.mix, args.rows, passing, args.seed)
    options = EmulatorOptions(
        limit=args.rate if args.window else None, window=args.window or "sliding", fetch_images=False
    )
    with tempfile.TemporaryDirectory(prefix="s2v-yield-") as name, Emulator(options) as emulator:
        folder, began = Path(name), time.monotonic()
        write_files(listed, folder / "images")
        console.print(f"images written in {time.monotonic() - began:.0f} s")
        with image_host(folder / "images") as host, prefect_server(folder / "prefect", args.rate):
            bench = Bench(folder, emulator, listed, f"http://127.0.0.1:{host.port}", args.rate)
            bench.write_candidates()
            runs = []
            for budget, mode in _jobs(args):
                runs.append(bench.run(mode, budget))
                console.print(f"{mode}: {asdict(runs[-1])}")
    show(runs, listed, passing, console)
    console.print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end")
    if args.json:
        args.json.write_text(json.dumps([asdict(run) for run in runs], indent=1) + "\n", "utf-8")


def _jobs(args: argparse.Namespace) -> Iterator[tuple[int | None, str]]:
    """Each budget with each mode, in the order in which they are run, as often as wanted."""
    budgets = {"calls": args.rows // BUDGET_OF_ROWS, "none": None}
    for _ in range(args.runs):
        for budget in args.budget:
            for mode in args.only or MODES:
                yield budgets[budget], mode


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--pictures",
        dest="folder",
        type=Path,
        required=True,
        help="a folder with labels.csv: columns file and label",
    )
    parser.add_argument(
        "--passes", action="append", metavar="LABEL", help="may be repeated (default portrait)"
    )
    parser.add_argument(
        "--mix", type=_mix, default=MIX, metavar="LABEL=N,...", help="how many of 100 images have each label"
    )
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument(
        "--rate", type=float, default=25.0, help="of the account, calls a second (default 25)"
    )
    parser.add_argument(
        "--window", choices=("sliding", "fixed", "leaky"), help="the service holds the rate, by this window"
    )
    parser.add_argument("--budget", nargs="+", choices=("calls", "none"), default=["calls", "none"])
    parser.add_argument("--only", action="append", choices=MODES, help="modes; may be repeated (default all)")
    parser.add_argument("--runs", type=int, default=1, help="of each, alternating")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="every figure of every run")
    args = parser.parse_args()
    if args.rows < BUDGET_OF_ROWS or args.rate <= 0 or args.runs < 1:
        parser.error("--rows is at least 5, --rate above 0, --runs at least 1")
    return args


def _mix(text: str) -> dict[str, int]:
    if not re.fullmatch(r"[^=,]+=\d+(,[^=,]+=\d+)*", text):
        raise argparse.ArgumentTypeError("a mix reads LABEL=N,LABEL=N")
    return {label: int(share) for label, share in (each.split("=") for each in text.split(","))}


if __name__ == "__main__":
    main()
