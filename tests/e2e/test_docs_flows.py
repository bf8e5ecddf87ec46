"""docs/guides/flows.md: its commands are run; its examples are in test_examples.py."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from workbench import Bench, Ran

pytestmark = pytest.mark.ci

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "flows.md").read_text("utf-8")
ESTIMATE = "s2v estimate portraits.parquet --ledger sqlite:///$HOME/s2v.sqlite3 --budget-usd 5"
APPROVAL = "s2v curate portraits.parquet --out curated --budget-usd 5 --approve-above-usd 2"


def test_every_command_of_the_page_is_run_here() -> None:
    """A command that is added to the page must be added here, or this fails."""
    blocks = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert [line for block in blocks for line in block.splitlines()] == [ESTIMATE, APPROVAL]


def test_the_commands_of_the_page_work_as_written(in_process: Bench, command: Callable[..., Ran]) -> None:
    """An estimate without a ledger yet, and a run that is cheap enough (loopback needs one option more)."""
    Path(in_process.candidates(in_process.portraits(3))).rename(Path.cwd() / "portraits.parquet")
    for line in (ESTIMATE, APPROVAL):
        ran = command(*shlex.split(line.replace("$HOME", str(Path.cwd())))[1:], "--allow-private-hosts")
        assert ran.status == 0, ran.err
    assert "published 3 approved images" in ran.out
