"""A person's approval of an expensive run: by a form in the Prefect UI, or at the command's terminal.

It is requested before the run opens: while the run waits it holds no lease and has reserved nothing.
"""

import asyncio
import secrets
from collections.abc import Callable
from typing import Annotated, Final, Literal

from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import apause_flow_run
from prefect.input import RunInput
from pydantic import Field

from s2v_tasks.domain.estimate import Estimate, headline, markdown, needs_approval
from s2v_tasks.domain.ledger import images_bought
from s2v_tasks.errors import NotApproved
from s2v_tasks.models import WAN22_S2V_DETECT
from s2v_tasks.settings import CurateParameters

POLL_S: Final = 2
GRACE_S: Final = 60
"""Added to the server's own timeout, whose message says less than ours."""

Choice = Literal["approve", "lower the budget", "stop"]


class Approval(RunInput):
    """The form that a paused run shows."""

    decision: Choice = Field(
        title="Decision",
        description="Continue, continue and spend at most the amount below, or end without any call.",
        examples=["approve"],
    )
    budget_usd: Annotated[float, Field(gt=0)] | None = Field(
        None,
        title="Lower budget, USD",
        description="Only with 'lower the budget': the most that the run may spend.",
        examples=[1.5],
    )


Prompt = Callable[[Estimate, CurateParameters], Approval]
"""Asks for approval in place of the Prefect UI: the terminal, if the command has one."""


async def approved(
    parameters: CurateParameters, estimate: Estimate, prompt: Prompt | None = None
) -> CurateParameters:
    """The parameters of the approved run: as planned, or with a lower budget.

    Raises:
        NotApproved: The person chose to stop, or did not decide in time.
    """
    if not needs_approval(estimate, parameters.spending.approve_above_usd):
        return parameters
    problem = ""
    while True:
        approval = prompt(estimate, parameters) if prompt else await _in_the_ui(estimate, parameters, problem)
        if approval.decision == "approve":
            return parameters
        if approval.decision == "stop":
            raise NotApproved(f"not approved: {headline(estimate)}. Nothing was sent or paid")
        problem = _problem(approval.budget_usd, parameters.budget_usd)
        if approval.budget_usd is not None and not problem:
            return parameters.model_copy(update={"budget_usd": approval.budget_usd})
        if prompt:
            raise NotApproved(f"not approved: {problem} Nothing was sent or paid")


def _problem(lower_usd: float | None, planned_usd: float) -> str:
    """What is wrong with a lower budget; empty if it is fine."""
    if lower_usd is None:
        return "To lower the budget, name an amount."
    if lower_usd > planned_usd:
        return f"USD {lower_usd:g} is no lower budget than USD {planned_usd:g}; start a new run for more."
    if not images_bought(lower_usd, WAN22_S2V_DETECT.price_micro_usd):
        return f"USD {lower_usd:g} buys no image; stop instead."
    return ""


async def _in_the_ui(estimate: Estimate, parameters: CurateParameters, problem: str) -> Approval:
    """Pause the flow run until its form is submitted; its process stays, so this works anywhere."""
    above_usd, within_h = parameters.spending.approve_above_usd, parameters.advanced.approve_within_h
    wait_s = max(1, round(within_h * 3600))
    description = (
        f"{problem}\n\n{markdown(estimate)}\n"
        f"Its upper end is over USD {above_usd:g}; the run may spend"
        f" USD {parameters.budget_usd:g}. Without a decision within {within_h:g} h"
        " it ends, and nothing is sent or paid."
    )
    try:
        async with asyncio.timeout(wait_s):
            return await apause_flow_run(
                wait_for_input=Approval.with_initial_data(description=description.strip()),
                timeout=wait_s + GRACE_S,
                poll_interval=POLL_S,
                key=f"approve-{secrets.token_hex(4)}",  # a retried run asks again
            )
    except (TimeoutError, FlowPauseTimeout):
        raise NotApproved(
            f"not approved within {within_h:g} h: {headline(estimate)}, over the USD"
            f" {above_usd:g} that need approval. Nothing was sent or paid; run it again"
        ) from None
