"""What users import, catch and unpickle: pinned here, so that a change is a decision."""

import inspect
import pickle
import re
import subprocess
import sys

import pytest
from prefect import Flow

import s2v_tasks
from s2v_tasks import errors

NAMES = [
    "SCHEMA", "Advanced", "CurateParameters", "CurationResult", "Emulator", "EmulatorOptions", "Output",
    "Publication", "RunData", "S2VError", "Screening", "Source", "Spending", "Thresholds", "add_image_keys",
    "curate", "finalize_run", "open_curation", "open_run_folder", "pipeline", "process_shards", "published",
    "read_run", "unique_images",
]  # fmt: skip
COLUMNS = [
    "row", "image_key", "outcome", "reason", "duplicate_of", "check_pass", "humanoid", "code", "message",
    "request_id", "http_status", "attempts", "billing", "run_cost_usd", "lifetime_cost_usd", "from_ledger",
    "width_px", "height_px", "image_format", "image_traits", "checked_at",
    "faces_seen", "face_score", "face_height_share", "audited", "audited_in_run",
]  # fmt: skip
ERRORS = [
    error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, errors.S2VError) and error.__module__ == errors.__name__
]


def test_the_public_names_are_these() -> None:
    """Adding a name is a decision, removing one breaks users' code."""
    assert s2v_tasks.__all__ == NAMES


LOADING = """
import os, sys
import aiohttp, httpx, polars, prefect, sqlalchemy.ext.asyncio  # what takes the time

assert not [module for module in sys.modules if module.startswith("s2v_tasks")]
for name in sys.argv[1:]:
    if not os.fork():
        exec(f"from s2v_tasks import {name}; kind = {name}.__class__")
        print(name, kind.__name__, flush=True)
        os._exit(0)
    os.wait()
"""
"""Loads each name in a child of its own that has imported nothing of ours yet."""


@pytest.fixture(scope="module")
def loaded() -> subprocess.CompletedProcess[str]:
    """What became of each public name, loaded alone."""
    return subprocess.run([sys.executable, "-c", LOADING, *NAMES], capture_output=True, text=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_loads_alone(loaded: subprocess.CompletedProcess[str], name: str) -> None:
    """In a fresh process, as the first of ours that is imported."""
    kinds = dict(line.split() for line in loaded.stdout.splitlines())
    assert name in kinds, loaded.stderr
    assert kinds[name] != "module"


def test_the_flows_are_flows() -> None:
    """They can be called, served and deployed by their public names."""
    assert isinstance(s2v_tasks.curate, Flow)
    assert isinstance(s2v_tasks.pipeline, Flow)
    assert s2v_tasks.curate.name == "curate"


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As of any module; lazy loading does not change that."""
    assert not hasattr(s2v_tasks, "curated")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        s2v_tasks.nothing  # noqa: B018


def test_the_columns_behind_the_inputs_own_are_these() -> None:
    """Readers of verdicts.parquet rely on names and order."""
    assert list(s2v_tasks.SCHEMA) == COLUMNS


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_pickles_with_all_it_knows(error: type[errors.S2VError]) -> None:
    """Prefect sends exceptions between processes."""
    first = error("what happened; what to do", image_key="k" * 32, request_id="r-1")
    again = pickle.loads(pickle.dumps(first))  # noqa: S301  (our own)
    assert type(again) is error
    assert (str(again), again.image_key, again.request_id) == ("what happened; what to do", "k" * 32, "r-1")
    assert again.args == first.args


def test_status_1_is_worth_a_retry_and_no_other_is() -> None:
    """A scheduler that goes by the exit status alone retries what a retry helps, and nothing else."""
    assert {error for error in ERRORS if error.exit_status == 1} == {e for e in ERRORS if e.retryable}
    assert {error.exit_status for error in ERRORS} == {1, 2, 3, 4, 5}


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """Names, exit status, whether a retry makes sense, and the parents, as drawn."""
    drawn = re.findall(
        r"^ {4}([│ ├└─]*)(\w+) +(?:exit  retryable)?(\d)? *(yes|no)?", errors.__doc__ or "", re.MULTILINE
    )
    assert sorted(name for _, name, *_ in drawn) == sorted(error.__name__ for error in ERRORS)
    parents: dict[int, str] = {}
    for indent, name, status, retryable in drawn:
        error, depth = getattr(errors, name), len(indent) // 4
        parents[depth] = name
        if depth:
            assert error.__base__.__name__ == parents[depth - 1]
            assert (str(error.exit_status), "yes" if error.retryable else "no") == (status, retryable)
