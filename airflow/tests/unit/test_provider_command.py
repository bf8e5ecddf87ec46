"""What the result of a command means for a task, and what is started: none of it needs Airflow."""

import ast
import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from s2v_airflow.command import End, Ended, arguments, environment, parse, run_id, typed, xcom
from s2v_airflow.process import CommandProcess
from s2v_airflow.publications import wanted

from s2v_tasks.cli import result
from s2v_tasks.cli.option_schema import option_schema
from s2v_tasks.cli.options import MORE_OF_CURATE
from s2v_tasks.cli.result import ENDS, Result
from s2v_tasks.errors import RunStopped, S2VError, UsageError
from s2v_tasks.settings import RUN_ID, CurateParameters

PACKAGE = Path(__file__).parents[2] / "s2v_airflow"
SCHEMA = option_schema(CurateParameters, MORE_OF_CURATE)
ERRORS = {error.kind: error for error in result.errors(S2VError)}


def printed(error: type[S2VError] | None = None, kind: str = "done", **more: Any) -> Ended:
    """What the program's own command prints for an end."""
    one = Result(verb="curate")
    if error is None:
        one.completed(kind, "done")
    else:
        one.ended(error("what happened; what to do"))
    for name, value in more.items():
        setattr(one, name, value)
    return parse(one.exit_status, one.rendered(one.exit_status).encode())


@pytest.mark.parametrize("kind", ERRORS)
def test_each_error_ends_the_task_so_that_airflow_retries_what_a_retry_helps(kind: str) -> None:
    """Every kind that the command knows; an account needs a person first."""
    error = ERRORS[kind]
    retried = issubclass(error, RunStopped) and kind != "account"
    assert printed(error).means() is (End.RETRY if retried else End.FAIL)


def test_the_pointer_decides_and_not_the_status() -> None:
    """Published is success, also with exit 4; a later run's publication is success without an event."""
    assert printed(kind="published", published=True).means() is End.PUBLISHED
    assert printed(kind="published", published=True, exit_status=4).means() is End.PUBLISHED
    assert printed(kind="superseded").means() is End.SUCCESS
    assert {printed(kind=kind).means() for kind in ENDS} == {End.SUCCESS}


def test_a_budget_that_ended_is_skipped_if_that_is_wanted() -> None:
    """Only then, and only if nothing was published."""
    spent = ERRORS["budget_exhausted"]
    assert printed(spent).means() is End.FAIL
    assert printed(spent).means(skip_if_exhausted=True) is End.SKIP
    assert printed(ERRORS["gate_closed"]).means(skip_if_exhausted=True) is End.FAIL


@pytest.mark.parametrize("out", [b"", b"{", b"[]", b"{}", b'{"kind": "published"}', b"{}\n{}"])
def test_without_a_result_only_a_kill_is_retried(out: bytes) -> None:
    """What printed something else, or nothing, is no command of this kind."""
    assert parse(-9, out).means() is End.RETRY
    assert parse(137, out).means() is End.RETRY
    assert parse(0, out).means() is End.FAIL
    assert parse(1, out).means() is End.FAIL


def test_the_run_s_id_is_the_task_instance_s() -> None:
    """The same for each try, another for each DAG, run, task and mapped instance; a folder may have it."""
    ids = {
        run_id("d", "scheduled__2026-11-27T02:00:00+00:00", "t", -1),
        run_id("d", "scheduled__2026-11-27T02:00:00+00:00", "t", 0),
        run_id("d", "scheduled__2026-11-28T02:00:00+00:00", "t", -1),
        run_id("d", "scheduled__2026-11-27T02:00:00+00:00", "u", -1),
        run_id("dscheduled__", "2026-11-27T02:00:00+00:00", "t", -1),
    }
    assert len(ids) == 5
    assert run_id("d", "r", "t", 1) == run_id("d", "r", "t", 1)
    assert all(re.fullmatch(RUN_ID, one) for one in ids)


def test_templated_texts_become_what_the_schema_wants() -> None:
    """What can't is left for the schema to refuse."""
    given = {
        "budget-usd": "5",
        "sample": "7",
        "no-screen": "True",
        "allow-port": (81,),
        "seed": "x",
        "other": "1",
    }
    assert typed(given, SCHEMA) == {
        "budget-usd": 5.0, "sample": 7, "no-screen": True, "allow-port": [81], "seed": "x", "other": "1",
    }  # fmt: skip


def test_no_value_is_taken_for_an_option() -> None:
    """Nor the candidates; a switch that is off is left out."""
    given = {"no-screen": True, "data-docs": False, "allow-port": [81, 82], "out": "--x", "budget-usd": 0.5}
    assert arguments(given, ["-c.csv"]) == [
        "--no-screen", "--allow-port=81", "--allow-port=82", "--out=--x", "--budget-usd=0.5",
        "--json", "--", "-c.csv",
    ]  # fmt: skip
    assert arguments({"query": "SELECT 1"}) == ["--query=SELECT 1", "--json"]


def test_the_worker_s_environment_is_not_the_command_s() -> None:
    """Airflow's variables hold its connections; Python's mean another environment."""
    worker = {
        "PATH": "/bin", "AIRFLOW_CONN_X": "secret", "AIRFLOW__DATABASE__SQL": "x", "PYTHONPATH": "/a",
        "DASHSCOPE_API_KEY": "another", "S2V_LEDGER_URL": "sqlite:///x",
    }  # fmt: skip
    assert environment(worker, {"DASHSCOPE_API_KEY": "k"}) == {
        "PATH": "/bin", "S2V_LEDGER_URL": "sqlite:///x", "DASHSCOPE_API_KEY": "k",
    }  # fmt: skip


def test_xcom_has_what_other_tasks_read() -> None:
    """Run, published file, counts and cost."""
    found = xcom(printed(UsageError).result or {})
    names = {"run_id", "run_dir", "published_file", "counts", "cost", "face_check", "report", "published"}
    assert names <= found.keys()


def test_a_sensor_takes_what_was_published_after_its_time() -> None:
    """Nothing published is no end."""
    current = {"run_id": "r", "gate": {"checked_at": "2026-11-27T02:10:00+00:00"}}
    assert wanted({"current": None, "publications": []}, None) is None
    assert wanted({"current": current}, None) == current
    assert wanted({"current": current}, "2026-11-27T02:00:00+00:00") == current
    assert wanted({"current": current}, "2026-11-27T02:10:00+00:00") is None


CHATTY = """
import json, os, signal, sys, time
def stop(*_):
    print("x" * 200_000, file=sys.stderr)
    print(json.dumps(dict(kind="interrupted", retryable=True, published=False, message="m", exit_status=1)))
    sys.exit(1)
signal.signal(signal.SIGTERM, stop)
os.write(2, b"begun\\n")  # at once: the handler may not print within a print
time.sleep(60)
"""


def test_a_command_is_stopped_in_order_and_its_last_words_are_read() -> None:
    """`stop` waits, also for more output than a pipe holds; each line is logged when it comes."""
    command, lines, found = CommandProcess(), [], []
    running = threading.Thread(
        target=lambda: found.append(command.run([sys.executable, "-c", CHATTY], {}, lines.append))
    )
    running.start()
    until = time.monotonic() + 60
    while not lines:
        assert time.monotonic() < until
        time.sleep(0.01)
    command.stop()
    running.join(60)
    assert lines[0] == "begun"
    assert len(lines[1]) == 200_000
    assert (found[0].status, found[0].means()) == (1, End.RETRY)
    assert json.loads(json.dumps(found[0].result))["kind"] == "interrupted"


IN_A_HANDLER = """
import os, signal, sys, threading
from s2v_airflow.process import CommandProcess
command = CommandProcess()
signal.signal(signal.SIGUSR1, lambda *_: command.stop())
log = lambda line: os.kill(os.getpid(), signal.SIGUSR1) if line == "begun" else None
print(command.run([sys.executable, "-c", sys.argv[1]], {}, log).status)
"""


def test_a_signal_s_handler_may_stop_the_command_that_its_own_thread_waits_for() -> None:
    """As Airflow does: SIGTERM to the task's process calls ``on_kill`` on top of ``execute``."""
    ran = subprocess.run(
        [sys.executable, "-c", IN_A_HANDLER, CHATTY], cwd=PACKAGE.parent, capture_output=True, timeout=60
    )
    assert ran.stdout.split() == [b"1"], ran.stderr


def test_the_provider_imports_nothing_of_the_program() -> None:
    """They live in two environments; what runs without Airflow does not import it."""
    for file in PACKAGE.rglob("*.py"):
        names = {
            (node.module or "") if isinstance(node, ast.ImportFrom) else alias.name
            for node in ast.walk(ast.parse(file.read_text("utf-8")))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        roots = {name.partition(".")[0] for name in names}
        assert "s2v_tasks" not in roots, file
        if file.stem in {"command", "process", "publications"}:
            assert roots <= sys.stdlib_module_names | {"s2v_airflow"}, file
