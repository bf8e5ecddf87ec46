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
    "SCHEMA", "CurateParameters", "Curated", "Emulator", "EmulatorOptions", "Output", "Publication",
    "S2VError", "Screening", "Source", "Spending", "Thresholds", "curate", "open_curation", "pipeline",
]  # fmt: skip
COLUMNS = [
    "row", "image_key", "outcome", "reason", "duplicate_of", "check_pass", "humanoid", "code", "message",
    "request_id", "http_status", "attempts", "billing", "cost_usd", "paid_usd", "from_ledger", "width_px",
    "height_px", "image_format", "image_traits", "judged_at",
]  # fmt: skip
ERRORS = [
    error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, errors.S2VError) and error.__module__ == errors.__name__
]


def test_the_public_names_are_these() -> None:
    """Adding a name is a decision, taking one away breaks somebody."""
    assert s2v_tasks.__all__ == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_loads_alone(name: str) -> None:
    """In a fresh process, as the first thing that is imported."""
    ran = subprocess.run(
        [sys.executable, "-c", f"from s2v_tasks import {name}; print({name}.__class__)"],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert "module" not in ran.stdout


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
