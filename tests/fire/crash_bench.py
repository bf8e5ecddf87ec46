"""Runs that are killed and continued, and what must hold of their ledger, their files and the invoice."""

import hashlib
import json
import random
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import polars as pl
from fork_server import ForkServer

from s2v_tasks.adapters.scratch import Scratch
from s2v_tasks.candidates import image_key
from s2v_tasks.emulator import Emulator, EmulatorOptions
from s2v_tasks.models import WAN22_S2V_DETECT
from s2v_tasks.verdicts import SCREENED_SCHEMA

PRICE_USD = WAN22_S2V_DETECT.price_micro_usd / 1e6
ROWS = 50
KILLED = -9


def content_of(image_key: str) -> str:
    """What stands for the bytes of a picture: of 44 pictures about every third has those of another."""
    return f"{int(image_key[:4], 16) % 40:032x}"


@dataclass(frozen=True)
class Crash:
    """Death at the ``occurrence``-th ``step``."""

    step: str
    occurrence: int

    def __str__(self) -> str:
        return f"{self.step}#{self.occurrence}"


@dataclass(frozen=True)
class Books:
    """A ledger as it is on disk: rows as dictionaries."""

    attempts: list[dict[str, Any]]
    verdicts: dict[str, dict[str, Any]]
    budgets: list[dict[str, Any]]
    contents: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Books":
        """Read a SQLite ledger; one without tables holds nothing."""
        if not path.exists():
            return cls([], {}, [])
        with closing(sqlite3.connect(path)) as db:
            db.row_factory = sqlite3.Row
            if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'attempts'").fetchone():
                return cls([], {}, [])
            attempts, verdicts, budgets = (
                [dict(row) for row in db.execute(f"SELECT * FROM {table}")]  # noqa: S608  (our own names)
                for table in ("attempts", "verdicts", "budgets")
            )
            contents = dict(db.execute("SELECT content_key, image_key FROM contents").fetchall())
        return cls(attempts, {row["image_key"]: row for row in verdicts}, budgets, contents)

    def asked_key(self, own_key: str) -> str:
        """The key that a picture is asked by: its own, or that of the one with the same bytes."""
        return self.contents.get(content_of(own_key), own_key)

    def count(self, *states: str) -> Counter[str]:
        """Attempts in some states, by picture."""
        return Counter(a["image_key"] for a in self.attempts if a["state"] in states)


def money_is_wrong(books: Books, invoice: Sequence[Any]) -> list[str]:
    """What of the ledger does not agree with itself or with the invoice; true at every moment."""
    wrong = [
        f"the budget of {budget['cap']} counts {budget['used']}"
        for budget in books.budgets
        if budget["used"] > budget["cap"]
    ]
    cap = sum(budget["cap"] for budget in books.budgets)
    if len(invoice) > cap:
        wrong.append(f"the budget buys {cap}, the invoice has {len(invoice)}")
    return wrong + calls_are_wrong(books, invoice)


def calls_are_wrong(books: Books, invoice: Sequence[Any]) -> list[str]:
    """The same without the budgets' caps, which may be lowered."""
    wrong = []
    for budget in books.budgets:
        charged = sum(
            a["budget"] == budget["name"] and a["state"] in {"reserved", "billed", "unknown"}
            for a in books.attempts
        )
        if budget["used"] != charged:
            wrong.append(f"the budget counts {budget['used']}, its attempts {charged}")
    theirs = {line["request_id"] for line in invoice}
    ours = {a["request_id"] for a in books.attempts if a["state"] == "billed"}
    if ours - theirs:
        wrong.append(f"{len(ours - theirs)} billed calls are not on the invoice")
    lost = Counter(
        books.asked_key(image_key(line["image_url"])) for line in invoice if line["request_id"] not in ours
    )
    explained = books.count("reserved", "unknown")
    wrong += [f"picture {key}: {n} lost charges, {explained[key]} feared" for key, n in lost.items()
              if n > explained[key]]  # fmt: skip
    for states, most in ((("billed",), 1), (("reserved", "unknown"), 2)):
        worst = max(books.count(*states).values(), default=0)
        if worst > most:
            wrong.append(f"a picture has {worst} attempts that are {' or '.join(states)}")
    return wrong


def files_are_wrong(out: Path) -> list[str]:
    """Which files are there, but not whole; and whether the pointer names the file that is there."""
    wrong = []
    for path in out.rglob("*"):
        try:
            if path.suffix == ".json":
                json.loads(path.read_bytes())
            elif path.suffix == ".parquet":
                pl.read_parquet(path, glob=False)
        except (ValueError, pl.exceptions.PolarsError) as error:
            wrong.append(f"{path.name} is not whole ({error})")
    pointer = out / "published" / "current.json"
    if pointer.exists():
        says = json.loads(pointer.read_bytes())
        approved = Path(says["path"])
        if not approved.exists():
            wrong.append("the pointer names a file that is not there")
        elif hashlib.sha256(approved.read_bytes()).hexdigest() != says["sha256"]:
            wrong.append("the pointer's hash is not that of its file")
    return wrong


@dataclass
class Life:
    """One job of 50 rows in a folder of its own, from its first start to its end."""

    folder: Path
    emulator: Emulator
    server: ForkServer
    seed: int
    faults: tuple[str, ...] = ()
    wrong: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    _starts: int = 0

    def __post_init__(self) -> None:
        rng = random.Random(self.seed)  # noqa: S311  (repeatable, nothing secret)
        origin = self.emulator.origin
        kinds = ["portrait"] * 36 + ["scenery"] * 5 + ["nobody"] * 3
        self._urls = [f"{origin}/samples/gen/{kind}-{n}.jpg" for n, kind in enumerate(kinds)]
        rng.shuffle(self._urls)
        rows: list[str | None] = [*self._urls, *(f"{url}#again" for url in self._urls[:5]), "no address"]
        pl.DataFrame({"image_url": rows}).write_parquet(self.folder / "candidates.parquet")
        self._shard_size = rng.choice((7, 15, 50))
        self._budget = (60, 25, 44)[self.seed % 3]
        self.emulator.reset()
        self.emulator.set_faults(
            [
                *self.faults,
                f"Throttling.RateQuota:first={rng.randint(2, 12)},times=1",
                f"drop:first={rng.randint(1, 20)},times={rng.randint(0, 2)}",
                f"InternalError:first={rng.randint(1, 20)},times=1",
                f"InvalidURL.Timeout:first={rng.randint(1, 20)},times=1",
            ]
        )

    @property
    def has_copies(self) -> bool:
        """Whether some pictures have the bytes of others, and the run pays once for those."""
        return self.seed % 4 == 3

    @property
    def out(self) -> Path:
        """Where the run writes."""
        return self.folder / "out"

    @property
    def books(self) -> Books:
        """The ledger as it is."""
        return Books.read(self.out / "ledger.sqlite3")

    @property
    def screened(self) -> set[str]:
        """The pictures that the run need not look at again."""
        work = self.out / "runs" / "the-run" / "work"
        return set(Scratch(work / "screened", SCREENED_SCHEMA).read(0)["image_key"])

    def live(self, crash: Crash | None = None) -> int:
        """Run the job, perhaps to a crash; the run's id is always the same. Gives the child's end."""
        self._starts += 1
        sends = self.folder / f"sends-{self._starts}"
        report = self.folder / "report.json"
        looks, screened, books = self.folder / f"looks-{self._starts}", self.screened, self.books
        known = {url for url in self._urls if books.asked_key(image_key(url)) in books.verdicts}
        paid_before = Counter(line["image_url"] for line in self.emulator.invoice())
        log = self.folder / f"log-{self._starts}"
        (end,) = self.server.run(
            {
                "module": "crash_child",
                "log": str(log),
                "candidates": str(self.folder / "candidates.parquet"),
                "out": str(self.out),
                "base_url": self.emulator.base_url,
                "budget_usd": self._budget * PRICE_USD,
                "shard_size": self._shard_size,
                "run_id": "the-run",
                "sends": str(sends),
                "looks": str(looks),
                "report": str(report),
                "copies": self.has_copies,
                "step": crash.step if crash else None,
                "occurrence": crash.occurrence if crash else 0,
            }
        )
        self.kills += end == KILLED
        if end not in (0, KILLED):
            self.wrong.append(f"the run ended with {end}: {log.read_text() if log.exists() else ''}")
        if end == 0:
            self.counts = Counter(json.loads(report.read_bytes()))
        sent = sends.read_text().splitlines() if sends.exists() else []
        again = [url for line in sent if (url := json.loads(line)["input"]["image_url"]) in known]
        paid = Counter(line["image_url"] for line in self.emulator.invoice())
        again += [url for url in known if paid[url] > paid_before[url]]
        self.wrong += [f"asked about {url}, though its verdict was known" for url in again]
        looked = looks.read_text().splitlines() if looks.exists() else []
        self.wrong += [f"looked at {key} again" for key in looked if key in screened or key in books.verdicts]
        self.check()
        return end

    @property
    def is_finished(self) -> bool:
        """Whether the run says that it is."""
        manifest = self.out / "runs" / "the-run" / "manifest.json"
        return manifest.exists() and json.loads(manifest.read_bytes())["status"] == "published"

    def end(self) -> None:
        """Continue the run to its end, and check what came of it."""
        if not self.is_finished:
            self.live()
        if self.wrong:
            return
        if not self.is_finished:
            self.wrong.append("the run is not finished")
            return
        self._check_outcomes()

    def check(self) -> None:
        """Check what holds at every moment."""
        self.wrong += money_is_wrong(self.books, self.emulator.invoice()) + files_are_wrong(self.out)

    def _check_outcomes(self) -> None:
        books, run = self.books, self.out / "runs" / "the-run"
        rows = pl.read_parquet(run / "verdicts.parquet")
        say = self.wrong.append
        if rows["row"].to_list() != list(range(ROWS)) or rows["outcome"].null_count():
            say(f"{rows.height} rows, {rows['outcome'].null_count()} without outcome")
        if books.count("reserved"):
            say("calls are still reserved")
        spent = books.budgets[0]["used"] == books.budgets[0]["cap"]
        lost = books.count("unknown")
        for row in rows.iter_rows(named=True):
            outcome = row["outcome"]
            if outcome in {"duplicate", "screened_out"}:
                continue
            key = books.asked_key(row["image_key"])
            if key in books.verdicts:
                right = outcome == books.verdicts[key]["outcome"]
            elif outcome == "unspent":
                right = spent and row["reason"] == "budget_spent"
            else:
                right = outcome == "error" or (outcome == "unknown" and lost[key] > 0)
            if not right:
                say(f"row {row['row']} is {outcome}, {row['reason']}; lost: {lost[key]}, spent: {spent}")
        charged = sum(books.count("billed", "unknown").values())
        if round(rows["cost_usd"].sum() / PRICE_USD, 6) != charged:
            say(f"the rows cost {rows['cost_usd'].sum()}, {charged} calls were charged")
        passed = rows.filter(outcome="passed").height
        published = json.loads((self.out / "published" / "current.json").read_bytes())
        if published["rows"] != passed or passed != sum(
            verdict["outcome"] == "passed" for verdict in books.verdicts.values()
        ):
            say(f"{passed} passed, {published['rows']} published")


class Undertaker:
    """Does many crashes, some at once, each on a fork server and an emulator that it has for itself."""

    def __init__(self, workers: int = 2) -> None:
        self._pool = ThreadPoolExecutor(workers)
        self._free: SimpleQueue[tuple[Emulator, ForkServer]] = SimpleQueue()
        self._held: list[Any] = []
        for _ in range(workers):
            options = EmulatorOptions(limit=None, judge_pictures=False, latency_s=0.002, jitter_s=0.004)
            emulator, server = Emulator(options).start(), ForkServer("crash_child").__enter__()
            self._held += [(emulator, server)]
            self._free.put((emulator, server))

    def close(self) -> None:
        """End what was started."""
        self._pool.shutdown(cancel_futures=True)
        for emulator, server in self._held:
            server.__exit__(None, None, None)
            emulator.close()

    def submit(self, *crashes: Crash, seed: int = 0, faults: Sequence[str] = ()) -> Any:
        """A future of the life of a job that crashes so, one crash after the other, and is then continued."""
        return self._pool.submit(self._live, crashes, seed, tuple(faults))

    def _live(self, crashes: Sequence[Crash], seed: int, faults: tuple[str, ...]) -> Life:
        emulator, server = self._free.get()
        try:
            with tempfile.TemporaryDirectory(prefix="s2v-crash-") as folder:
                life = Life(Path(folder), emulator, server, seed, faults)
                for crash in crashes:
                    if not life.is_finished:
                        life.live(crash)
                life.end()
                return life
        finally:
            self._free.put((emulator, server))
