"""``s2v estimate``: what a run would cost."""

import asyncio
from typing import Final

from s2v_tasks.cli.curate import private_hosts
from s2v_tasks.cli.launch import warn
from s2v_tasks.cli.options import Candidates, Debug, Given, Query, one_of, takes, verb
from s2v_tasks.cli.result import Json, result
from s2v_tasks.settings import EstimateParameters

app = verb()

MATTERS: Final = (
    "budget_usd",
    "source.url_column",
    "source.segment_column",
    "source.sample",
    "thresholds.min_pass_rate",
    "thresholds.max_missed_share",
    "screening.enabled",
    "screening.faces",
    "screening.allow_private_hosts",
    "spending.on_lost_response",
    "advanced.limit",
    "advanced.seed",
    "advanced.allow_ports",
    "advanced.header_cache_ttl_h",
    "advanced.estimate_sample_size",
    "advanced.ledger",
)
"""The parameters of a run that an estimate depends on."""


@app.command()
@takes(EstimateParameters, MATTERS)
def estimate(
    candidates: Candidates = None,
    query: Query = None,
    *,
    given: Given,
    debug: Debug = False,  # noqa: ARG001  (read by main)
    as_json: Json = False,  # noqa: ARG001  (as well)
) -> None:
    """Report what a curation run would cost, without any paid call: no key is needed."""
    from rich.console import Console

    from s2v_tasks.cli.terminal import estimated
    from s2v_tasks.domain.estimate import NOTE, headline
    from s2v_tasks.runtime.estimation import estimate_inputs
    from s2v_tasks.runtime.plan import estimate_plan

    planned = estimate_plan(given.as_model(EstimateParameters, candidates=one_of(candidates, query)))
    warn([*given.warnings, *private_hosts(planned.parameters)])
    rate_per_s = planned.scope.detector.rate_per_s
    found = asyncio.run(estimate_inputs(planned, rate_per_s, checks_faces=True)).estimate
    result().details["estimate"] = found.figures()
    result().completed("done", headline(found))
    console = Console(highlight=False)
    console.print(estimated(found))
    console.print(NOTE, style="dim")
