"""The house's order: stages are pure, none imports a later one, and each outside library has its doors."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import s2v_tasks

PACKAGE = Path(s2v_tasks.__file__).parent
FLOWS = PACKAGE.parent / "flows"

STAGES = ("candidates", "screen", "detect", "ledger", "verdicts", "gate", "publish")
"""In the order that data travels."""
PURE = (*STAGES, "addresses", "estimate", "headers", "pace", "models", "errors", "summary")
FORBIDDEN = {
    "prefect", "httpx", "aiohttp", "great_expectations", "sqlalchemy", "aiosqlite", "asyncpg", "pandas",
    "asyncio", "threading", "subprocess", "socket", "urllib.request", "http", "os", "io", "pathlib",
    "tempfile", "shutil", "time", "random", "secrets", "logging", "s2v_tasks.adapters", "s2v_tasks.engine",
    "s2v_tasks.runs", "s2v_tasks.tasks", "s2v_tasks.flows", "s2v_tasks.emulator",
}  # fmt: skip
IMPURE_NAMES = {"open", "print", "input", "now", "utcnow", "today", "collect", "read_bytes", "read_text"}
IMPURE_PREFIXES = ("scan_", "sink_", "read_parquet", "read_csv", "write_")
DOORS = {
    "great_expectations": {"adapters/gx.py"},
    "sqlalchemy": {
        "adapters/connection.py", "adapters/database.py", "adapters/leases.py",
        "adapters/looks.py", "adapters/query.py", "adapters/tables.py",
    },
    "obstore": {"adapters/objects.py"},
    "httpx": {
        "adapters/allowance.py", "adapters/dashscope.py", "adapters/hosts.py", "adapters/images.py",
        "emulator/judge.py", "prefect_command.py", "shards.py",
    },
    "aiohttp": {"adapters/hosts.py", "adapters/images.py"},
    "prefect": {
        "adapters/allowance.py", "adapters/artifacts.py", "adapters/events.py", "adapters/prefect_server.py",
        "adapters/prefect_setup.py", "adapters/runners.py", "approval.py", "blocks.py", "cli.py",
        "curation.py", "finish.py", "prefect_command.py", "shards.py", "tasks.py", "flows/curate.py",
        "flows/gate.py", "flows/pipeline.py", "flows/train_stub.py",
    },
    "typer": {"cli.py", "ledger_command.py", "options.py", "prefect_command.py"},
    "PIL": {"emulator/judge.py", "emulator/pictures.py"},
}  # fmt: skip
"""Which modules import an outside library."""


def imports(tree: ast.AST) -> set[str]:
    """Every module that is imported, and every name from one, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update({node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)})
    return found


def impure_calls(tree: ast.AST) -> Iterator[str]:
    """Calls that read a clock, a file or a frame's data."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in IMPURE_NAMES or name.startswith(IMPURE_PREFIXES):
                yield f"{name}() in line {node.lineno}"


def impurities(source: str, stage: str) -> list[str]:
    """What a stage may not do, as found in its source."""
    tree = ast.parse(source)
    later = {f"s2v_tasks.{name}" for name in STAGES[STAGES.index(stage) + 1 :]} if stage in STAGES else set()
    banned = FORBIDDEN | later
    bad = {m for m in imports(tree) if m in banned or any(m.startswith(f"{b}.") for b in banned)}
    return [*sorted(bad), *impure_calls(tree)]


def outside(root: str) -> set[str]:
    """The modules of the package and the flows that import a library."""
    files = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}
    files |= {f"flows/{path.name}": path for path in FLOWS.glob("*.py")}
    return {
        name
        for name, path in files.items()
        if any(m.partition(".")[0] == root for m in imports(ast.parse(path.read_text("utf-8"))))
    }


@pytest.mark.parametrize("stage", PURE)
def test_a_stage_is_pure_and_looks_only_back(stage: str) -> None:
    """No waiting, no file, no clock, no outside service, and nothing from a later stage."""
    assert impurities((PACKAGE / f"{stage}.py").read_text("utf-8"), stage) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import httpx", ["httpx"]),
        ("def f():\n    from prefect import flow", ["prefect", "prefect.flow"]),
        ("from s2v_tasks import gate", ["s2v_tasks.gate"]),
        ("from s2v_tasks.gate import words", ["s2v_tasks.gate", "s2v_tasks.gate.words"]),
        ("from s2v_tasks.adapters import gx", ["s2v_tasks.adapters", "s2v_tasks.adapters.gx"]),
        ("from datetime import datetime\nx = datetime.now()", ["now() in line 2"]),
        ("x = open('a')", ["open() in line 1"]),
        ("x = frame.collect()", ["collect() in line 1"]),
        ("x = frame.lazy()\nfrom s2v_tasks.candidates import identify", []),
    ],
)
def test_an_impure_stage_is_seen(source: str, found: list[str]) -> None:
    """The check above finds what it is there to find."""
    assert impurities(source, "verdicts") == found


@pytest.mark.parametrize("library", DOORS)
def test_an_outside_library_comes_in_by_its_doors_only(library: str) -> None:
    """Whoever looks for what waits, spends or writes finds it in a few modules."""
    assert outside(library) == DOORS[library]
