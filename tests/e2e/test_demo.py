"""What a newcomer meets first: the demo, the help, and a command that starts at once."""

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from workbench import COMMAND, descendants, ended, ledger_ids, pointer, wait_until

pytestmark = pytest.mark.ci

FOREIGN_SETTINGS = {
    "DASHSCOPE_API_KEY": "sk-of-somebody",
    "DASHSCOPE_HTTP_BASE_URL": "http://192.0.2.1/api/v1",
    "DASHSCOPE_WORKSPACE": "elsewhere",
    "S2V_LEDGER_URL": "postgresql://nobody@192.0.2.1/ledger",
    "PREFECT_API_URL": "http://192.0.2.1/api",
    "PREFECT_API_KEY": "pnu_somebody",
    "PREFECT_SERVER_DATABASE_CONNECTION_URL": "postgresql+asyncpg://nobody@192.0.2.1/prefect",
}
LABELS = ("candidates", "duplicates", "screened out", "passed", "failed", "cost ", "invoice")


def test_the_demo_shows_a_whole_run_on_this_machine_alone(tmp_path: Path, blocked: Callable[[], str]) -> None:
    """An empty folder, no key, foreign settings around: published, and paid as reported."""
    mark = uuid.uuid4().hex
    # What keeps Prefect and Great Expectations from reporting is the command's part.
    quiet = ("PREFECT_", "GX_", "DO_NOT_TRACK")
    env = {name: value for name, value in os.environ.items() if not name.startswith(quiet)}
    env |= {"TESTS_MARK": mark, **FOREIGN_SETTINGS}
    process = subprocess.Popen(
        [*COMMAND, "demo"], cwd=tmp_path, env=env, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    ran = ended(process)
    assert ran.status == 0, ran.out + ran.err
    assert blocked() == ""
    assert "Traceback" not in ran.err
    assert "warning" not in ran.err  # its own images are on loopback, which it knows
    for label in LABELS:
        assert label in ran.out
    out = tmp_path / "s2v-demo"
    assert {path.name for path in tmp_path.iterdir()} == {"s2v-demo"}
    printed = dict(re.findall(r"^(verdicts|approved|pointer)\s+(/.*)$", ran.out, re.MULTILINE))
    assert len(printed) == 3
    assert all(Path(path).is_file() for path in printed.values())
    assert printed["approved"] == pointer(out).path
    assert pointer(out).rows == 35
    billed = ledger_ids(out / "ledger.sqlite3")
    match = re.search(r"invoice\s+(\d+) calls", ran.out)
    assert match is not None
    assert int(match[1]) == len(billed)
    wait_until(lambda: not descendants(mark), 20)


HEAVY = ("aiohttp", "prefect", "great_expectations", "polars", "pandas", "sqlalchemy", "httpx")
OPTIONS = {
    "demo": ["--out"],
    "gate": ["--min-pass-rate", "--max-cost-usd", "--publish", "--publish-partial", "--data-docs"],
    "emulator": ["--port"],
    "ledger show": ["--ledger", "--by", "--debug"],
    "ledger upgrade": ["--ledger", "--debug"],
    "prefect setup": ["--work-pool", "--alert", "--debug"],
    "curate": [
        "--out", "--budget-usd", "--url-column", "--limit", "--min-pass-rate", "--max-cost-usd",
        "--max-cost-per-approved-usd", "--max-unknown-share", "--max-error-share", "--max-unreachable-share",
        "--segment-column", "--publish-partial", "--ledger", "--account", "--on-lost-response", "--no-screen",
        "--allow-private-hosts", "--allow-port", "--run-id", "--new-run", "--budget-name",
        "--keep-duplicates", "--data-docs", "--dedupe", "--header-cache-ttl-h", "--runner", "--debug",
    ],
}  # fmt: skip
"""What users type, and rely on."""


@pytest.mark.parametrize("name", [None, *OPTIONS])
def test_help_is_shown_at_once_and_knows_every_option(name: str | None) -> None:
    """Help imports nothing heavy; it names every option that users rely on."""
    arguments = ["--help"] if name is None else [*name.split(), "--help"]
    heavy = (*HEAVY, "pydantic", "rich") if name is None else HEAVY
    code = (
        "import sys, s2v_tasks.cli as cli; sys.argv = ['s2v', *sys.argv[1:]]\n"
        "try: cli.main()\n"
        f"except SystemExit as end: print('HEAVY', [m for m in {heavy} if m in sys.modules], end.code)"
    )
    env = {**os.environ, "COLUMNS": "200"}
    ran = subprocess.run([sys.executable, "-c", code, *arguments], env=env, capture_output=True, text=True)
    assert ran.stdout.splitlines()[-1] == "HEAVY [] 0", ran.stdout + ran.stderr
    for wanted in OPTIONS.get(name or "", [command.split()[0] for command in OPTIONS]):
        assert re.search(rf"(^|\s){wanted}\b", ran.stdout), wanted


def test_the_version_is_printed() -> None:
    """As the installed package has it, and nothing heavy is imported for it."""
    code = (
        "import sys, s2v_tasks.cli as cli; sys.argv = ['s2v', '--version']\n"
        "try: cli.main()\n"
        f"except SystemExit as end: print('HEAVY', [m for m in {HEAVY} if m in sys.modules], end.code)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout.splitlines() == [f"s2v-tasks {version('s2v-tasks')}", "HEAVY [] 0"], ran.stderr


def test_the_package_itself_imports_nothing_heavy() -> None:
    """Prefect's server and workers import it at their start."""
    code = f"import sys, s2v_tasks; print([m for m in {HEAVY} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout.strip() == "[]", ran.stderr
