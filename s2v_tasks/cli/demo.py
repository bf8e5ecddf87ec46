"""``s2v demo``: a curation of sample images against the emulated service."""

import os
from pathlib import Path
from typing import Annotated

import typer

from s2v_tasks.adapters.home import expanded
from s2v_tasks.adapters.prefect import server as prefect_server
from s2v_tasks.cli.curate import run_curation
from s2v_tasks.cli.options import Debug, verb
from s2v_tasks.cli.result import Json, result
from s2v_tasks.settings import CurateParameters, Screening

app = verb()


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that is written.")] = Path("s2v-demo"),
    debug: Debug = False,
    as_json: Json = False,  # noqa: ARG001  (read by main)
) -> None:
    """Curate sample images against an emulated service: no key, no cost, loopback only."""
    # Also Prefect's: another server, database or limit is not the demo's.
    for name in [n for n in os.environ if n.startswith(("S2V_", "DASHSCOPE_", "PREFECT_"))]:
        del os.environ[name]
    from s2v_tasks.adapters.storage.run_folder import open_run_folder
    from s2v_tasks.emulator import Emulator, EmulatorOptions
    from s2v_tasks.emulator.samples import write_candidates
    from s2v_tasks.runtime.plan import check_out

    out = Path(expanded(str(out)))
    check_out(out)
    os.environ["PREFECT_HOME"] = str((out / ".prefect").resolve())
    os.environ["PREFECT_API_URL"] = prefect_server.start()
    with Emulator(EmulatorOptions()) as emulator:
        os.environ |= {"DASHSCOPE_API_KEY": "demo", "DASHSCOPE_HTTP_BASE_URL": emulator.base_url}
        out.mkdir(parents=True, exist_ok=True)
        candidates = out / "candidates.parquet"
        write_candidates(candidates, emulator.origin)
        parameters = CurateParameters(
            candidates=str(candidates),
            out=str(out),
            budget_usd=0.10,
            screening=Screening(allow_private_hosts=True),  # the samples are on loopback
        )
        typer.echo("The vendor's service is emulated: real HTTP, its rate limit, no real charge.")
        status = run_curation(parameters, new_run=True, debug=debug)
        typer.echo(f"invoice    {len(emulator.invoice())} calls billed by the emulated service")
    if (run_dir := result().run_dir) and (report := open_run_folder(run_dir).report).is_file():
        typer.echo(f"report     {report}")
    raise typer.Exit(status)
