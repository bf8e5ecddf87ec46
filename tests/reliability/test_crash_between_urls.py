"""A run that tries the URLs of an image one after the other, killed between the tries and continued."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from crash_bench import KILLED, LedgerDump, money_is_wrong
from fork_server import ForkServer

from s2v_tasks.domain.image_url import image_key
from s2v_tasks.emulator import Emulator, EmulatorOptions

STEPS = [
    *(("call:responded", n) for n in (1, 2, 3)),
    *(("ledger:settle:committed", n) for n in (1, 2, 3)),
    ("call:leaving", 3),
    ("ledger:reserve:committed", 3),
    ("scratch:skipped:appending", 1),
]
DEFAULT = [("scratch:skipped:appending", 1), ("call:leaving", 3), ("ledger:settle:committed", 3)]


@pytest.fixture(scope="module")
def workshop() -> Iterator[tuple[Emulator, ForkServer]]:
    with (
        Emulator(EmulatorOptions(limit=None, fetch_images=False)) as emulator,
        ForkServer("crash_child") as server,
    ):
        yield emulator, server


@pytest.mark.ci
@pytest.mark.parametrize(
    ("step", "occurrence"),
    [pytest.param(*step, marks=() if step in DEFAULT else pytest.mark.ci) for step in STEPS],
)
def test_a_run_killed_between_two_urls_pays_once_and_approves_the_one_that_worked(
    tmp_path: Path, workshop: tuple[Emulator, ForkServer], step: str, occurrence: int
) -> None:
    """The newest URL can't be fetched; killed before or after each of its calls, and those of the next."""
    emulator, server = workshop
    emulator.reset()
    emulator.set_faults(["InvalidURL.Timeout:match=expired"])
    urls = [
        f"{emulator.origin}/samples/gen/portrait-1.jpg?X-Amz-Date=1&X-Amz-Signature={n}"
        for n in ("fresh", "expired")
    ]
    pl.DataFrame({"image_url": urls}).write_parquet(tmp_path / "candidates.parquet")
    job: dict[str, Any] = {
        "module": "crash_child",
        "candidates": str(tmp_path / "candidates.parquet"),
        "out": str(tmp_path / "out"),
        "base_url": emulator.base_url,
        "budget_usd": 1.0,
        "shard_size": 10,
        "run_id": "the-run",
        "screen_log": str(tmp_path / "screen_log"),
        "report": str(tmp_path / "report.json"),
        "copies": False,
        "settings": {},
        "page": False,
    }
    lives = [{"step": step, "occurrence": occurrence}, {"step": None, "occurrence": 0}]
    ends, sent = [], []
    for n, life in enumerate(lives):
        log, sends = tmp_path / f"log-{n}", tmp_path / f"sends-{n}"
        (end,) = server.run({**job, **life, "log": str(log), "sends": str(sends)})
        ends.append(end)
        sent.append([json.loads(line)["input"]["image_url"] for line in sends.read_text().splitlines()])
        assert end in (0, KILLED), log.read_text()
        assert money_is_wrong(LedgerDump.read(tmp_path / "out" / "ledger.sqlite3"), emulator.invoice()) == []
    assert ends == [KILLED, 0]
    billed = [line["image_url"] for line in emulator.invoice()]
    assert len(billed) == 1 + (
        step == "call:responded" and occurrence == 3
    )  # received, never stored: sent again
    assert set(billed) == {urls[0]}
    if urls[0] in sent[0]:  # how far the run was is known before the next URL is sent
        assert urls[1] not in sent[1]
    verdicts = pl.read_parquet(tmp_path / "out" / "runs" / "the-run" / "verdicts.parquet")
    assert verdicts["image_key"].to_list() == [image_key(urls[0])] * 2
    assert verdicts.select("outcome", "duplicate_of").rows() == [("passed", None), ("duplicate", 0)]
    approved = pl.read_parquet(tmp_path / "out" / "runs" / "the-run" / "approved.parquet")
    assert approved["image_url"].to_list() == urls[:1]
