"""docs/guides/testing.md: the emulator's command and the examples for pytest are run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from workbench import Bench

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "testing.md").read_text("utf-8")
EMULATOR = "s2v emulator --port 8765 --fault InternalError:rate=0.05"
BIN = Path(sys.executable).parent


def blocks(language: str) -> list[str]:
    """The page's blocks of code in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_every_command_of_the_page_is_run_here() -> None:
    """A command that is added to the page must be added here, or this fails."""
    assert [line for block in blocks("console") for line in block.splitlines()] == [EMULATOR]


def test_the_emulator_serves_as_written(bench: Bench) -> None:
    """The command prints the base URL to use, and the service responds there (on a port that is free)."""
    command = EMULATOR.replace("s2v", str(BIN / "s2v"), 1).replace("--port 8765", "--port 0")
    process = subprocess.Popen(
        command.split(), env=bench.env, stdout=subprocess.PIPE, text=True, stderr=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip().removeprefix("DASHSCOPE_HTTP_BASE_URL=")
        with httpx.Client(trust_env=False) as client:
            assert client.get(url.removesuffix("/api/v1") + "/invoice").json() == []
            assert client.get(url.removesuffix("/api/v1") + "/samples/gen/portrait-1.jpg").status_code == 200
    finally:
        process.terminate()
        process.communicate()


@pytest.mark.ci
def test_the_examples_for_pytest_pass(bench: Bench) -> None:
    """As a user's test module, in a session of its own."""
    (example,) = blocks("python")
    (bench.folder / "test_example.py").write_text(example)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_example.py"]
    ran = subprocess.run(
        command, cwd=bench.folder, env={**os.environ, **bench.env}, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "2 passed" in ran.stdout
