"""The README tells the truth: every command in it is run, by these tests or, to install, by ``.ci/run``."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
from workbench import Bench

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
ENV = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

INSTALLED_BY_CI = {
    "python3 -m venv .venv && .venv/bin/pip install -c constraints.txt . && .venv/bin/s2v demo",
    ".venv/bin/pip install -c constraints.txt -e '.[dev]' && .venv/bin/pytest -n 2",
}
ACTIVATE = ". .venv/bin/activate"
"""What it does for the commands below, ``ENV`` does for them here."""
FOR_REAL = [
    "export DASHSCOPE_API_KEY=...",
    "export S2V_LEDGER_URL=sqlite:///$HOME/s2v.sqlite3",
    "s2v curate portraits.parquet --out curated --budget-usd 5 --min-pass-rate 0.6",
    "s2v gate curated/runs/<run_id> --min-pass-rate 0.4 --publish",
    "s2v ledger show --by day",
    "s2v ledger export attempts.parquet",
    "s2v ledger reconcile invoice.csv",
]
IN_PREFECT = [
    "s2v prefect setup",
    "prefect deploy --prefect-file deployments/prefect.yaml --all",
    "prefect worker start --pool s2v",
]
EMULATOR = "s2v emulator --port 8765 --fault InternalError:rate=0.05"


def blocks(language: str) -> list[str]:
    """The README's blocks of code in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def shell(command: str, bench: Bench, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a line as a shell would."""
    env = {**bench.env, **ENV}
    return subprocess.run(
        ["bash", "-c", command], cwd=cwd or bench.folder, env=env, capture_output=True, text=True
    )


def test_every_command_is_run_by_a_test() -> None:
    """A command that is added to the README must be added here, or this fails."""
    lines = {line.partition("  #")[0].strip() for block in blocks("console") for line in block.splitlines()}
    assert lines == {*INSTALLED_BY_CI, ACTIVATE, *FOR_REAL, *IN_PREFECT, EMULATOR}


def test_ci_runs_the_two_commands_of_the_readme_word_for_word() -> None:
    """The continuous build finds its commands in the README, and these are the two that install."""
    wanted = re.findall(r"^readme '(.*)'$", (ROOT / ".ci" / "run").read_text("utf-8"), re.MULTILINE)
    found = [next(line for line in README.splitlines() if re.search(rf"^[^ ].*{w}$", line)) for w in wanted]
    assert set(found) == INSTALLED_BY_CI


def test_the_commands_for_real_use_work_as_written(bench: Bench) -> None:
    """Curate, gate and books, line by line (pictures on loopback need one option more)."""
    bench.candidates(bench.portraits(6), "portraits.parquet")
    bench.env["S2V_LEDGER_URL"] = f"sqlite:///{bench.folder / 'ledger.sqlite3'}"
    curated = shell(f"{FOR_REAL[2]} --allow-private-hosts", bench)
    assert curated.returncode == 0, curated.stderr
    run_id = next((bench.folder / "curated" / "runs").iterdir()).name
    with (bench.folder / "invoice.csv").open("w") as file:
        writer = csv.DictWriter(file, ["request_id", "image_url", "billed_at", "micro_usd"])
        writer.writeheader()
        writer.writerows(bench.emulator.invoice())
    for command in FOR_REAL[3:]:
        ran = shell(command.replace("<run_id>", run_id), bench)
        assert ran.returncode == 0, ran.stderr
    assert "6 calls on both; 0 only on the invoice" in ran.stdout


def test_an_invoice_that_says_otherwise_is_not_reconciled(bench: Bench) -> None:
    """A charge that the ledger knows nothing of, and a call that the vendor forgot, are named; status 1."""
    bench.curate(bench.candidates(bench.portraits(2)))
    (bench.folder / "invoice.csv").write_text("request_id\nnot-ours\n")
    ran = bench.run(
        "ledger", "reconcile", "invoice.csv", "--ledger", f"sqlite:///{bench.out / 'ledger.sqlite3'}"
    )
    assert ran.status == 1
    assert "1 charges are not this ledger's: not-ours" in ran.out
    assert all(request_id in ran.out for request_id in bench.billed_ids())


def test_the_commands_for_prefect_are_those_of_its_page() -> None:
    """They are run by test_at_home_in_prefect.py, with a worker that then works."""
    page = (ROOT / "docs" / "prefect.md").read_text("utf-8").splitlines()
    assert set(IN_PREFECT) <= set(page)


def test_the_emulator_serves_as_written(bench: Bench) -> None:
    """The command prints the base URL to use, and the service answers there (on a port that is free)."""
    command = EMULATOR.replace("--port 8765", "--port 0")
    process = subprocess.Popen(
        command.split(), env={**bench.env, **ENV}, stdout=subprocess.PIPE, text=True, stderr=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip().removeprefix("DASHSCOPE_HTTP_BASE_URL=")
        with httpx.Client(trust_env=False) as client:
            assert client.get(url.removesuffix("/api/v1") + "/invoice").json() == []
    finally:
        process.terminate()
        process.communicate()


def test_the_flow_of_the_readme_runs(bench: Bench) -> None:
    """The Python example, with the screening group that pictures on loopback need."""
    (example,) = blocks("python")
    bench.candidates(bench.portraits(3), "portraits.parquet")
    example = example.replace("import Thresholds", "import Screening, Thresholds").replace(
        "budget_usd=5.0,", "budget_usd=5.0, screening=Screening(allow_private_hosts=True),"
    )
    script = bench.folder / "example.py"
    script.write_text(f"{example}\n\nimport asyncio\n\nprint('PATH', asyncio.run(prepare_training()))\n")
    ran = shell(f"{sys.executable} {script}", bench)
    assert ran.returncode == 0, ran.stderr
    assert Path(ran.stdout.rsplit("PATH ", 1)[1].strip()).name == "approved.parquet"
