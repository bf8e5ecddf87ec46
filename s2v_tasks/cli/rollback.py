"""``s2v rollback``: the pointer moved back to an earlier publication."""

import asyncio
from typing import Annotated

import typer

from s2v_tasks.adapters.prefect import server as prefect_server
from s2v_tasks.cli.launch import error_of, prepare_prefect
from s2v_tasks.cli.options import Debug, verb
from s2v_tasks.cli.result import Json, result

app = verb()


@app.command()
def rollback(
    out: Annotated[str, typer.Argument(help="Output folder")],
    run_id: Annotated[str, typer.Argument(help="The run to publish again, of those that were published")],
    *,
    debug: Debug = False,
    as_json: Json = False,  # noqa: ARG001  (read by main)
) -> None:
    """Move the pointer back to an earlier publication; later ones are withdrawn.

    Its file must be what was published. A withdrawn run is published again only by s2v gate with --again.
    """
    prefect_server.prestart()
    prepare_prefect(debug=debug)
    from s2v_tasks.adapters.storage.file_io import parse_path
    from s2v_tasks.adapters.storage.run_folder import RunFolder
    from s2v_tasks.flows.rollback import rollback as rollback_flow

    folder = RunFolder(parse_path(out), run_id)
    prefect_server.wait_until_ready()
    state = asyncio.run(rollback_flow(str(folder.out), run_id, return_state=True))
    error = error_of(state)
    if error is not None:
        raise error
    result().completed("rolled_back", str(state.message))
    result().opened(folder.path)
    typer.echo(state.message)
