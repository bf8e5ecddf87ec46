"""``s2v gate``: the gate of a finished run, evaluated again."""

import asyncio
from typing import Annotated, Final

import typer

from s2v_tasks.adapters.prefect import server as prefect_server
from s2v_tasks.cli.launch import error_of, prepare_prefect, warn
from s2v_tasks.cli.options import Debug, Given, checked, takes, verb
from s2v_tasks.cli.result import Json, result
from s2v_tasks.errors import UsageError
from s2v_tasks.settings import CurateParameters
from s2v_tasks.settings.fields import declared

app = verb()

THRESHOLDS: Final = [".".join(one.path) for one in declared(CurateParameters) if one.limit]


@app.command()
@takes(CurateParameters, [*THRESHOLDS, "advanced.data_docs"], show_default=False)
def gate(
    run_dir: Annotated[str, typer.Argument(help="Folder of a finished run: OUT/runs/<run_id>")],
    *,
    given: Given,
    publish: Annotated[bool, typer.Option("--publish", help="Publish the run if the gate is open.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="With --publish: also if a rollback withdrew the run.")
    ] = False,
    debug: Debug = False,
    as_json: Json = False,  # noqa: ARG001  (read by main)
) -> None:
    """Evaluate the gate of a finished run again: no call, no cost.

    Thresholds that are not named are those of the run.
    """
    prefect_server.prestart()
    from s2v_tasks.adapters.storage import pointer
    from s2v_tasks.adapters.storage.run_folder import open_run_folder

    data_docs = given.values.get("advanced", {}).pop("data_docs", False)
    folder = open_run_folder(run_dir)
    run = folder.read().parameters.model_dump()
    for group, values in given.values.items():
        run[group] |= values
    parameters = checked(CurateParameters, run)
    warn(given.warnings)
    prepare_prefect(debug=debug)
    from s2v_tasks.adapters import gx
    from s2v_tasks.flows.gate import gate as gate_flow

    gx.preload()
    thresholds, advanced = parameters.thresholds, parameters.advanced
    shares = advanced.model_dump(include={"max_error_share", "max_unknown_share"})
    prefect_server.wait_until_ready()
    options = {"again": again, "data_docs": data_docs, **shares}
    state = asyncio.run(gate_flow(run_dir, thresholds, publish, **options, return_state=True))
    error = error_of(state)
    if error is not None:
        result().ended(error)
    elif not publish:
        result().completed("gate_open", str(state.message))
    else:
        named = pointer.read(folder.out)
        is_named = named is not None and named.run_id == folder.run_id
        result().completed("published" if is_named else "superseded", str(state.message))
    if not isinstance(error, UsageError):
        result().opened(folder.path)
    typer.echo(state.message)
    raise typer.Exit(0 if error is None else error.exit_status)
