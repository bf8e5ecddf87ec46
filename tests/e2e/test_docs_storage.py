"""docs/guides/storage.md: its commands are run, with a database and an object store on loopback."""

import os
import re
import shlex
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import obstore
import polars as pl
import pytest
from object_store import client
from workbench import Bench, Ran

pytestmark = pytest.mark.ci

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "storage.md").read_text("utf-8")
QUERYING = [
    "export S2V_SOURCE_URL=postgresql://reader@db.internal/catalogue",
    (
        's2v curate --query "SELECT id, image_url FROM images WHERE licensed ORDER BY id" --out curated'
        " --budget-usd 5"
    ),
]
SAMPLING = (
    "s2v curate parts/ --url-column image.url --sample 20 --seed 7 --segment-column source --out sampled"
    " --budget-usd 1"
)
STORING = [
    "export S2V_LEDGER_URL=postgresql://s2v@db.internal/ledger",
    "s2v curate s3://lists/portraits/ --out s3://curated/portraits --budget-usd 5",
    "s2v gate s3://curated/portraits/runs/<run_id> --min-pass-rate 0.4 --publish",
]


def test_every_command_of_the_page_is_run_here() -> None:
    """A command that is added to the page must be added here, or this fails."""
    blocks = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert [line for block in blocks for line in block.splitlines()] == [*QUERYING, SAMPLING, *STORING]


def test_the_commands_of_the_page_work_as_written(
    in_process: Bench, command: Callable[..., Ran], object_store: dict[str, str]
) -> None:
    """A query, a sample of a folder, a store from list to publication; the ledger is one file for all."""

    def run(line: str) -> str:
        """Run a line (images on loopback need one option more)."""
        options = ["--allow-private-hosts"] if line.startswith("s2v curate") else []
        ran = command(*shlex.split(line)[1:], *options)
        assert ran.status == 0, ran.err
        return ran.out

    folder, urls = Path.cwd(), in_process.portraits(30)
    os.environ |= {
        **object_store,
        "S2V_SOURCE_URL": f"sqlite:///{folder / 'catalogue.db'}",
        "S2V_LEDGER_URL": f"sqlite:///{folder / 'ledger.sqlite3'}",
    }
    with closing(sqlite3.connect("catalogue.db")) as db, db:
        db.execute("CREATE TABLE images (id INTEGER, image_url TEXT, licensed BOOLEAN)")
        db.executemany("INSERT INTO images VALUES (?, ?, ?)", [(n, u, n < 10) for n, u in enumerate(urls)])
    db.close()
    assert re.search(r"candidates\s+10\b", run(QUERYING[1]))

    Path("parts").mkdir()
    parts = pl.DataFrame({"image": [{"url": url} for url in urls], "source": ["a", "b", "b"] * 10})
    parts.write_parquet("parts/0.parquet")
    assert re.search(r"candidates\s+20\b", run(SAMPLING))

    list_ = in_process.candidates(urls[:5], "0.parquet")
    obstore.put(client(object_store, "lists"), "portraits/0.parquet", Path(list_))
    obstore.put(client(object_store, "curated"), "there", b"")
    run_id = re.search(r"s3://curated/portraits/runs/([^/]+)/verdicts", run(STORING[1]))
    assert run_id is not None
    assert "Published" in run(STORING[2].replace("<run_id>", run_id[1]))
