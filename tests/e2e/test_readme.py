"""The README: every command in it is run, by these tests or, to install, by ``.ci/run``."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from workbench import Bench

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
ENV = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

INSTALLED_BY_CI = {
    "python3 -m venv .venv && .venv/bin/pip install -c constraints.txt . && .venv/bin/s2v demo",
    ".venv/bin/pip install -c constraints.txt -e '.[dev]' && .venv/bin/pytest -n auto",
}
ACTIVATE = ". .venv/bin/activate"
"""What it does for the commands below, ``ENV`` does for them here."""
EXPORTS = [
    "export DASHSCOPE_API_KEY=...",
    "export S2V_LEDGER_URL=sqlite:///$HOME/s2v.sqlite3",
]
"""``Bench`` sets these variables."""
ESTIMATE = "s2v estimate portraits.parquet --budget-usd 5"
CURATE = "s2v curate portraits.parquet --out curated --budget-usd 5 --min-pass-rate 0.6"
GATE = "s2v gate curated/runs/<run_id> --min-pass-rate 0.4 --publish"
IN_PREFECT = [
    "s2v prefect setup",
    "prefect deploy --prefect-file deployments/prefect.yaml --all",
    "prefect worker start --pool s2v",
]


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
    assert lines == {*INSTALLED_BY_CI, ACTIVATE, *EXPORTS, ESTIMATE, CURATE, GATE, *IN_PREFECT}


def test_ci_runs_the_two_commands_of_the_readme_word_for_word() -> None:
    """The continuous build finds its commands in the README, and these are the two that install."""
    wanted = re.findall(r"^readme '(.*)'$", (ROOT / ".ci" / "run").read_text("utf-8"), re.MULTILINE)
    found = [next(line for line in README.splitlines() if re.search(rf"^[^ ].*{w}$", line)) for w in wanted]
    assert set(found) == INSTALLED_BY_CI


@pytest.mark.ci
def test_the_commands_for_the_shell_work_as_written(bench: Bench) -> None:
    """Estimate, curate, gate (images on loopback need one option more)."""
    bench.candidates(bench.portraits(6), "portraits.parquet")
    bench.env["S2V_LEDGER_URL"] = f"sqlite:///{bench.folder / 'ledger.sqlite3'}"
    for command in (ESTIMATE, CURATE):
        ran = shell(f"{command} --allow-private-hosts", bench)
        assert ran.returncode == 0, ran.stderr
    run_id = next((bench.folder / "curated" / "runs").iterdir()).name
    gated = shell(GATE.replace("<run_id>", run_id), bench)
    assert gated.returncode == 0, gated.stderr
    assert (bench.folder / "curated" / "published" / "current.json").is_file()


def test_the_commands_for_prefect_are_those_of_its_page() -> None:
    """They are run by test_at_home_in_prefect.py, with a worker that then works."""
    page = (ROOT / "docs" / "guides" / "prefect.md").read_text("utf-8").splitlines()
    assert set(IN_PREFECT) <= set(page)


def test_the_flow_of_the_readme_runs(bench: Bench) -> None:
    """The Python example, with the screening group that images on loopback need."""
    (example,) = blocks("python")
    bench.candidates(bench.portraits(3), "portraits.parquet")
    example = example.replace("import Thresholds", "import Screening, Thresholds").replace(
        "budget_usd=5.0,", "budget_usd=5.0, screening=Screening(allow_private_hosts=True),"
    )
    script = bench.folder / "example.py"
    script.write_text(example)
    ran = shell(f"{sys.executable} {script}", bench)
    assert ran.returncode == 0, ran.stderr
    assert Path(ran.stdout.splitlines()[-1]).name == "approved.parquet"
