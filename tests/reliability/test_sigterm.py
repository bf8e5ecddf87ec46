"""SIGTERM at every stage of a run, with one and with two curations in the process.

A long run, ``pytest --runslow -s tests/reliability/test_sigterm.py``; it prints a line for each case.
"""

import select
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from workbench import Bench, ended, set_rate, wait_until

from s2v_tasks import Emulator, EmulatorOptions

ENDS_WITHIN_S = 25.0
ARRIVES_WITHIN_S = 1.0
"""A call that was sent before the signal has reached the service by then."""
IMAGES = 40
TWO = """
import asyncio, sys
from s2v_tasks import Advanced, Screening, curate

async def main():
    list_, ledger, *outs = sys.argv[1:]
    await asyncio.gather(*(
        curate(list_, out, budget_usd=10.0, screening=Screening(allow_private_hosts=True),
               advanced=Advanced(ledger=ledger, account=out))
        for out in outs
    ), return_exceptions=True)

asyncio.run(main())
"""


@dataclass(frozen=True)
class Stage:
    """When the signal comes: as soon as ``reached`` is true."""

    reached: Callable[[Bench], object]
    options: EmulatorOptions
    faults: tuple[str, ...] = ()
    silent_hosts: bool = False


def opened(bench: Bench) -> object:
    """The ledger has a run."""
    ledger = bench.folder / "ledger.sqlite3"
    return ledger.exists() and count(ledger, "SELECT count(*) FROM runs")


STAGES = {
    "importing": Stage(lambda _: True, EmulatorOptions()),
    "opening": Stage(opened, EmulatorOptions()),
    "slow hosts": Stage(opened, EmulatorOptions(), silent_hosts=True),
    "checking": Stage(lambda bench: bench.received() >= 3, EmulatorOptions()),
    "awaiting responses": Stage(lambda bench: bench.received() >= 3, EmulatorOptions(latency_s=20.0)),
    "after errors": Stage(
        lambda bench: bench.received() >= 3, EmulatorOptions(), faults=("InternalError:rate=1",)
    ),
    "ending": Stage(lambda bench: len(bench.billed_urls()) >= IMAGES, EmulatorOptions(limit=None)),
}


def count(ledger: Path, query: str) -> int:
    """A number from the ledger; 0 as long as it has no such table."""
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as db:
        try:
            return int(db.execute(query).fetchone()[0])
        except sqlite3.OperationalError:
            return 0


@contextmanager
def silent_host() -> Iterator[tuple[str, Callable[[], object]]]:
    """A host that takes connections and never responds, and whether it was connected to."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as server:
        connected = [server]
        yield (
            f"http://127.0.0.1:{server.getsockname()[1]}",
            lambda: select.select(connected, [], [], 0)[0],
        )


CASES = [
    pytest.param(
        stage, curations, id=f"{name}, {curations}",
        marks=pytest.mark.ci if (name, curations) == ("opening", 2) else pytest.mark.slow,
    )
    for name, stage in STAGES.items()
    for curations in (1, 2)
]  # fmt: skip


@pytest.mark.parametrize(("stage", "curations"), CASES)
def test_a_signal_ends_the_process_in_time_and_nothing_is_sent_after_it(
    stage: Stage, curations: int, tmp_path: Path, prefect_api: str, request: pytest.FixtureRequest
) -> None:
    """Within 25 s; what the service billed is in the ledger, confirmed or counted as unknown."""
    with Emulator(stage.options) as emulator, silent_host() as (silent, connected):
        emulator.set_faults(list(stage.faults))
        ledger = tmp_path / "ledger.sqlite3"
        bench = Bench(tmp_path, emulator, {"S2V_LEDGER_URL": f"sqlite:///{ledger}"})
        set_rate(5 if emulator.options.limit else 200)
        urls = bench.portraits(IMAGES)
        candidates = bench.candidates(
            [f"{silent}/{n}.jpg" for n in range(IMAGES)] if stage.silent_hosts else urls
        )
        process = start(bench, candidates, curations)
        wait_until(connected if stage.silent_hosts else lambda: stage.reached(bench), every_s=0.05)
        process.send_signal(signal.SIGTERM)
        began_s = time.monotonic()
        time.sleep(ARRIVES_WITHIN_S)
        sent = bench.received()
        ran = ended(process, 120)
        seconds = time.monotonic() - began_s
        billed = len(bench.billed_urls())
        assert bench.received() == sent
    confirmed = (
        count(ledger, "SELECT count(*) FROM attempts WHERE state = 'billed'") if ledger.exists() else 0
    )
    unsure = (
        count(ledger, "SELECT count(*) FROM attempts WHERE state IN ('unknown', 'reserved')")
        if ledger.exists()
        else 0
    )
    print(  # noqa: T201
        f"\n{request.node.callspec.id:24} status {ran.status:3}  ended after {seconds:4.1f} s"
        f"  received {sent:2}  billed {billed:2}  ledger: billed {confirmed:2}, unknown {unsure:2}"
    )
    assert seconds < ENDS_WITHIN_S
    assert confirmed <= billed <= confirmed + unsure
    assert "Traceback" not in ran.err or curations == 2


def start(bench: Bench, candidates: str, curations: int) -> "subprocess.Popen[str]":
    """The command, or two curations in a process, each of an account of its own."""
    if curations == 1:
        return bench.start(*bench.curating(candidates))
    ledger = bench.env["S2V_LEDGER_URL"]
    outs = [str(bench.folder / name) for name in ("a", "b")]
    return subprocess.Popen(
        [sys.executable, "-c", TWO, candidates, ledger, *outs], cwd=bench.folder, env=bench.env,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
