"""What every ``s2v`` command takes."""

from typing import Annotated

import typer

Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and Prefect's own log.")]
"""Read by `s2v_tasks.cli.main`, wherever on the line it stands."""
