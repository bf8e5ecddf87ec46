"""Parameters that have moved: saved deployments, and manifests, with the old names go on working."""

import json
from typing import Any

import pytest
from pydantic import ValidationError
from pydantic_core import to_json

from s2v_tasks import CurateParameters, Output, Screening, Source, Spending, Thresholds
from s2v_tasks.settings.fields import declared
from s2v_tasks.settings.moved import MOVED, deprecation, identifying

NEEDED = {"candidates": "c.parquet", "out": "out", "budget_usd": 1.0}
BEFORE: dict[str, Any] = {
    "candidates": "c.parquet",
    "budget_usd": 1.0,
    "source": {
        "url_column": "url", "limit": 9, "sample": 5, "seed": 7, "stratify_by": "kind",
        "segment_column": None,
    },
    "screening": {
        "enabled": True, "allow_private_hosts": True, "allow_ports": [81], "fresh_for_h": 2.5,
        "same_content": True, "runner": "dask", "shards_at_once": 3, "estimate_from": 11,
    },
    "spending": {
        "ledger": "sqlite:////l.sqlite3", "ledger_block": None, "account": "a", "credentials": None,
        "budget_name": "b", "on_unknown": "assume-paid", "approve_above_usd": 2.0, "approve_within_h": 4.0,
    },
    "out": "out",
    "thresholds": {
        "min_pass_rate": 0.6, "max_unknown_share": 0.1, "max_error_share": 0.3, "max_unreachable_share": 0.4,
        "allow_partial": True, "max_cost_usd": None, "max_cost_per_approved_usd": 0.5,
    },
    "output": {"keep_duplicates": True, "shard_size": 12},
}  # fmt: skip
"""The ``parameters`` of a manifest as the first version wrote them, at other values than the defaults."""

NOW = {
    "candidates": "c.parquet",
    "budget_usd": 1.0,
    "source": {"url_column": "url", "segment_column": "kind", "sample": 5},
    "screening": {
        "enabled": True, "dedupe": "bytes", "faces": "off", "allow_private_hosts": True,
    },
    "spending": {
        "credentials": None, "ledger_block": None, "budget_name": "b", "approve_above_usd": 2.0,
        "on_lost_response": "assume-paid",
    },
    "advanced": {
        "limit": 9, "seed": 7, "allow_ports": [81], "header_cache_ttl_h": 2.5, "runner": "dask",
        "max_concurrent_shards": 3, "estimate_sample_size": 11, "max_error_share": 0.3,
        "max_unknown_share": 0.1,
        "ledger": "sqlite:////l.sqlite3", "account": "a", "approve_within_h": 4.0, "shard_size": 12,
        "keep_duplicates": True, "report_images": True, "data_docs": False, "run_id": None,
    },
    "out": "out",
    "thresholds": {
        "min_pass_rate": 0.6, "max_unreachable_share": 0.4, "max_missed_share": 0.05, "max_cost_usd": None,
        "max_cost_per_approved_usd": 0.5, "max_pass_rate_drop": None, "publish": "within_budget",
    },
}  # fmt: skip


def nested(path: str, value: object) -> dict[str, Any]:
    group, _, name = path.rpartition(".")
    return {group: {name: value}} if group else {name: value}


def test_a_manifest_of_the_first_version_is_read_whole() -> None:
    """Every value is at its new place, and what is written again has new names alone."""
    read = CurateParameters.model_validate_json(json.dumps(BEFORE))
    assert read.model_dump(mode="json") == NOW
    assert set(read.moved_parameters) == set(MOVED) - {"run_id", "screening.report_images"}
    again = CurateParameters.model_validate_json(read.model_dump_json())
    assert again.moved_parameters == {}
    assert again.model_dump() == read.model_dump()


@pytest.mark.parametrize(
    "before", [BEFORE, {**BEFORE, "budget_usd": 1e-5, "screening": {}, "thresholds": {}}]
)
def test_a_run_of_the_first_version_is_recognised(before: dict[str, Any]) -> None:
    """What identifies a run is the text that the first version hashed: its parameters, in its order."""
    before = {**before, "source": {**before["source"], "stratify_by": None}}
    parameters = CurateParameters.model_validate(before)
    first = {
        name: {**DEFAULTS.get(name, {}), **value} if isinstance(value, dict) else value
        for name, value in before.items()
    }
    first["screening"] = {
        k: v for k, v in first["screening"].items() if k not in ("runner", "shards_at_once")
    }
    assert to_json(identifying(parameters.model_dump())) == to_json(first)


def test_what_a_run_does_identifies_it_and_where_it_screens_does_not() -> None:
    """Each parameter makes another run, but for the task runner, its shards and the run's own name."""
    free = {"advanced.runner", "advanced.max_concurrent_shards", "advanced.run_id"}
    free |= {"advanced.data_docs", "advanced.report_images"}
    first = CurateParameters(**NEEDED)
    for one in declared(CurateParameters):
        path = ".".join(one.path)
        group, name = (first, one.name) if len(one.path) == 1 else (getattr(first, one.path[0]), one.name)
        changed = group.model_copy(update={name: "changed"})
        other = changed if group is first else first.model_copy(update={one.path[0]: changed})
        same = identifying(other.model_dump(warnings=False)) == identifying(first.model_dump())
        assert same == (path in free) or path in BY_CHOICE, path


BY_CHOICE = {"screening.dedupe", "thresholds.publish"}
"""Their values are closed sets; an unknown one can't be distinguished from the default."""
DEFAULTS = {
    "screening": {
        "enabled": True, "allow_private_hosts": False, "allow_ports": [], "fresh_for_h": 24.0,
        "same_content": False, "estimate_from": 200,
    },
    "thresholds": {
        "min_pass_rate": 0.5, "max_unknown_share": 0.05, "max_error_share": 0.1, "max_unreachable_share": 0.2,
        "allow_partial": False, "max_cost_usd": None, "max_cost_per_approved_usd": None,
    },
}  # fmt: skip
"""Of the first version, in its order."""

VALUES: dict[str, Any] = {
    f"{group}.{name}": value
    for group, values in BEFORE.items()
    if isinstance(values, dict)
    for name, value in values.items()
} | {"screening.report_images": False}


@pytest.mark.parametrize("old", MOVED)
def test_an_old_path_sets_the_new_one(old: str) -> None:
    """As a saved deployment sets it: alone, beside what the form has now."""
    value = VALUES.get(old, "20261001T020000Z-a1b2c3")
    parameters = CurateParameters.model_validate({**NEEDED, **nested(old, value)})
    group, _, name = MOVED[old].rpartition(".")
    default = getattr(getattr(CurateParameters(**NEEDED), group), name)
    found = getattr(getattr(parameters, group), name)
    wanted = {**NOW[group], "run_id": value, "report_images": value}[name]  # type: ignore[dict-item]
    assert (list(found) if isinstance(found, tuple) else found) == wanted
    assert found != default
    assert list(parameters.moved_parameters) == [old]
    assert f"{old} is now {MOVED[old]}" in deprecation(parameters.moved_parameters)


def test_the_new_name_counts_where_both_are_given() -> None:
    """Half-migrated deployments do what the form shows."""
    parameters = CurateParameters.model_validate(
        {
            **NEEDED,
            "source": {"limit": 1, "stratify_by": "old", "segment_column": "new"},
            "advanced": {"limit": 2},
        }
    )
    assert (parameters.advanced.limit, parameters.source.segment_column) == (2, "new")
    assert "must also pass the gate on its own" in deprecation(parameters.moved_parameters)


def test_groups_made_in_code_are_read_the_same_way() -> None:
    """Code that was written for the old groups goes on working, through a copy and a pickle."""
    parameters = CurateParameters(
        **NEEDED,
        source=Source(limit=3),  # type: ignore[call-arg]
        screening=Screening(fresh_for_h=1),  # type: ignore[call-arg]
        thresholds=Thresholds(allow_partial=True),  # type: ignore[call-arg]
        spending=Spending(account="a"),  # type: ignore[call-arg]
        output=Output(shard_size=4).model_copy(),  # type: ignore[call-arg]
    )
    advanced = parameters.advanced
    assert (advanced.limit, advanced.header_cache_ttl_h, advanced.account, advanced.shard_size) == (
        3,
        1,
        "a",
        4,
    )
    assert parameters.thresholds.publish == "within_budget"


@pytest.mark.parametrize(
    "bad",
    [
        {"source": {"limit": 0}},
        {"screening": {"same_content": "perhaps"}},
        {"screening": {"same_content": True, "enabled": False}},
        {"thresholds": {"max_error_share": 2}},
        {"output": {"shard_size": 0}},
        {"output": {"shard": 1}},
        {"spending": {"ledger": "postgresql://u:p@h/d"}},
        {"run_id": "../x"},
    ],
    ids=str,
)
def test_an_old_name_keeps_the_bounds_of_the_new_one(bad: dict[str, Any]) -> None:
    """What the new field refuses is refused, and so is a name that never was."""
    with pytest.raises(ValidationError):
        CurateParameters.model_validate({**NEEDED, **bad})


def test_advanced_is_there_without_being_given() -> None:
    """The form's switch on None means the defaults."""
    assert CurateParameters.model_validate({**NEEDED, "advanced": None}) == CurateParameters(**NEEDED)
