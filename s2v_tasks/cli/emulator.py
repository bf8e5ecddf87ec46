"""``s2v emulator``: the emulated detect service, as a process of its own."""

from pathlib import Path
from typing import Annotated

import typer

from s2v_tasks.cli.options import Debug, verb

app = verb()


@app.command()
def emulator(
    port: Annotated[int, typer.Option(help="Port on loopback; 0 takes a free one.")] = 8765,
    window: Annotated[
        str, typer.Option(help="How calls are counted: sliding, fixed, leaky, minute.")
    ] = "sliding",
    limit: Annotated[float, typer.Option(help="Calls allowed a second.")] = 5.0,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            help="An error on demand, such as InternalError:rate=0.05 or drop:match=*/slow/*,times=2"
        ),
    ] = None,
    latency_s: Annotated[float, typer.Option(help="Seconds a call takes.")] = 0.0,
    jitter_s: Annotated[float, typer.Option(help="Up to so many seconds more.")] = 0.0,
    arrival_jitter_s: Annotated[float, typer.Option(help="Calls arrive up to so many seconds late.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Repeats jitter and faults.")] = 0,
    invoice: Annotated[Path | None, typer.Option(help="Append every billed call to this file.")] = None,
    debug: Debug = False,  # noqa: ARG001  (read by main)
) -> None:
    """Run the emulated detect service on loopback, with sample images and an invoice."""
    from s2v_tasks.emulator import EmulatorOptions, serve

    options = EmulatorOptions(
        port=port,
        window=window,
        limit=limit,
        faults=tuple(fault or ()),
        latency_s=latency_s,
        jitter_s=jitter_s,
        arrival_jitter_s=arrival_jitter_s,
        seed=seed,
        invoice_path=invoice,
    )
    serve(options, ready=lambda url: typer.echo(f"DASHSCOPE_HTTP_BASE_URL={url}"))
