"""What several verbs do around a flow: prepare Prefect, warn, and read how it ended."""

import asyncio
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import typer

from s2v_tasks.adapters.prefect import server as prefect_server
from s2v_tasks.cli.result import result
from s2v_tasks.errors import PrefectUnavailable, S2VError

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State


def prepare_prefect(*, debug: bool) -> None:
    """Prefect, on the user's server or one of our own; its log stays in its UI by default."""
    if not debug:
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    prefect_server.ensure_prefect_api()


def warn(warnings: Iterable[str]) -> None:
    """Print warnings of a command that can begin: one that can't prints one line, what is wrong with it."""
    for warning in warnings:
        result().warnings.append(warning)
        typer.echo(f"warning: {warning}", err=True)


def error_of(state: "State[Any]") -> S2VError | None:
    """The obstacle that ended a flow, or None if it completed."""
    if state.is_completed():
        return None
    error = asyncio.run(state.aresult(raise_on_failure=False))
    if isinstance(error, S2VError):
        return error
    ended = f"the flow ended {state.name}: {state.message}; --debug shows more"
    return PrefectUnavailable(ended) if state.is_crashed() else S2VError(ended)
