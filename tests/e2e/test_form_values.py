"""Values of a form, sent to a real Prefect server: a bad one is refused before there is a run."""

import json
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from s2v_tasks.flows.curate import curate
from s2v_tasks.flows.gate import gate
from s2v_tasks.flows.pipeline import pipeline
from workbench import Bench, flow_runs, load, wait_until

CURATE = {"candidates": "c.parquet", "out": "out", "budget_usd": 1.0}
PIPELINE = {**CURATE, "downstream": "train/nightly"}
GATE = {"run_dir": "out/runs/20261001T020000Z-a1b2c3"}


@pytest.fixture(scope="module")
def deployed(prefect_api: str) -> dict[str, UUID]:
    """A deployment of each flow; nothing works on them."""
    found = {}
    for flow in (curate, gate, pipeline):
        deployment: Any = flow.to_deployment("form")
        found[flow.name] = deployment.apply()
    return found


def sent(deployment: UUID, parameters: dict[str, Any]) -> tuple[int, str]:
    """Start a run as the form does: the server's status and its message."""
    with get_client(sync_client=True) as client:
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        try:
            response = client._client.post(f"/deployments/{deployment}/create_flow_run", json=body)  # noqa: SLF001  (the client has no call for it)
        except httpx.HTTPStatusError as refused:
            response = refused.response
    return response.status_code, response.text


@pytest.mark.parametrize(
    ("flow", "good", "bad"),
    [
        ("curate", CURATE, {"candidates": ""}),
        ("curate", CURATE, {"out": None}),
        ("curate", CURATE, {"budget_usd": 0}),
        ("curate", CURATE, {"budget_usd": "much"}),
        ("curate", CURATE, {"advanced": {"limit": 0}}),
        ("curate", CURATE, {"source": {"url_column": ""}}),
        ("curate", CURATE, {"source": {"url_colum": "link"}}),
        ("curate", CURATE, {"screening": {"enabled": "perhaps"}}),
        ("curate", CURATE, {"advanced": {"estimate_sample_size": -1}}),
        ("curate", CURATE, {"thresholds": {"min_pass_rate": 1.5}}),
        ("curate", CURATE, {"thresholds": {"max_cost_usd": -1}}),
        ("curate", CURATE, {"spending": {"on_lost_response": "never"}}),
        ("curate", CURATE, {"advanced": {"ledger": "mysql://h/d"}}),
        ("curate", CURATE, {"advanced": {"ledger": "postgresql://u:password@h/d"}}),
        ("curate", CURATE, {"spending": {"approve_above_usd": -1}}),
        ("curate", CURATE, {"advanced": {"approve_within_h": 0}}),
        ("curate", CURATE, {"advanced": {"shard_size": 0}}),
        ("curate", CURATE, {"advanced": {"run_id": "../x"}}),
        ("pipeline", PIPELINE, {"downstream": ""}),
        ("pipeline", PIPELINE, {"downstream_parameter": "a b"}),
        ("pipeline", PIPELINE, {"advanced": {"max_error_share": -0.1}}),
        ("gate", GATE, {"run_dir": ""}),
        ("gate", GATE, {"thresholds": {"min_pass_rate": -1}}),
        ("gate", GATE, {"publish": "soon"}),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value)[:60],
)
def test_a_bad_value_is_refused_before_there_is_a_run(
    deployed: dict[str, UUID], flow: str, good: dict[str, Any], bad: dict[str, Any]
) -> None:
    """The server responds with 409 and names the value; no run is made of it."""
    before = len(flow_runs(flow, 50))
    status, message = sent(deployed[flow], {**good, **bad})
    assert status == 409, message
    assert "Error creating flow run: Validation failed" in message
    assert len(flow_runs(flow, 50)) == before


@pytest.mark.parametrize(
    ("flow", "parameters"),
    [
        ("curate", CURATE),
        ("curate", {**CURATE, "advanced": None, "spending": {"approve_above_usd": 20}}),
        ("curate", {**CURATE, "advanced": {"ledger": "postgresql://s2v@h/d"}}),
        ("curate", {**CURATE, "advanced": {"ledger": "postgres://h/d"}}),
        ("curate", {**CURATE, "advanced": {"ledger": "sqlite:////data/ledger.sqlite3", "run_id": "a-1"}}),
        ("curate", {**CURATE, "source": {"limit": 3}, "output": {"shard_size": 5}, "run_id": "a-1"}),
        ("curate", {**CURATE, "thresholds": {"allow_partial": True, "max_error_share": 0.2}}),
        ("pipeline", PIPELINE),
        ("gate", {**GATE, "thresholds": {"min_pass_rate": 0.4}, "publish": True}),
    ],
    ids=str,
)
def test_good_values_make_a_run(deployed: dict[str, UUID], flow: str, parameters: dict[str, Any]) -> None:
    """What the form proposes, and what it gives as examples, is taken."""
    status, message = sent(deployed[flow], parameters)
    assert status == 201, message
    with get_client(sync_client=True) as client:
        client.delete_flow_run(UUID(json.loads(message)["id"]))


async def test_a_saved_deployment_with_old_names_runs_and_is_warned(in_process: Bench) -> None:
    """Its parameters, as the server stores them, decide the run; the log names the new ones."""
    saved = {
        "candidates": in_process.candidates(in_process.portraits(5)),
        "out": str(in_process.out),
        "budget_usd": 1.0,
        "source": {"limit": 4, "sample": 3, "stratify_by": None},
        "screening": {"allow_private_hosts": True, "estimate_from": 0, "fresh_for_h": 0},
        "thresholds": {"max_error_share": 0.2, "allow_partial": True},
        "spending": {"on_unknown": "assume-paid", "account": "saved"},
        "output": {"shard_size": 2, "keep_duplicates": True},
        "run_id": "saved-run",
    }
    run = await curate(**saved)
    assert (run.run_id, run.summary.passed) == ("saved-run", 3)
    parameters = load(run.run_dir / "manifest.json")["parameters"]
    assert parameters["advanced"] | {
        "limit": 4, "estimate_sample_size": 0, "header_cache_ttl_h": 0, "max_error_share": 0.2,
        "account": "saved", "shard_size": 2, "keep_duplicates": True,
    } == parameters["advanced"]  # fmt: skip
    assert parameters["thresholds"]["publish"] == "within_budget"
    assert parameters["spending"]["on_lost_response"] == "assume-paid"
    assert load(run.run_dir / "gate.json")["thresholds"]["max_error_share"] == 0.2
    (flow_run,) = flow_runs()
    warned = wait_until(lambda: [text for text in logs_of(flow_run.id) if "parameters have moved" in text])
    assert "output.shard_size is now advanced.shard_size" in warned[0]

    again = await gate(str(run.run_dir), {"max_error_share": 0.3}, return_state=True)  # type: ignore[arg-type]
    assert again.is_completed()
    (second,) = run.run_dir.glob("gate-*.json")
    assert load(second)["thresholds"]["max_error_share"] == 0.3


def logs_of(flow_run_id: UUID) -> list[str]:
    """What a flow run has logged."""
    with get_client(sync_client=True) as client:
        wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run_id]))
        return [log.message for log in client.read_logs(wanted)]


def test_every_example_of_a_form_is_taken(deployed: dict[str, UUID]) -> None:
    """An example that the form itself refuses would be worse than none."""
    with get_client(sync_client=True) as client:
        for flow, deployment in deployed.items():
            schema = client.read_deployment(deployment).parameter_openapi_schema
            assert schema is not None
            required = {"curate": CURATE, "gate": GATE, "pipeline": PIPELINE}[flow]
            for group, node in [(None, schema), *schema["definitions"].items()]:
                for name, field in node["properties"].items():
                    for example in field.get("examples", []):
                        value = {name: example} if group is None else {group.lower(): {name: example}}
                        status, message = sent(deployment, {**required, **value})
                        assert status == 201, message
                        client.delete_flow_run(UUID(json.loads(message)["id"]))
