"""``s2v prefect``: set-up of a Prefect server. Costs nothing and changes nothing that is there."""

import asyncio
from typing import Annotated

import typer

from s2v_tasks.adapters.http_environment import check_http_environment
from s2v_tasks.adapters.prefect.server import configured_api
from s2v_tasks.cli.options import Debug
from s2v_tasks.cli.result import Json, result
from s2v_tasks.errors import PrefectUnavailable, UsageError

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Set up and serve on a Prefect server of your own."
)


@app.command()
def setup(
    work_pool: Annotated[str, typer.Option(help="Work pool to make, of type process.")] = "s2v",
    alert: Annotated[
        str | None,
        typer.Option(help="A notification block that is sent failed runs, such as slack-webhook/team."),
    ] = None,
    debug: Debug = False,  # noqa: ARG001  (read by main)
    as_json: Json = False,  # noqa: ARG001  (as well)
) -> None:
    """Make what deployments/prefect.yaml can't hold: pool, concurrency limit, block types, automations."""
    _check_server()
    asyncio.run(_set_up(work_pool, alert))
    result().completed("done", "the server is set up")


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

    from s2v_tasks.adapters.prefect.setup import set_up

    try:
        async for item in set_up(work_pool, alert):
            result().details.setdefault("made" if item.made else "was_there", []).append(
                f"{item.kind} {item.name}"
            )
            typer.echo(f"{'made' if item.made else 'was there':<10} {item.kind:<18} {item.name}")
    except httpx.HTTPError as error:
        raise PrefectUnavailable(
            f"Prefect's server does not respond ({type(error).__name__}); fix PREFECT_API_URL and run again:"
            " what was made stays"
        ) from None


def _check_server() -> None:
    """A server that ends with this command would lose everything, and one must respond."""
    check_http_environment()
    url = configured_api()
    if not url:
        raise UsageError("no Prefect server is named: set PREFECT_API_URL, or choose a profile that does")
    from s2v_tasks.adapters.prefect.api_errors import check_api

    check_api(url)
