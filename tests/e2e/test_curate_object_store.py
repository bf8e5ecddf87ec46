"""A whole run into a real object store: the same guarantees as on this machine, and nothing secret in it."""

import hashlib
import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import obstore
import polars as pl
import pytest
from object_store import SECRET, client, running
from workbench import PRICE_USD, Bench, Ran, ended, ledger_ids, set_rate, wait_until

from s2v_tasks import Emulator, EmulatorOptions

pytestmark = pytest.mark.ci


@pytest.fixture
def ledger(bench: Bench, object_store: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The ledger's file; commands of this bench, here and in processes of their own, reach the store."""
    path = bench.folder / "ledger.sqlite3"
    variables = {**object_store, "S2V_LEDGER_URL": f"sqlite:///{path}"}
    bench.env |= variables
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return path


class Bucket:
    """What is in the store below a folder."""

    def __init__(self, env: dict[str, str], folder: str) -> None:
        self.url, self._folder, self._store = f"s3://bucket/{folder}", folder, client(env)

    def names(self) -> list[str]:
        """Every object, by its name below the folder."""
        listed = obstore.list(self._store, f"{self._folder}/").collect()
        return sorted(meta["path"].removeprefix(f"{self._folder}/") for meta in listed)

    def read(self, name: str) -> bytes:
        """An object's content."""
        return bytes(obstore.get(self._store, f"{self._folder}/{name}").bytes())

    def load(self, name: str) -> dict[str, Any]:
        """A JSON object."""
        return json.loads(self.read(name))

    def frame(self, name: str) -> pl.DataFrame:
        """A parquet object."""
        return pl.read_parquet(self.read(name))


@pytest.fixture
def bucket(object_store: dict[str, str], request: pytest.FixtureRequest) -> Bucket:
    """A folder of the test's own in the store."""
    return Bucket(object_store, f"{request.node.name} [1]")


def run_id_of(ran: Ran) -> str:
    """The run that the command printed."""
    (line,) = [line for line in ran.out.splitlines() if line.startswith("verdicts")]
    return line.split("/runs/")[1].split("/")[0]


def test_a_run_is_written_to_a_store_and_evaluated_there_again(
    in_process: Bench, ledger: Path, command: Callable[..., Ran], bucket: Bucket
) -> None:
    """Every file, the pointer with its URL; a closed gate leaves the pointer, and is opened in the store."""
    bench = in_process
    bench.always = ()
    name = bench.candidates(bench.portraits(4))
    obstore.put(client(bench.env), "lists/good.parquet", Path(name))
    good = command(*bench.curating("s3://bucket/lists/good.parquet", "--data-docs", out=bucket.url))
    assert good.status == 0, good.err
    run = f"runs/{run_id_of(good)}"
    assert len([name for name in bucket.names() if name.startswith("published/history/")]) == 1
    names = {name for name in bucket.names() if not name.startswith("published/history/")}
    assert {name for name in names if "/data_docs/" not in name} == {
        ".run-numbers/00000001",
        "published/current.json",
        *(f"{run}/{name}" for name in ("approved.parquet", "gate.json", "manifest.json", "verdicts.parquet")),
        f"{run}/report.html",
        f"{run}/thumbnails.parquet",
    }
    assert bucket.frame(f"{run}/thumbnails.parquet")["thumbnail"].null_count() == 0
    assert f"{run}/data_docs/index.html" in bucket.names()
    pointer, manifest = bucket.load("published/current.json"), bucket.load(f"{run}/manifest.json")
    approved = bucket.read(f"{run}/approved.parquet")
    assert pointer["path"] == f"{bucket.url}/{run}/approved.parquet"
    assert pointer["sha256"] == manifest["files"]["approved.parquet"] == hashlib.sha256(approved).hexdigest()
    assert (pointer["rows"], manifest["status"]) == (4, "published")
    assert bucket.frame(f"{run}/verdicts.parquet")["outcome"].to_list() == ["passed"] * 4
    assert ledger_ids(ledger) == bench.billed_ids()
    assert f"pointer    {bucket.url}/published/current.json" in good.out

    published = bucket.read("published/current.json")
    urls = [bench.url(0), *(bench.url(n, "crowd") for n in range(1, 4))]
    closing = bench.curating(bench.candidates(urls), "--min-pass-rate", 0.9, out=bucket.url)
    bad = command(*closing)
    assert bad.status == 3, bad.err
    assert bucket.read("published/current.json") == published
    bad_run = f"runs/{run_id_of(bad)}"
    first = bucket.read(f"{bad_run}/gate.json")
    calls = bench.received()
    opened = command("gate", f"{bucket.url}/{bad_run}", "--min-pass-rate", 0.1, "--publish")
    assert opened.status == 0, opened.err
    assert bucket.load("published/current.json")["run_id"] == run_id_of(bad)
    assert bucket.read(f"{bad_run}/gate.json") == first
    assert [n for n in bucket.names() if n.startswith(f"{bad_run}/gate-")]
    assert bench.received() == calls

    back = command("gate", f"{bucket.url}/{run}", "--publish")
    assert "started later" in back.out, back.err
    assert bucket.load("published/current.json")["run_id"] == run_id_of(bad)

    texts = b"".join(bucket.read(n) for n in bucket.names() if n.endswith((".json", ".html")))
    assert SECRET.encode() not in texts
    assert SECRET not in good.out + good.err + bad.out + bad.err + opened.out


def test_a_run_that_is_killed_continues_from_the_store(
    in_process: Bench,
    ledger: Path,
    command: Callable[..., Ran],
    bucket: Bucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After kill -9 the same command goes on with the rows in the store; no image is sent twice."""
    count, rate_per_s, latency_s = 80, 25, 0.3
    with Emulator(EmulatorOptions(limit=None, latency_s=latency_s)) as slow:
        env = {name: value for name, value in in_process.env.items() if name.startswith(("AWS_", "S2V_"))}
        bench = Bench(tmp_path, slow, env)
        set_rate(rate_per_s)
        candidates = bench.candidates(bench.portraits(count))
        arguments = bench.curating(candidates, "--budget-usd", 2 * count * PRICE_USD, out=bucket.url)
        first = bench.start(*arguments)
        wait_until(lambda: ledger.exists() and len(bench.billed_urls()) >= 15)
        os.killpg(first.pid, signal.SIGKILL)
        ended(first)
        kept = ledger_ids(ledger)
        (name,) = [name for name in bucket.names() if name.endswith("manifest.json")]
        run = name.removesuffix("/manifest.json")
        assert bucket.load(name)["status"] == "running"
        assert bucket.names() == [".run-numbers/00000001", name, f"{run}/work/rows.parquet"]

        monkeypatch.setenv("DASHSCOPE_HTTP_BASE_URL", slow.base_url)
        second = command(*arguments)
        assert second.status == 0, second.err
        assert f"continuing run {run_id_of(second)}" in second.err
        assert run == f"runs/{run_id_of(second)}"
        invoice = bench.emulator.invoice()

    rows = bucket.frame(f"{run}/verdicts.parquet")
    assert set(rows["outcome"]) == {"passed"}
    assert rows.height == count
    billed = Counter(line["image_url"] for line in invoice)
    assert all(billed[line["image_url"]] == 1 for line in invoice if line["request_id"] in kept)
    assert max(billed.values()) <= 2
    assert ledger_ids(ledger) == set(rows["request_id"])
    assert bucket.load("published/current.json")["rows"] == count
    assert not [name for name in bucket.names() if "/work/" in name]


@pytest.mark.slow
def test_a_store_that_goes_away_stops_the_run_and_the_same_command_continues(
    bench: Bench, tmp_path: Path
) -> None:
    """Status 1 and one line; every response is in the ledger, and nothing is sent again once it is back."""
    count, folder = 30, tmp_path / "store"
    folder.mkdir()
    set_rate(10)
    ledger, candidates = bench.folder / "ledger.sqlite3", bench.candidates(bench.portraits(count))
    arguments = bench.curating(candidates, out="s3://bucket/out")
    with running(folder) as env:
        bench.env |= {**env, "S2V_LEDGER_URL": f"sqlite:///{ledger}"}
        process = bench.start(*arguments)
        wait_until(lambda: len(bench.billed_urls()) >= 5)
    stopped = ended(process)
    assert stopped.status == 1, stopped.err
    assert "can't be used" in stopped.err.splitlines()[-1]
    assert "Traceback" not in stopped.err
    assert ledger_ids(ledger) == bench.billed_ids()
    with running(folder):
        finished = bench.run(*arguments)
        assert finished.status == 0, finished.err
        assert "continuing run" in finished.err
        assert Bucket(env, "out").load("published/current.json")["rows"] == count
    assert len(bench.billed_urls()) == len(set(bench.billed_urls())) == count
    assert ledger_ids(ledger) == bench.billed_ids()


def test_a_store_needs_a_ledger_and_rights_before_anything_is_sent(
    in_process: Bench, ledger: Path, command: Callable[..., Ran], bucket: Bucket
) -> None:
    """No ledger, no bucket, no such object, a server that is away: one line, status 2, nothing paid."""
    bench = in_process
    candidates = bench.candidates(bench.portraits(1))
    os.environ["S2V_LEDGER_URL"] = ""
    no_ledger = command(*bench.curating(candidates, out=bucket.url))
    assert no_ledger.status == 2
    assert "--ledger or S2V_LEDGER_URL" in no_ledger.err
    os.environ["S2V_LEDGER_URL"] = f"sqlite:///{ledger}"
    for arguments, message in (
        (bench.curating(candidates, out="s3://"), "s3://BUCKET/PATH"),
        (bench.curating("s3://bucket/nothing.parquet", out=bucket.url), "no such file"),
        (bench.curating("s3://key:hunter2@bucket/x.parquet", out=bucket.url), "environment"),
        (["gate", f"{bucket.url}/runs/none"], "no run's folder"),
    ):
        refused = command(*arguments)
        assert refused.status == 2, refused.err
        assert message in refused.err.splitlines()[-1]
        assert "hunter2" not in refused.err
    away = bench.run(*bench.curating(candidates, out=bucket.url), AWS_ENDPOINT_URL="http://127.0.0.1:9")
    assert away.status == 2, away.err
    assert "can't be used" in away.err.splitlines()[-1]
    assert bucket.names() == []
    assert bench.received() == 0
