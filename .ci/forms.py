"""Prints the parameter schemas that Prefect stores with a deployment of each flow: its form in the UI."""

import json
import sys

from s2v_tasks.flows.curate import curate
from s2v_tasks.flows.gate import gate
from s2v_tasks.flows.pipeline import pipeline

for flow in (curate, gate, pipeline):
    deployment = flow.to_deployment(flow.name)
    schema = deployment._parameter_openapi_schema.model_dump()  # noqa: SLF001  (what `deploy` sends)
    numbers = json.loads(json.dumps(schema), parse_int=float)  # older pydantic writes 1.0 for 1
    json.dump({flow.name: numbers}, sys.stdout, indent=1, sort_keys=True)
