"""A person's yes before a dear run: on Prefect's page as a form, or wherever the command has its terminal.

It is asked for before the run opens: while somebody thinks about it no lease is held and nothing is reserved.
"""

import asyncio
import secrets
from collections.abc import Callable
from contextvars import ContextVar
from typing import Annotated, Final, Literal

from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import apause_flow_run
from prefect.input import RunInput
from pydantic import Field

from s2v_tasks.errors import NotApproved
from s2v_tasks.estimate import Estimate, headline, markdown, needs_approval
from s2v_tasks.ledger import images_bought
from s2v_tasks.models import WAN22_S2V_DETECT
from s2v_tasks.settings import CurateParameters

POLL_S: Final = 2
GRACE_S: Final = 60
"""The server gives a pause up with words of its own; ours come first."""

Choice = Literal["approve", "lower the budget", "stop"]


class Approval(RunInput):
    """The form that a paused run shows."""

    decision: Choice = Field(
        title="Decision",
        description="Go on as asked, go on and spend at most the amount below, or end without any call.",
        examples=["approve"],
    )
    budget_usd: Annotated[float, Field(gt=0)] | None = Field(
        None,
        title="Lower budget, USD",
        description="Only with 'lower the budget': the most that the run may spend.",
        examples=[1.5],
    )


Ask = Callable[[Estimate, CurateParameters], Approval]

ASK: ContextVar[Ask | None] = ContextVar("s2v_ask", default=None)
"""Who is asked instead of Prefect's page: the terminal, if the command has one."""


async def approved(parameters: CurateParameters, estimate: Estimate) -> CurateParameters:
    """The parameters that may be worked with: as asked, or with a lower budget.

    Raises:
        NotApproved: Somebody said stop, or nobody said anything in time.
    """
    if not needs_approval(estimate, parameters.spending.approve_above_usd):
        return parameters
    ask, problem = ASK.get(), ""
    while True:
        answer = ask(estimate, parameters) if ask else await _on_the_page(estimate, parameters, problem)
        if answer.decision == "approve":
            return parameters
        if answer.decision == "stop":
            raise NotApproved(f"not approved: {headline(estimate)}. Nothing was asked or paid")
        problem = _problem(answer.budget_usd, parameters.budget_usd)
        if answer.budget_usd is not None and not problem:
            return parameters.model_copy(update={"budget_usd": answer.budget_usd})
        if ask:
            raise NotApproved(f"not approved: {problem} Nothing was asked or paid")


def _problem(lower_usd: float | None, asked_usd: float) -> str:
    """What is wrong with a lower budget, in words; empty if it will do."""
    if lower_usd is None:
        return "To lower the budget, name an amount."
    if lower_usd > asked_usd:
        return f"USD {lower_usd:g} is no lower budget than USD {asked_usd:g}; start a new run for more."
    if not images_bought(lower_usd, WAN22_S2V_DETECT.price_micro_usd):
        return f"USD {lower_usd:g} buys no picture; stop instead."
    return ""


async def _on_the_page(estimate: Estimate, parameters: CurateParameters, problem: str) -> Approval:
    """Pause the flow run until its form is sent; the process stays, so it works wherever the flow runs."""
    spending = parameters.spending
    wait_s = max(1, round(spending.approve_within_h * 3600))
    words = (
        f"{problem}\n\n{markdown(estimate)}\n"
        f"Its upper end is over USD {spending.approve_above_usd:g}; the run may spend"
        f" USD {parameters.budget_usd:g}. Without an answer within {spending.approve_within_h:g} h"
        " it ends, and nothing is asked or paid."
    )
    try:
        async with asyncio.timeout(wait_s):
            return await apause_flow_run(
                wait_for_input=Approval.with_initial_data(description=words.strip()),
                timeout=wait_s + GRACE_S,
                poll_interval=POLL_S,
                key=f"approve-{secrets.token_hex(4)}",  # a retried run asks anew
            )
    except (TimeoutError, FlowPauseTimeout):
        raise NotApproved(
            f"not approved within {spending.approve_within_h:g} h: {headline(estimate)}, over the USD"
            f" {spending.approve_above_usd:g} that need a yes. Nothing was asked or paid; run it again"
        ) from None
