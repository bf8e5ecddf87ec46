"""How fast pictures are screened, and how many bytes it takes: this project beside img2dataset.

Both get the same photographs from the same host on loopback, in one run. How to run: README.md.
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
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # this tree, not an installed one; for the workers too
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
os.environ |= {"NO_PROXY": "*", "NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled"}

import psutil  # noqa: E402  (from this tree)
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

HERE = Path(__file__).parent
START_UP = 10
"""Pictures of the short run, whose cost is taken off: what is left is the work, not the start."""
CLIENTS = ("httpx", "httpx over aiohttp", "aiohttp")
MIN_SIDE_PX = 400
Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class PictureHost:
    """The host of photographs."""

    port: int
    mean_bytes: int

    def urls(self, count: int, file: Path) -> Path:
        """Write the addresses of so many pictures, each of its own."""
        lines = [f"http://127.0.0.1:{self.port}/{number}.jpg" for number in range(count)]
        file.write_text("\n".join(lines) + "\n", "utf-8")
        return file

    def count(self) -> dict[str, Any]:
        """What was asked for and sent since the last call."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/count") as answer:
            counted: dict[str, Any] = json.load(answer)
        return counted


@contextmanager
def picture_host(pictures: int) -> Iterator[PictureHost]:
    """Start the host, end it afterwards."""
    program = [sys.executable, str(HERE / "_picture_host.py"), str(pictures)]
    child = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None  # noqa: S101  (both were asked for)
    assert child.stdout is not None  # noqa: S101
    try:
        yield PictureHost(**json.loads(child.stdout.readline()))
    finally:
        child.stdin.close()
        child.wait()


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
    """How many pictures its own statistics call a success."""
    stats = [json.loads(file.read_text("utf-8")) for file in out.glob("*_stats.json")]
    return sum(shard["successes"] for shard in stats)


def measure(host: PictureHost, folder: Path, who: str, command: str, pictures: int) -> dict[str, Any]:
    """Run a short and a long job; the difference of CPU time is the work, without the start."""
    spent = {}
    for count in (START_UP, pictures):
        urls, out = host.urls(count, folder / f"{count}.txt"), folder / f"{who}-{count}-{time.monotonic_ns()}"
        host.count()
        if who == "s2v":
            ran = Watched([sys.executable, str(HERE / "_screen_worker.py"), "screen", str(urls), "0"]).run()
            told = json.loads(ran.out)
            kept, ran.cpu_s = (
                told["kept"],
                told["cpu_s"],
            )  # without its start
        else:
            ran = Watched(img2dataset(command, urls, out)).run()
            kept = kept_by_img2dataset(out)
        spent[count] = ran, host.count(), kept
    (short, _, _), (long, counted, kept) = spent[START_UP], spent[pictures]
    return {
        "who": who,
        "pictures": pictures,
        "kept": kept,
        "per_core_s": (pictures - START_UP) / (long.cpu_s - short.cpu_s),
        "per_s": pictures / (counted["last_s"] - counted["first_s"]),
        "bytes": counted["bytes"] / pictures,
        "requests": counted["requests"] / pictures,
        "connections": counted["connections"],
        "peak_mb": long.peak_bytes / 1e6,
    }


def compare(
    host: PictureHost, folder: Path, asked: argparse.Namespace, console: Console
) -> list[dict[str, Any]]:
    """This project and img2dataset, in turn."""
    rows = []
    for _ in range(asked.runs):
        rows.append(measure(host, folder, "s2v", "", asked.pictures))
        if asked.img2dataset:
            rows.append(measure(host, folder, "img2dataset", asked.img2dataset, asked.pictures))
    table = Table(title=f"{asked.pictures} photographs of {host.mean_bytes / 1000:.0f} KB on average")
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
    host: PictureHost, folder: Path, asked: argparse.Namespace, console: Console
) -> list[dict[str, Any]]:
    """The HTTP clients to choose from, bare: 4 KB of each picture."""
    urls, rows = host.urls(asked.pictures, folder / "urls.txt"), []
    table = Table(title="requests a second of one core's time, by requests in flight")
    table.add_column("")
    for in_flight in asked.in_flight:
        table.add_column(str(in_flight), justify="right")
    for way in CLIENTS:
        figures = []
        for in_flight in asked.in_flight:
            command = [sys.executable, str(HERE / "_screen_worker.py"), way, str(urls), str(in_flight)]
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
            if ran.returncode:
                figures.append("not there" if "ModuleNotFoundError" in ran.stderr else "failed")
                continue
            told = json.loads(ran.stdout)
            rows.append({"who": way, "in_flight": in_flight, "per_core_s": asked.pictures / told["cpu_s"]})
            figures.append(f"{rows[-1]['per_core_s']:.0f}")
        table.add_row(way, *figures)
    console.print(table)
    return rows


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenario", nargs="?", choices=("compare", "clients"), default="compare")
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[8, 64, 256])
    parser.add_argument("--img2dataset", type=shutil.which, default="img2dataset", help="its command")
    parser.add_argument("--json", type=Path, help="write every figure into this file")
    asked = parser.parse_args()
    console = Console(width=130)
    with tempfile.TemporaryDirectory(prefix="s2v-bench-") as folder, picture_host(asked.pictures) as host:
        rows = (compare if asked.scenario == "compare" else clients)(host, Path(folder), asked, console)
    console.print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
