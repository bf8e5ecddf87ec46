"""``--json``: one object on standard output and nothing else, whatever the end; it follows its schema."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import jsonschema
import made_run
import polars as pl
import pytest
from made_run import row

from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database.ledger import Ledger
from s2v_tasks.adapters.storage.run_folder import open_run_folder
from s2v_tasks.cli import result
from s2v_tasks.cli.result import ENDS, Result
from s2v_tasks.errors import S2VError

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "result.schema.json"
SCHEMA = json.loads(PAGE.read_text("utf-8"))
ERRORS = [*result.errors(S2VError)]
S2V = Callable[..., tuple[int, str, str]]
KEY = "sk-0123456789abcdef0123456789abcdef"


def read(out: str | bytes) -> dict[str, Any]:
    """The object, which is all of the output."""
    (line,) = out.splitlines()
    found = json.loads(line)
    jsonschema.validate(found, SCHEMA)
    return found


def test_the_published_schema_is_the_code_s() -> None:
    """It is generated: ``python -m s2v_tasks.cli.reference result > docs/reference/result.schema.json``."""
    assert result.schema() == SCHEMA


def test_each_kind_of_end_is_one_error_s_or_none() -> None:
    """A new error needs a kind of its own, which the schema then lists."""
    declared = [vars(error)["kind"] for error in ERRORS]
    assert len({*declared, *ENDS}) == len(declared) + len(ENDS)
    assert SCHEMA["properties"]["kind"]["enum"] == [*ENDS, *declared]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.kind)
def test_an_error_gives_the_kind_of_its_class(error: type[S2VError]) -> None:
    """Kind, status and whether a retry helps are the class's."""
    ended = Result(verb="curate")
    ended.ended(error("what happened; what to do"))
    found = read(ended.rendered(error.exit_status))
    assert (found["kind"], found["exit_status"], found["retryable"], found["published"]) == (
        error.kind, error.exit_status, error.retryable, False,
    )  # fmt: skip


def test_a_failure_that_no_verb_explained_is_no_success() -> None:
    """A status without an error is the kind of a defect."""
    assert read(Result().rendered(1))["kind"] == S2VError.kind


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two runs, a ledger, an invoice and candidates; no key, no ledger in the environment."""
    for name in [n for n in os.environ if n.startswith(("S2V_", "DASHSCOPE_"))]:
        monkeypatch.delenv(name)
    rows = made_run.verdicts(
        row("a.example", None, "passed", 1, image_url="https://a.example/1.jpg?Signature=sesame"),
        row("a.example", None, "failed", 1, reason="no_human"),
    )
    for number, name in enumerate(("one", "two"), 1):
        made_run.made(tmp_path / "out", name, rows, number)
    pl.DataFrame({"image_url": ["https://a.example/1.jpg"]}).write_parquet(tmp_path / "c.parquet")
    (tmp_path / "invoice.csv").write_text("request_id\nnot-ours\n")
    with closing(sqlite3.connect(tmp_path / "other.db")) as other, other:
        other.execute("CREATE TABLE albums (title TEXT)")
    return tmp_path


@pytest.fixture
async def ledger(folder: Path) -> str:
    """The URL of an empty ledger in that folder."""
    url = f"sqlite:///{folder}/ledger.sqlite3"
    async with Ledger(url, SystemClock()):
        pass
    return url


CURATE = ("curate", "c.parquet", "--out", "o", "--budget-usd", "1")
ENDED: list[tuple[tuple[str, ...], int, str]] = [
    ((), 2, "usage"),
    (("nonsense",), 2, "usage"),
    (("gate",), 2, "usage"),
    (("gate", "--nonsense"), 2, "usage"),
    (("gate", "nowhere"), 2, "usage"),
    (("emulator",), 2, "usage"),
    ((*CURATE[:-1], "much"), 2, "usage"),
    ((*CURATE, "--min-pass-rate", "7"), 2, "usage"),
    ((*CURATE, "--run-id", "r", "--new-run"), 2, "usage"),
    (CURATE, 2, "usage"),
    (("estimate", "nothing.parquet"), 2, "bad_input"),
    (("estimate", "c.parquet", "--no-screen"), 0, "done"),
    (("rows", "out/runs/one"), 0, "done"),
    (("rows", "out/runs/one", "--reason", "none"), 0, "done"),
    (("rows", "out/runs/one", "--to", "rows.csv"), 0, "done"),
    (("compare", "one", "two", "--out", "out"), 0, "done"),
    (("ledger", "show", "--ledger", "LEDGER"), 0, "done"),
    (("ledger", "upgrade", "--ledger", "LEDGER"), 0, "done"),
    (("ledger", "export", "all.parquet", "--ledger", "LEDGER"), 0, "done"),
    (("ledger", "reconcile", "invoice.csv", "--ledger", "LEDGER"), 5, "data_integrity"),
    (("ledger", "revoke", "--code", "x", "--ledger", "LEDGER"), 2, "usage"),
    (("ledger", "show", "--ledger", "sqlite:///none.db"), 2, "ledger_not_found"),
    (("ledger", "show", "--ledger", "sqlite:///other.db"), 2, "ledger_refused"),
    (("ledger", "show", "--ledger", "postgresql://127.0.0.1:1/x"), 2, "usage"),
    (("--help",), 0, "done"),
    (("--version",), 0, "done"),
    (("curate", "--help"), 0, "done"),
    (("curate", "--schema"), 0, "done"),
    (("gate", "nowhere", "--debug"), 2, "usage"),
]


@pytest.mark.parametrize(
    ("arguments", "status", "kind"),
    ENDED,
    ids=lambda given: " ".join(given) if isinstance(given, tuple) else str(given),
)
def test_every_end_is_one_object(
    s2v: S2V, ledger: str, arguments: tuple[str, ...], status: int, kind: str
) -> None:
    """Usage errors of the parser too; what a person would read is on standard error."""
    ended, out, err = s2v(*(ledger if one == "LEDGER" else one for one in arguments), "--json")
    found = read(out)
    assert (ended, found["exit_status"], found["kind"]) == (status, status, kind), err
    assert found["retryable"] == (status == 1)
    assert not found["published"]
    if status:
        assert found["message"]
    assert "sesame" not in out


def test_what_a_verb_reports_is_in_the_object(s2v: S2V, folder: Path) -> None:
    """Rows without query strings, numbers as numbers."""
    found = read(s2v("rows", "out/runs/one", "--json", "--columns", "row,image_url,attempts")[1])
    assert found["rows"] == [
        {"row": 0, "image_url": "https://a.example/1.jpg?...", "attempts": 1},
        {"row": 1, "image_url": "https://a.example/1.jpg", "attempts": 1},
    ]
    estimate = read(s2v("estimate", "c.parquet", "--no-screen", "--json")[1])["estimate"]
    assert (estimate["rows"], estimate["paid"], estimate["is_short"]) == (1, [1, 1], False)
    comparison = read(s2v("compare", "out/runs/one", "out/runs/two", "--json")[1])["comparison"]
    assert (comparison["a"]["run_id"], comparison["b"]["funnel"]["passed"]) == ("one", 1)


def test_the_figures_of_a_face_check_stand_beside_the_counts(folder: Path) -> None:
    """As the run's manifest has them; whole numbers stay whole, and a run without one has null."""
    figures = {"dropped": 4, "no_face": 4, "missed_share_upper": 0.04, "max_missed_share": 0.05}
    checked, plain = (open_run_folder(folder / "out" / "runs" / name) for name in ("one", "two"))
    checked.write(checked.read().model_copy(update={"counts": {"passed": 1}, "face_check": figures}))
    for run, wanted in ((checked, figures), (plain, None)):
        ended = Result(verb="gate")
        ended.opened(run.path)
        line = ended.rendered(0)
        assert read(line)["face_check"] == wanted
    assert '"dropped": 4,' in Result(verb="gate", run_dir=str(checked.path)).rendered(0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("DASHSCOPE_HTTP_BASE_URL", "nonsense"), ("S2V_CONTACT", "("), ("S2V_LEDGER_URL", "mysql://x")],
)
def test_a_broken_configuration_is_one_object(
    s2v: S2V, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """Exit 2, with the line of standard error as the message."""
    monkeypatch.setenv("DASHSCOPE_API_KEY", KEY)
    monkeypatch.setenv(name, value)
    status, out, err = s2v(*CURATE, "--json")
    found = read(out)
    assert (status, found["exit_status"]) == (2, 2)
    assert err.splitlines()[-1] == f"s2v: {found['message']}"


@pytest.mark.parametrize(
    "secret",
    ["https://a.example/1.jpg?Signature=sesame", "https://sesame:sesame@a.example/", KEY, f"x{KEY}x"],
)
def test_no_secret_is_in_the_object(
    s2v: S2V, folder: Path, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    """Whatever was typed where; only the key that the program knows is recognised as one."""
    monkeypatch.setenv("DASHSCOPE_API_KEY", KEY)
    for arguments in (
        ("gate", "x", secret),
        (secret,),
        ("estimate", secret),
        (*CURATE, "--ledger", secret),
        (*CURATE, "--budget-usd", secret),
        ("rows", "out/runs/one", "--columns", secret),
    ):
        out = s2v(*arguments, "--json")[1]
        read(out)
        assert "sesame@" not in out
        assert "=sesame" not in out
        assert KEY not in out, arguments


def test_a_signal_ends_with_an_object(tmp_path: Path) -> None:
    """Also before a run has opened: the command waits for a database that accepts and stays silent."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://127.0.0.1:{silent.getsockname()[1]}/x"
        command = [sys.executable, "-m", "s2v_tasks", "ledger", "show", "--ledger", url, "--json"]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        silent.settimeout(60)
        with silent.accept()[0]:
            process.send_signal(signal.SIGTERM)
            try:
                out, err = process.communicate(timeout=20)
            except subprocess.TimeoutExpired:  # the driver may have been between two waits
                process.send_signal(signal.SIGTERM)
                out, err = process.communicate(timeout=60)
    found = read(out)
    assert (process.returncode, found["exit_status"], found["kind"]) == (1, 1, "interrupted"), err
    assert found["retryable"]


@pytest.mark.parametrize(
    ("line", "status", "objects"),
    [
        (">/dev/full", 1, 0),
        *(
            pytest.param(*one, marks=pytest.mark.ci)
            for one in [
                ("2>&-", 0, 1),
                ("2>/dev/full", 0, 1),
                (">&-", 0, 0),
                ("| true", 0, 0),
                ("2>&1 >/dev/null | grep -c calls", 0, 1),
            ]
        ),
    ],
)
def test_the_object_does_not_depend_on_standard_error(
    tmp_path: Path, ledger: str, line: str, status: int, objects: int
) -> None:
    """Lost on a full disk, it is a failure, as it is all that the verb does."""
    command = (
        f'set -o pipefail; "{sys.executable}" -P -m s2v_tasks ledger show --ledger {ledger} --json {line}'
    )
    ran = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True)
    assert (ran.returncode, len(ran.stdout.splitlines())) == (status, objects), ran.stderr
