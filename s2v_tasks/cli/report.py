"""``s2v report``: a run's report.html, written again."""

from typing import Annotated

import typer

from s2v_tasks.cli.options import Debug, verb
from s2v_tasks.cli.result import Json, result

app = verb()


@app.command()
def report(
    run_dir: Annotated[str, typer.Argument(help="Folder of a run: OUT/runs/<run_id>")],
    *,
    debug: Debug = False,  # noqa: ARG001  (read by main)
    as_json: Json = False,  # noqa: ARG001  (as well)
) -> None:
    """Write a run's report.html again: no call, no cost, nothing is fetched."""
    from s2v_tasks.runtime.run_report import write_report

    path = write_report(run_dir)
    result().opened(path.parent)
    typer.echo(f"report     {path}")
