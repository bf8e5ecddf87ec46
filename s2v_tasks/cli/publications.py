"""``s2v publications``: what was published in an output folder."""

from typing import Annotated

import typer

from s2v_tasks.cli.options import Debug, verb
from s2v_tasks.cli.result import Json, result

app = verb()


@app.command()
def publications(
    out: Annotated[str, typer.Argument(help="Output folder")],
    *,
    debug: Debug = False,  # noqa: ARG001  (read by main)
    as_json: Json = False,  # noqa: ARG001  (as well)
) -> None:
    """List what was published in an output folder, and what was withdrawn.

    The newest comes last.
    """
    from s2v_tasks.adapters.storage import history, pointer
    from s2v_tasks.adapters.storage.file_io import parse_path
    from s2v_tasks.cli.tables import print_table
    from s2v_tasks.domain.by_source import share

    path = parse_path(out)
    current = pointer.read(path)
    past = history.read(path, current)
    current_name = next(
        (one.name for one in reversed(past) if current and one.publication.run_id == current.run_id), None
    )
    found, rows = [], []
    for one in past:
        said, is_current = one.publication, one.name == current_name
        states = [state for state, holds in (("current", is_current), ("withdrawn", one.withdrawn)) if holds]
        found.append(
            {
                "published_at": one.at.isoformat(),
                "run_id": said.run_id,
                "rows": said.rows,
                "pass_rate": said.gate.pass_rate,
                "dataset_cost_usd": said.dataset_cost_usd,
                "current": is_current,
                "withdrawn": one.withdrawn,
            }
        )
        rows.append(
            [
                f"{one.at:%Y-%m-%d %H:%M}",
                said.run_id,
                f"{said.rows:,}",
                share(said.gate.pass_rate),
                f"{said.dataset_cost_usd:,.4f}",
                " ".join(states),
            ]
        )
    result().details |= {"current": None if current is None else current.model_dump(), "publications": found}
    result().completed("done", f"{len(found)} publications in {path}")
    if not rows:
        typer.echo(f"nothing is published in {path}")
        return
    print_table(["UTC", "run", "rows", "pass_rate", "USD", "state"], rows, texts=["UTC", "run", "state"])
    if any(one.name == current_name and one.withdrawn for one in past):
        typer.echo("a rollback was interrupted; run the same s2v rollback again", err=True)
