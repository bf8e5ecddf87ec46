"""``s2v prefect``: at home on a Prefect server. Asks nobody to pay and changes nothing that is there."""

import asyncio
from typing import Annotated

import typer

from s2v_tasks.errors import S2VError, UsageError
from s2v_tasks.options import Debug

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Set up and serve on a Prefect server of your own."
)


@app.command()
def setup(
    work_pool: Annotated[str, typer.Option(help="Work pool to make, of type process.")] = "s2v",
    alert: Annotated[
        str | None,
        typer.Option(help="A notification block to tell of failed runs, such as slack-webhook/team."),
    ] = None,
    debug: Debug = False,  # noqa: ARG001  (read by main)
) -> None:
    """Make what deployments/prefect.yaml can't hold: pool, concurrency limit, block types, automations."""
    _check_server()
    asyncio.run(_set_up(work_pool, alert))


@app.command()
def serve(
    limit: Annotated[int | None, typer.Option(help="Runs at the same time, at most.", min=1)] = None,
    debug: Debug = False,  # noqa: ARG001  (read by main)
) -> None:
    """Serve curate, gate and pipeline from this process, without a work pool; Ctrl-C ends it."""
    _check_server()
    from prefect import serve as serve_deployments

    from s2v_tasks.flows.curate import curate
    from s2v_tasks.flows.gate import gate
    from s2v_tasks.flows.pipeline import pipeline
    from s2v_tasks.settings import PREFECT_TAG

    served = [
        flow.to_deployment(f"{flow.name}-served", tags=[PREFECT_TAG]) for flow in (curate, gate, pipeline)
    ]
    serve_deployments(*served, limit=limit)


async def _set_up(work_pool: str, alert: str | None) -> None:
    import httpx

    from s2v_tasks.adapters.prefect_setup import set_up

    try:
        async for item in set_up(work_pool, alert):
            typer.echo(f"{'made' if item.made else 'was there':<10} {item.kind:<18} {item.name}")
    except httpx.HTTPError as error:
        raise S2VError(
            f"Prefect's server does not answer ({type(error).__name__}); mend PREFECT_API_URL and run again:"
            " what was made stays"
        ) from None


def _check_server() -> None:
    """A server that ends with this command would forget everything."""
    from prefect.settings import Settings

    if not Settings().api.url:
        raise UsageError("no Prefect server is named: set PREFECT_API_URL, or choose a profile that does")
