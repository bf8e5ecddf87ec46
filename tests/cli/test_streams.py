"""What a command came to does not depend on who reads its output, or in which encoding."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database.ledger import Ledger


def shell(line: str, folder: Path, **env: str) -> "subprocess.CompletedProcess[bytes]":
    """Run a line in which ``s2v`` is the command; the status is that of the command, also in a pipe."""
    command = f'set -o pipefail; s2v() {{ "{sys.executable}" -P -m s2v_tasks "$@"; }}; {line}'
    return subprocess.run(["bash", "-c", command], cwd=folder, env={**os.environ, **env}, capture_output=True)


@pytest.mark.parametrize(
    "line",
    [
        "s2v --help | true",
        "s2v --version | true",
        "s2v gate nowhere 2>&1 | true; test ${PIPESTATUS[0]} = 2",
        "s2v --version >&-",
        "s2v --version >&- 2>&-",
        "s2v --version >/dev/full",
        "s2v gate nowhere 2>/dev/full; test $? = 2",
    ],
)
def test_a_stream_without_a_reader_changes_no_exit_status(tmp_path: Path, line: str) -> None:
    """A reader that has left, a closed stream, a full disk."""
    ran = shell(line, tmp_path)
    assert (ran.returncode, b"defect" in ran.stderr, b"Traceback" in ran.stderr) == (0, False, False)


def test_an_interrupted_import_ends_with_1(tmp_path: Path) -> None:
    """Also in code that a library makes of a string, as dataclasses do: Python would end itself by SIGINT."""
    (tmp_path / "polars.py").write_text('exec("raise KeyboardInterrupt")')
    ran = shell("s2v rows nowhere", tmp_path, PYTHONPATH=str(tmp_path))
    assert (ran.returncode, ran.stderr) == (1, b"s2v: interrupted; the same command continues\n")


def test_a_character_that_the_terminal_lacks_is_escaped(tmp_path: Path) -> None:
    """A refusal keeps its status and its message, in any encoding; a name that is no text too."""
    for name, message in (
        ("\u4eba.parquet", b"no such file: \\u"),
        (os.fsdecode(b"\xe9.parquet"), b"--candidates"),
    ):
        ran = shell(f"s2v curate '{name}' --out o --budget-usd 1", tmp_path, DASHSCOPE_API_KEY="k",
                    PYTHONIOENCODING="latin-1:strict")  # fmt: skip
        assert ran.returncode == 2
        assert ran.stderr.startswith(b"s2v: " + message)


async def test_a_report_that_is_lost_is_a_failure(tmp_path: Path) -> None:
    """``s2v ledger show`` has no other effect: on a full disk it fails; into ``head`` it does not."""
    url = f"sqlite:///{tmp_path}/ledger.sqlite3"
    async with Ledger(url, SystemClock()):
        pass
    full = shell(f"s2v ledger show --ledger {url} >/dev/full", tmp_path)
    assert (full.returncode, full.stderr.splitlines()) == (
        1, [b"s2v: the output can't be written: No space left on device"],
    )  # fmt: skip
    assert shell(f"s2v ledger show --ledger {url} | true", tmp_path).returncode == 0


ENDLESS = """
import sys, threading
from s2v_tasks.cli.app import end_within
threading._register_atexit(threading.Event().wait)
end_within(0.2, 3)
"""


def test_the_exit_is_bounded(tmp_path: Path) -> None:
    """Prefect sends its last logs at the exit, to a server that may be gone for good."""
    ran = subprocess.run([sys.executable, "-c", ENDLESS], cwd=tmp_path, timeout=60)
    assert ran.returncode == 3
