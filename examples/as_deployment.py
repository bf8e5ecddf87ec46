"""A stage of your own flow, as a deployment: it runs on its own worker, where the key and the ledger are."""

import json
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.deployments import arun_deployment


@flow
async def prepare_training(
    candidates: str, out: str, budget_usd: float, deployment: str = "curate/curate", **groups: Any
) -> str:
    """Have portraits curated elsewhere, and give the path of the file to train on."""
    parameters = {"candidates": candidates, "out": out, "budget_usd": budget_usd, **groups}
    run = await arun_deployment(deployment, parameters=parameters)
    if run.state is None or not run.state.is_completed():  # a run that is not done yet comes back, too
        raise RuntimeError(f"not curated: {run.state and run.state.message}")
    return published(out)


def published(out: str) -> str:
    """The path of the file that is published below an output folder; flow and worker must share that."""
    pointer = json.loads(Path(out, "published", "current.json").read_text("utf-8"))
    return str(pointer["path"])
