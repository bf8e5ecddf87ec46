"""Runs that are killed and continued, and what must hold of their ledger, their files and the invoice."""

import hashlib
import json
import random
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import polars as pl
from fork_server import ForkServer

from s2v_tasks.adapters.storage import history, pointer
from s2v_tasks.adapters.storage.spill import SpillStore
from s2v_tasks.domain import faces
from s2v_tasks.domain.image_url import image_key
from s2v_tasks.domain.verdict_table import SCREENED_SCHEMA
from s2v_tasks.emulator import Emulator, EmulatorOptions
from s2v_tasks.models import WAN22_S2V_DETECT

if TYPE_CHECKING:  # the fork server finds no other folder's modules
    from many_images import ImageServer

PRICE_USD = WAN22_S2V_DETECT.price_micro_usd / 1e6
KILLED = -9
HOPELESS = "scenery-hopeless"
"""The kind of image whose segment never reaches a pass rate."""


def content_of(image_key: str) -> str:
    """A substitute for the bytes of an image: of 44 images about every third has those of another."""
    return f"{int(image_key[:4], 16) % 40:032x}"


@dataclass(frozen=True)
class Crash:
    """Death at the ``occurrence``-th ``step``."""

    step: str
    occurrence: int

    def __str__(self) -> str:
        return f"{self.step}#{self.occurrence}"


@dataclass(frozen=True)
class LedgerDump:
    """A ledger as it is on disk: rows as dictionaries."""

    attempts: list[dict[str, Any]]
    verdicts: dict[str, dict[str, Any]]
    budgets: list[dict[str, Any]]
    contents: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "LedgerDump":
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
            contents = dict(db.execute("SELECT content_key, image_key FROM canonical_images").fetchall())
        return cls(attempts, {row["image_key"]: row for row in verdicts}, budgets, contents)

    def canonical_key(self, own_key: str) -> str:
        """The key that an image is sent by: its own, or that of the one with the same bytes."""
        return self.contents.get(content_of(own_key), own_key)

    def count(self, *states: str) -> Counter[str]:
        """Attempts in some states, by image."""
        return Counter(a["image_key"] for a in self.attempts if a["state"] in states)


def money_is_wrong(dump: LedgerDump, invoice: Sequence[Any]) -> list[str]:
    """What of the ledger does not agree with itself or with the invoice; true at every moment."""
    wrong = [
        f"the budget of {budget['cap']} counts {budget['used']}"
        for budget in dump.budgets
        if budget["used"] > budget["cap"]
    ]
    cap = sum(budget["cap"] for budget in dump.budgets)
    if len(invoice) > cap:
        wrong.append(f"the budget buys {cap}, the invoice has {len(invoice)}")
    return wrong + calls_are_wrong(dump, invoice)


def calls_are_wrong(dump: LedgerDump, invoice: Sequence[Any]) -> list[str]:
    """The same without the budgets' caps, which may be lowered."""
    wrong = []
    for budget in dump.budgets:
        charged = sum(
            a["budget"] == budget["name"] and a["state"] in {"reserved", "billed", "unknown"}
            for a in dump.attempts
        )
        if budget["used"] != charged:
            wrong.append(f"the budget counts {budget['used']}, its attempts {charged}")
    theirs = {line["request_id"] for line in invoice}
    ours = {a["request_id"] for a in dump.attempts if a["state"] == "billed"}
    if ours - theirs:
        wrong.append(f"{len(ours - theirs)} billed calls are not on the invoice")
    lost = Counter(
        dump.canonical_key(image_key(line["image_url"])) for line in invoice if line["request_id"] not in ours
    )
    explained = dump.count("reserved", "unknown")
    wrong += [f"image {key}: {n} lost charges, {explained[key]} unconfirmed" for key, n in lost.items()
              if n > explained[key]]  # fmt: skip
    for states, most in ((("billed",), 1), (("reserved", "unknown"), 2)):
        worst = max(dump.count(*states).values(), default=0)
        if worst > most:
            wrong.append(f"an image has {worst} attempts that are {' or '.join(states)}")
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
            elif path.suffix == ".html" and not path.read_text("utf-8").endswith("</html>"):
                wrong.append(f"{path.name} is not whole")
        except (ValueError, pl.exceptions.PolarsError) as error:
            wrong.append(f"{path.name} is not whole ({error})")
    current = out / "published" / "current.json"
    if current.exists():
        says = json.loads(current.read_bytes())
        approved = Path(says["path"])
        if not approved.exists():
            wrong.append("the pointer names a file that is not there")
        elif hashlib.sha256(approved.read_bytes()).hexdigest() != says["sha256"]:
            wrong.append("the pointer's hash is not that of its file")
    return wrong


@dataclass(frozen=True)
class Images:
    """What a run works on: how many images of each kind, a name, and the ``settings`` by which it does.

    ``tries``: the service fails now and then, and the money may not be enough.
    """

    kinds: Mapping[str, int]
    settings: Mapping[str, Any] = field(default_factory=dict)
    tries: bool = True


PLAIN = Images({"portrait": 36, "scenery": 5, "nobody": 3})


@dataclass
class KilledRun:
    """One job in a folder of its own, from its first start to its end: 44 images in 50 rows, or others.

    ``images``: serves the images of a run that checks faces. A segment, where it has any, is an image's kind.
    """

    folder: Path
    emulator: Emulator
    server: ForkServer
    seed: int
    faults: tuple[str, ...] = ()
    page: bool = False
    images: "ImageServer | None" = None
    listed: Images = PLAIN
    wrong: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    rows: pl.DataFrame = field(default_factory=pl.DataFrame)
    _rules_off: set[str] = field(default_factory=set)
    _starts: int = 0

    def __post_init__(self) -> None:
        rng = random.Random(self.seed)  # noqa: S311  (repeatable, nothing secret)
        origin = self.emulator.origin + "/samples/gen" if self.images is None else self.images.origin
        kinds = [kind for kind, images in self.listed.kinds.items() for _ in range(images)]
        self._urls = [f"{origin}/{kind}-{n}.jpg" for n, kind in enumerate(kinds)]
        rng.shuffle(self._urls)
        rows: list[str | None] = [*self._urls, *(f"{url}#again" for url in self._urls[:5]), "no url"]
        self._rows = len(rows)
        kind = pl.col("image_url").str.extract(r"/([a-z-]+)-[0-9]+\.").alias("kind")
        pl.DataFrame({"image_url": rows}).with_columns(kind).write_parquet(self.folder / "candidates.parquet")
        self._shard_size = rng.choice((7, 15, 50))
        self._budget = (60, 25, 44)[self.seed % 3] if self.listed.tries else 2 * self._rows
        self.emulator.reset()
        if not self.listed.tries:
            return
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
        """Whether some images have the bytes of others, and the run pays once for those."""
        return self.seed % 4 == 3

    @property
    def out(self) -> Path:
        """Where the run writes."""
        return self.folder / "out"

    @property
    def dump(self) -> LedgerDump:
        """The ledger as it is."""
        return LedgerDump.read(self.out / "ledger.sqlite3")

    @property
    def screened(self) -> set[str]:
        """The images that the run need not screen again."""
        work = self.out / "runs" / "the-run" / "work"
        return set(SpillStore(work / "screened", SCREENED_SCHEMA).read(0)["image_key"])

    def _decided(self, name: str) -> set[str]:
        """What the run has stored of its decisions: hopeless segments, rules that are off."""
        file = self.out / "runs" / "the-run" / "work" / f"{name}.json"
        return set(json.loads(file.read_bytes())) if file.exists() else set()

    @property
    def seen_in_ledger(self) -> set[str]:
        """The images whose faces no later run need see again."""
        ledger = self.out / "ledger.sqlite3"
        if self.images is None or not ledger.exists():
            return set()
        with closing(sqlite3.connect(ledger)) as db:
            if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'header_cache'").fetchone():
                return set()
            rows = db.execute("SELECT image_key FROM header_cache WHERE face_rules IS NOT NULL")
            return {key for (key,) in rows}

    @property
    def seen(self) -> set[str]:
        """The images whose faces the run need not see again."""
        work = self.out / "runs" / "the-run" / "work"
        return self.seen_in_ledger | set(SpillStore(work / "faces", faces.SCHEMA).read(0)["image_key"])

    def _decoded(self) -> Counter[str]:
        """How often each image was fetched whole."""
        whole = self.images.whole.copy() if self.images is not None else Counter[str]()
        return Counter({image_key(url): whole[urlsplit(url).path] for url in self._urls})

    def start(self, crash: Crash | None = None) -> int:
        """Run the job, perhaps to a crash; the run's id is always the same. Gives the child's end."""
        self._starts += 1
        sends = self.folder / f"sends-{self._starts}"
        report = self.folder / "report.json"
        screen_log = self.folder / f"screened-{self._starts}"
        screened, dump, seen, decoded = self.screened, self.dump, self.seen, self._decoded()
        hopeless = self._decided("hopeless")
        self._rules_off |= self._decided("rules_off")
        known = {url for url in self._urls if dump.canonical_key(image_key(url)) in dump.verdicts}
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
                "screen_log": str(screen_log),
                "report": str(report),
                "copies": self.has_copies,
                "settings": self.listed.settings or {"faces": "order" if self.images else "off"},
                "page": self.page,
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
        self.wrong += [f"sent {url}, though its verdict was known" for url in again]
        left = [line for line in sent if any(f"/{kind}-" in line for kind in hopeless)]
        self.wrong += [f"sent {url}, though it was hopeless" for url in left]
        fetched = screen_log.read_text().splitlines() if screen_log.exists() else []
        self.wrong += [f"screened {key} again" for key in fetched if key in screened or key in dump.verdicts]
        again = [key for key in seen if self._decoded()[key] > decoded[key]]
        self.wrong += [f"decoded {key} again" for key in again]
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
            self.start()
        if self.wrong:
            return
        if not self.is_finished:
            self.wrong.append("the run is not finished")
            return
        self._check_outcomes()
        self._check_faces()
        self._check_history()

    def check(self) -> None:
        """Check what holds at every moment."""
        self.wrong += money_is_wrong(self.dump, self.emulator.invoice()) + files_are_wrong(self.out)

    def _check_faces(self) -> None:
        seen, hopeless = self.rows.drop_nulls("faces_seen"), self.rows.filter(reason="hopeless")
        if not self.seen_in_ledger - {*hopeless["image_key"]} <= {*seen["image_key"]} <= self.seen_in_ledger:
            self.wrong.append("what was seen of faces is not what later runs find in the ledger")
        dropped = self.rows.filter(pl.col("reason").is_in(list(faces.BUCKET_OF)))
        for row in dropped.iter_rows(named=True):
            if row["reason"] in self._rules_off:
                self.wrong.append(f"row {row['row']} is dropped by {row['reason']}, which was switched off")
            if row["faces_seen"] != 0 or row["image_key"] in self.dump.verdicts:
                self.wrong.append(f"row {row['row']} is dropped: {row}")

    def _check_history(self) -> None:
        current = pointer.read(self.out)
        recorded = {path.name for path in (self.out / "published" / "history").iterdir()}
        if current is None or history.name_of(current) not in recorded:
            self.wrong.append("what is published is not in the history")

    def _check_outcomes(self) -> None:
        dump, run = self.dump, self.out / "runs" / "the-run"
        rows = self.rows = pl.read_parquet(run / "verdicts.parquet")
        say = self.wrong.append
        if rows["row"].to_list() != list(range(self._rows)) or rows["outcome"].null_count():
            say(f"{rows.height} rows, {rows['outcome'].null_count()} without outcome")
        if dump.count("reserved"):
            say("calls are still reserved")
        spent = dump.budgets[0]["used"] == dump.budgets[0]["cap"]
        lost = dump.count("unknown")
        for row in rows.iter_rows(named=True):
            outcome = row["outcome"]
            if outcome in {"duplicate", "screened_out"}:
                continue
            key = dump.canonical_key(row["image_key"])
            if key in dump.verdicts:
                right = outcome == dump.verdicts[key]["outcome"]
            elif outcome == "skipped":
                is_hopeless = row["reason"] == "hopeless" and row["kind"] == HOPELESS
                right = is_hopeless or (spent and row["reason"] == "budget_exhausted")
            else:
                right = outcome == "error" or (outcome == "unknown" and lost[key] > 0)
            if not right:
                say(f"row {row['row']} is {outcome}, {row['reason']}; lost: {lost[key]}, spent: {spent}")
        charged = sum(dump.count("billed", "unknown").values())
        if round(rows["run_cost_usd"].sum() / PRICE_USD, 6) != charged:
            say(f"the rows cost {rows['run_cost_usd'].sum()}, {charged} calls were charged")
        passed = rows.filter(outcome="passed").height
        published = json.loads((self.out / "published" / "current.json").read_bytes())
        if published["rows"] != passed or passed != sum(
            verdict["outcome"] == "passed" for verdict in dump.verdicts.values()
        ):
            say(f"{passed} passed, {published['rows']} published")


class CrashRunner:
    """Does many crashes, some at once, each on a fork server and an emulator that it has for itself."""

    def __init__(
        self, workers: int = 2, images: "type[ImageServer] | None" = None, listed: Images = PLAIN
    ) -> None:
        self.listed = listed
        self._pool = ThreadPoolExecutor(workers)
        self._free: SimpleQueue[tuple[Emulator, ForkServer, Any]] = SimpleQueue()
        self._held: list[Any] = []
        for _ in range(workers):
            options = EmulatorOptions(limit=None, fetch_images=False, latency_s=0.002, jitter_s=0.004)
            emulator, server = Emulator(options).start(), ForkServer("crash_child").__enter__()
            host = images().__enter__() if images is not None else None
            self._held += [(emulator, server, host)]
            self._free.put((emulator, server, host))

    def close(self) -> None:
        """End what was started."""
        self._pool.shutdown(cancel_futures=True)
        for emulator, server, host in self._held:
            server.__exit__(None, None, None)
            emulator.close()
            if host is not None:
                host.__exit__(None, None, None)

    def submit(self, *crashes: Crash, seed: int = 0, faults: Sequence[str] = ()) -> Any:
        """A future of a run that crashes so, one crash after the other, and is then continued."""
        return self._pool.submit(self._run, crashes, seed, tuple(faults))

    def _run(self, crashes: Sequence[Crash], seed: int, faults: tuple[str, ...]) -> KilledRun:
        emulator, server, host = free = self._free.get()
        try:
            with tempfile.TemporaryDirectory(prefix="s2v-crash-") as folder:
                run = KilledRun(Path(folder), emulator, server, seed, faults, images=host, listed=self.listed)
                for crash in crashes:
                    if not run.is_finished:
                        run.start(crash)
                run.end()
                return run
        finally:
            self._free.put(free)
