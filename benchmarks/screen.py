"""Screening benchmark: images per second and bytes per image, of this package and of img2dataset.

Both fetch the same photographs from the same host on loopback, in one run. How to run: README.md.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # this tree, not an installed one; for the workers too
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
os.environ |= {"NO_PROXY": "*", "NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled"}

import psutil  # noqa: E402  (from this tree)
from _image_host import ImageHost, image_host  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

HERE = Path(__file__).parent
START_UP = 10
"""Images of the short run, whose cost is taken off: what is left is the work, not the start."""
CLIENTS = ("httpx", "httpx over aiohttp", "aiohttp")
MIN_SIDE_PX = 400
Rows = list[dict[str, Any]]


@dataclass(slots=True)
class Watched:
    """A command with all the processes it starts: CPU seconds, most memory at a time, what it printed."""

    command: Sequence[str]
    cpu_s: float = 0.0
    peak_bytes: int = 0
    out: str = ""

    def run(self) -> "Watched":
        """Run it to its end."""
        before = _children_cpu_s()
        child = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        over = threading.Event()
        watch = threading.Thread(target=self._watch, args=(psutil.Process(child.pid), over))
        watch.start()
        self.out, err = child.communicate()
        over.set()
        watch.join()
        if child.returncode:
            raise SystemExit(f"{self.command[0]} ended with {child.returncode}:\n{err[-2000:]}")
        self.cpu_s = _children_cpu_s() - before
        return self

    def _watch(self, root: psutil.Process, over: threading.Event) -> None:
        while not over.wait(0.02):
            memory = 0
            for process in self._tree(root):
                try:
                    memory += process.memory_info().rss
                except psutil.Error:
                    continue
            self.peak_bytes = max(self.peak_bytes, memory)

    @staticmethod
    def _tree(root: psutil.Process) -> list[psutil.Process]:
        try:
            return [root, *root.children(recursive=True)]
        except psutil.Error:
            return []


def _children_cpu_s() -> float:
    """What all processes took that ended below this one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def img2dataset(command: str, urls: Path, out: Path) -> list[str]:
    """Build its command as a filter by size: no resizing, no encoding, nothing stored; one process."""
    return [
        command, "--url_list", str(urls), "--output_folder", str(out), "--processes_count", "1",
        "--thread_count", "32", "--resize_mode", "no", "--skip_reencode", "True", "--output_format", "dummy",
        "--min_image_size", str(MIN_SIDE_PX), "--retries", "0", "--enable_wandb", "False",
    ]  # fmt: skip


def kept_by_img2dataset(out: Path) -> int:
    """How many images its own statistics call a success."""
    stats = [json.loads(file.read_text("utf-8")) for file in out.glob("*_stats.json")]
    return sum(shard["successes"] for shard in stats)


def measure(host: ImageHost, folder: Path, who: str, command: str, images: int) -> dict[str, Any]:
    """Run a short and a long job; the difference of CPU time is the work, without the start."""
    spent = {}
    for count in (START_UP, images):
        urls, out = host.urls(count, folder / f"{count}.txt"), folder / f"{who}-{count}-{time.monotonic_ns()}"
        host.count()
        if who == "s2v":
            ran = Watched([sys.executable, str(HERE / "_screen_worker.py"), "screen", str(urls), "0"]).run()
            measured = json.loads(ran.out)
            kept, ran.cpu_s = (
                measured["kept"],
                measured["cpu_s"],
            )  # without its start
        else:
            ran = Watched(img2dataset(command, urls, out)).run()
            kept = kept_by_img2dataset(out)
        spent[count] = ran, host.count(), kept
    (short, _, _), (long, counted, kept) = spent[START_UP], spent[images]
    return {
        "who": who,
        "images": images,
        "kept": kept,
        "per_core_s": (images - START_UP) / (long.cpu_s - short.cpu_s),
        "per_s": images / (counted["last_s"] - counted["first_s"]),
        "bytes": counted["bytes"] / images,
        "requests": counted["requests"] / images,
        "connections": counted["connections"],
        "peak_mb": long.peak_bytes / 1e6,
    }


def compare(
    host: ImageHost, folder: Path, args: argparse.Namespace, console: Console
) -> list[dict[str, Any]]:
    """This project and img2dataset, in turn."""
    rows = []
    for _ in range(args.runs):
        rows.append(measure(host, folder, "s2v", "", args.images))
        if args.img2dataset:
            rows.append(measure(host, folder, "img2dataset", args.img2dataset, args.images))
    table = Table(title=f"{args.images} photographs of {host.mean_bytes / 1000:.0f} KB on average")
    for title in ("", "kept", "images/s per core", "images/s", "bytes per image", "requests", "peak memory"):
        table.add_column(title, justify="left" if not title else "right")
    for r in rows:
        table.add_row(
            r["who"], str(r["kept"]), f"{r['per_core_s']:.0f}", f"{r['per_s']:.0f}", f"{r['bytes']:,.0f}",
            f"{r['requests']:.2f}", f"{r['peak_mb']:.0f} MB",
        )  # fmt: skip
    console.print(table)
    ours, theirs = (_best(rows, who) for who in ("s2v", "img2dataset"))
    if ours and theirs:
        faster, fewer = ours["per_core_s"] / theirs["per_core_s"], theirs["bytes"] / ours["bytes"]
        console.print(
            f"{faster:.1f} times as many a second and core (wanted: 3), 1/{fewer:.0f} of the bytes (1/10)"
        )
    else:
        console.print(
            "img2dataset is not there. In an environment of its own: python3 -m venv DIR && "
            "DIR/bin/pip install img2dataset; then --img2dataset DIR/bin/img2dataset"
        )
    return rows


def _best(rows: Rows, who: str) -> dict[str, Any] | None:
    return max((r for r in rows if r["who"] == who), key=lambda r: r["per_core_s"], default=None)


def clients(
    host: ImageHost, folder: Path, args: argparse.Namespace, console: Console
) -> list[dict[str, Any]]:
    """The HTTP clients to choose from, bare: 4 KB of each image."""
    urls, rows = host.urls(args.images, folder / "urls.txt"), []
    table = Table(title="requests a second of one core's time, by requests in flight")
    table.add_column("")
    for in_flight in args.in_flight:
        table.add_column(str(in_flight), justify="right")
    for way in CLIENTS:
        figures = []
        for in_flight in args.in_flight:
            command = [sys.executable, str(HERE / "_screen_worker.py"), way, str(urls), str(in_flight)]
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
            if ran.returncode:
                figures.append("not there" if "ModuleNotFoundError" in ran.stderr else "failed")
                continue
            measured = json.loads(ran.stdout)
            rows.append({"who": way, "in_flight": in_flight, "per_core_s": args.images / measured["cpu_s"]})
            figures.append(f"{rows[-1]['per_core_s']:.0f}")
        table.add_row(way, *figures)
    console.print(table)
    return rows


def main() -> None:
    """Run what was args for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenario", nargs="?", choices=("compare", "clients"), default="compare")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[8, 64, 256])
    parser.add_argument("--img2dataset", type=shutil.which, default="img2dataset", help="its command")
    parser.add_argument("--json", type=Path, help="write every figure into this file")
    args = parser.parse_args()
    console = Console(width=130)
    with tempfile.TemporaryDirectory(prefix="s2v-bench-") as folder, image_host(args.images) as host:
        rows = (compare if args.scenario == "compare" else clients)(host, Path(folder), args, console)
    console.print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
