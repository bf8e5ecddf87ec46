"""The benchmarks are programs that no module imports: what they take from the package must be there."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from s2v_tasks.emulator.sample_images import image

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.stem)
def test_every_name_that_a_benchmark_imports_exists(path: Path) -> None:
    """Those imported inside functions too."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("s2v_tasks"):
            exec(ast.unparse(node), {})  # noqa: S102  (an import statement of our own)


@pytest.mark.ci
@pytest.mark.parametrize(
    "command",
    [
        ["candidates.py", "--rows", "2000"],
        pytest.param(
            ["faces.py", "--rows", "2000", "--uncached", "20", "--calls", "20"], marks=pytest.mark.slow
        ),
        ["rate.py", "compare", "--seconds", "5", "--only", "sqlite-1"],
        ["results.py", "--rows", "2000"],
        ["screen.py", "--images", "60"],
        pytest.param(["slow_disk.py", "--delays", "0.05", "--calls", "8"], marks=pytest.mark.needs("gcc")),
        pytest.param(["startup.py", "--runs", "1", "--only", "s2v gate"], marks=pytest.mark.slow),
    ],
    ids=lambda command: command[0],
)
def test_a_benchmark_runs_and_writes_its_figures(command: list[str], tmp_path: Path) -> None:
    """A small job from start to end; the figures themselves mean nothing here."""
    name, *options = command
    figures = tmp_path / "figures.json"
    program = [sys.executable, str(BENCHMARKS / name), *options, "--json", str(figures)]
    ran = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert json.loads(figures.read_text("utf-8"))


@pytest.mark.ci
def test_the_face_check_finds_more_with_the_same_calls(tmp_path: Path) -> None:
    """Drawn images; the command's own path, so only a small list and one mode."""
    subjects = {"portrait": "portrait", "no_face": "scenery", "several": "crowd"}
    for label, subject in subjects.items():
        (tmp_path / f"{label}.jpg").write_bytes(image(subject, 1, 480, 640, "jpeg"))
    lines = ["file,label", *(f"{label}.jpg,{label}" for label in subjects)]
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n", "utf-8")
    figures = tmp_path / "figures.json"
    options = ["--pictures", str(tmp_path), "--mix", "portrait=20,no_face=60,several=20", "--rows", "200"]
    options += ["--rate", "8", "--budget", "calls", "--only", "naive", "--only", "order"]
    program = [sys.executable, str(BENCHMARKS / "yield.py"), *options, "--json", str(figures)]
    ran = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    naive, order = json.loads(figures.read_text("utf-8"))
    assert naive["calls"] == order["calls"] == 40
    assert order["approved"] > naive["approved"] > 0
    assert order["usd"] == pytest.approx(40 * 574e-6)
