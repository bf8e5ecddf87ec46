"""Every end of a curation in a real Airflow (standalone, LocalExecutor, SQLite), against the emulator.

Run by hand: ``python airflow/tests/with_airflow/in_airflow.py --s2v .venv/bin/s2v``, with the Python of an
environment that has Airflow 3 and this provider. It prints what it saw, and fails if a state, an invoice or a
place where the key was found is not as it must be. It takes some minutes.
"""

import argparse
import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil

KEY = "sk-5ecre7key0123456789abcdef01234567"
PRICE_USD = 0.000574
PORT = 8797

SCENARIOS: dict[str, dict[str, Any]] = {
    "published": {"images": 4, "wants": "success"},
    "closed": {"images": 4, "subject": "crowd", "wants": "failed", "retries": 2},
    "exhausted": {"images": 4, "calls": 2, "wants": "failed", "retries": 2},
    "exhausted_skip": {"images": 4, "calls": 2, "wants": "skipped", "on_exhausted": "skip"},
    "bad_key": {"images": 4, "fault": "InvalidApiKey", "wants": "failed", "retries": 2},
    "bad_option": {"images": 4, "options": {"no-such-option": 1}, "wants": "failed", "retries": 2},
    "killed": {"images": 40, "wants": "success", "retries": 1},
}


def wait_until(true: Callable[[], Any], what: str, timeout_s: float = 600) -> Any:
    """What ``true`` gives as soon as it is something."""
    until = time.monotonic() + timeout_s
    while not (found := true()):
        if time.monotonic() > until:
            raise SystemExit(f"waited too long for {what}")
        time.sleep(0.5)
    return found


def emulator(s2v: str, folder: Path, fault: str | None) -> tuple[subprocess.Popen[bytes], str]:
    """A service of its own for a scenario, with its invoice in the folder."""
    more = ["--fault", fault] if fault else []
    command = [s2v, "emulator", "--port", "0", "--invoice", str(folder / "invoice.ndjson"), *more]
    with (folder / "emulator.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def url() -> str | None:
        said = (folder / "emulator.log").read_text()
        return said.split("DASHSCOPE_HTTP_BASE_URL=")[1].split()[0] if "BASE_URL=" in said else None

    return process, wait_until(url, "the emulator")


def rows(db: Path, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Rows of Airflow's database, or of a ledger."""
    try:
        with closing(sqlite3.connect(f"file:{db}?mode=ro", uri=True, timeout=30)) as connection:
            return connection.execute(statement, values).fetchall()
    except sqlite3.OperationalError:
        return []


def state(db: Path, dag_id: str, task_id: str = "curate") -> tuple[str, int]:
    """State and number of tries of a task."""
    found = rows(
        db, "SELECT state, try_number FROM task_instance WHERE dag_id = ? AND task_id = ?", dag_id, task_id
    )
    return found[0] if found else ("", 0)


def books(folder: Path) -> tuple[set[str], set[str]]:
    """The request ids on the invoice, and those that the ledger has as billed."""
    invoice = folder / "invoice.ndjson"
    lines = invoice.read_text().splitlines() if invoice.exists() else []
    billed = rows(folder / "out" / "ledger.sqlite3", "SELECT request_id FROM attempts WHERE state = 'billed'")
    return {json.loads(line)["request_id"] for line in lines}, {one for (one,) in billed}


def is_ready() -> bool:
    """Whether Airflow's API server responds."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/api/v2/version", timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


def key_in_processes() -> list[str]:
    """Command lines that hold the key."""
    found = []
    for process in psutil.process_iter():
        try:
            found += [line for line in [" ".join(process.cmdline())] if KEY in line]
        except psutil.Error:
            continue
    return found


def kill_once(out: Path, folder: Path) -> None:
    """End the task's process by SIGTERM, as an eviction does, when some calls are paid."""
    wait_until(lambda: len(books(folder)[0]) >= 5, "five paid calls")
    for process in psutil.process_iter():
        try:
            if "curate" in process.cmdline() and f"--out={out}" in process.cmdline():
                process.parent().send_signal(signal.SIGTERM)
                print(
                    f"killed: SIGTERM to the task's process after {len(books(folder)[0])} calls", flush=True
                )
                return
        except psutil.Error:
            continue
    raise SystemExit("the task's process was not found")


def main() -> None:
    """All scenarios at once; then the checks."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--s2v", required=True)
    s2v = str(Path(parser.parse_args().s2v).absolute())
    root = Path(tempfile.mkdtemp(prefix="s2v-airflow-"))
    home, db = root / "home", root / "home" / "airflow.db"
    dags = root / "dags"
    dags.mkdir()
    has_publications = subprocess.run([s2v, "publications", "--help"], capture_output=True).returncode == 0
    emulators, given = [], {}
    for name, one in SCENARIOS.items():
        folder = root / name
        folder.mkdir()
        process, service = emulator(s2v, folder, one.get("fault"))
        emulators.append(process)
        origin = service.rsplit("/api", 1)[0]
        with (folder / "c.csv").open("w") as file:
            writer = csv.writer(file)
            writer.writerow(["image_url"])
            subject = one.get("subject", "portrait")
            writer.writerows([f"{origin}/samples/gen/{subject}-{n}.jpg"] for n in range(one["images"]))
        given[name] = {
            **one,
            "candidates": str(folder / "c.csv"),
            "out": str(folder / "out"),
            "budget_usd": one["calls"] * PRICE_USD if "calls" in one else 1.0,
            "service": service,
            "has_publications": has_publications,
        }
    env = os.environ | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__PARALLELISM": "1",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{PORT}/execution/",
        "AIRFLOW__API__PORT": str(PORT),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{PORT}",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "120",  # a busy machine
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
        "AIRFLOW_CONN_DASHSCOPE_DEFAULT": json.dumps({"conn_type": "generic", "password": KEY}),
        "S2V_TRY": json.dumps(given),
        "S2V_EXAMPLE_OUT": given["published"]["out"],
        "S2V_EXAMPLE_COMMAND": s2v,
    }
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    with (root / "standalone.log").open("wb") as log:
        airflow = subprocess.Popen(
            [Path(sys.executable).parent / "airflow", "standalone"],
            env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    print(f"Airflow in {root}", flush=True)
    wait_until(is_ready, "Airflow's API server")  # a task that is started before it fails
    (dags / "dags.py").write_text((Path(__file__).parent / "dags_of_the_try.py").read_text())
    seen_in_processes: list[str] = []
    killed = False
    try:
        ended: dict[str, str] = {}

        def all_ended() -> bool:
            nonlocal killed
            seen_in_processes.extend(key_in_processes())
            if not killed and len(books(root / "killed")[0]) >= 5:
                kill_once(root / "killed" / "out", root / "killed")
                killed = True
            for name in SCENARIOS:
                now = state(db, f"try_{name}")
                if now[0] in {"success", "failed", "skipped"} and name not in ended:
                    ended[name] = now[0]
                    print(f"{name}: {now[0]} after {now[1]} tries", flush=True)
            return len(ended) == len(SCENARIOS)

        wait_until(all_ended, "the tasks", 900)
        for task in ["gate", *(["wait"] if has_publications else [])]:
            wait_until(lambda task=task: state(db, "try_published", task)[0] == "success", task, 120)
            print(f"published, task {task}: success", flush=True)
        wait_until(lambda: state(db, "s2v_train", "train")[0] == "success", "the training DAG", 180)
    finally:
        os.killpg(airflow.pid, signal.SIGTERM)
        for process in emulators:
            process.terminate()
        airflow.wait(60)
    failures = [f"{name}: {ended[name]}" for name, one in SCENARIOS.items() if ended[name] != one["wants"]]
    print(f"trains started: {rows(db, 'SELECT run_type, state FROM dag_run WHERE dag_id = ?', 's2v_train')}")
    for name in SCENARIOS:
        invoice, ledger = books(root / name)
        tries = state(db, f"try_{name}")[1]
        print(f"\n{name}: {ended[name]}, tries {tries}, invoice {len(invoice)} calls, ledger {len(ledger)}")
        if invoice != ledger:
            failures.append(f"{name}: invoice and ledger differ")
        for key, value in rows(
            db, "SELECT key, value FROM xcom WHERE dag_id = ? AND task_id = 'curate'", f"try_{name}"
        ):
            print(f"  xcom {key}: {value}")
        for log in sorted((home / "logs" / f"dag_id=try_{name}").rglob("*task_id=curate*/*.log")):
            lines = [json.loads(line).get("event", "") for line in log.read_text().splitlines()]
            shown = [line for line in lines if str(line).strip()]
            print(f"  log {log.name}, {len(lines)} lines, its end:", *shown[-4:], sep="\n    ")
    leaked = [str(file) for file in root.rglob("*") if file.is_file() and KEY.encode() in file.read_bytes()]
    print(f"\nfiles that hold the key (logs, XCom, rendered fields, runs): {leaked}")
    print(f"command lines that held the key: {seen_in_processes}")
    failures += leaked + seen_in_processes
    if not killed:
        failures.append("no task was killed")
    print(f"FAILED: {failures}" if failures else "all as it must be")
    raise SystemExit(bool(failures))


if __name__ == "__main__":
    main()
