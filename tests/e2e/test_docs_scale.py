"""docs/explanation/scale.md: the command behind its figures is run, with fewer rows."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explanation" / "scale.md").read_text("utf-8")
MEASURING = "python benchmarks/candidates.py"


def test_every_command_of_the_page_is_run_here() -> None:
    """A command that is added to the page must be added here, or this fails."""
    blocks = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert [line for block in blocks for line in block.splitlines()] == [MEASURING]


@pytest.mark.ci
def test_the_benchmark_measures_all_jobs_and_shows_a_table() -> None:
    """All three jobs end and their figures are shown; they count the same outcomes."""
    command = [sys.executable, *MEASURING.split()[1:], "--rows", "2000"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "s2v-tasks: " in ran.stdout
    assert "plain pandas: " in ran.stdout
    assert "plain polars: " in ran.stdout
    assert ran.stderr.count('"duplicate": 200') == 3
