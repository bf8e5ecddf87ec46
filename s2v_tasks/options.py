"""The options that several ``s2v`` commands take, each in one spelling."""

from typing import Annotated

import typer

Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and Prefect's own log.")]
"""Read by `s2v_tasks.cli.main`, wherever on the line it stands."""

Candidates = Annotated[
    str | None,
    typer.Argument(
        help="parquet, csv or ndjson: a path, folder, glob, s3://..., hf://...", show_default=False
    ),
]
Query = Annotated[
    str | None, typer.Option(help="Instead: a SELECT to the database that S2V_SOURCE_URL names.")
]
UrlColumn = Annotated[
    str, typer.Option(help="Column with the image URLs; image.url for a field of a struct.")
]
Limit = Annotated[int | None, typer.Option(help="Only the first N input rows.")]
Sample = Annotated[int | None, typer.Option(help="Only N of them, drawn by lot.")]
Seed = Annotated[int, typer.Option(help="Draws the same sample again.")]
StratifyBy = Annotated[
    str | None, typer.Option(help="Every value of this column gets its share of the sample.")
]
OnUnknownAnswer = Annotated[
    str, typer.Option(help="When an answer is lost: retry (once more) or assume-paid (never again).")
]
NoScreen = Annotated[bool, typer.Option("--no-screen", help="Judge every picture unseen.")]
AllowPort = Annotated[
    list[int] | None,
    typer.Option(min=1, max=65_535, help="Also fetch from this port; 80, 443, 8080, 8443 always."),
]
AllowPrivateHosts = Annotated[
    bool, typer.Option("--allow-private-hosts", help="For intranet pictures; never metadata addresses.")
]
FreshFor = Annotated[
    float, typer.Option(help="Pictures whose header was read within so many hours are not looked at again.")
]
Runner = Annotated[
    str, typer.Option(help="Where to screen: loop (here), or Prefect's runner for processes, dask or ray.")
]
MinPassRate = Annotated[float | None, typer.Option(help="Lowest passed / attempted. [default: 0.5]")]
MaxCost = Annotated[
    float | None, typer.Option(help="Highest cost of the data set over all runs, USD. [default: no limit]")
]
MaxCostPerApproved = Annotated[
    float | None, typer.Option(help="Highest cost per approved picture, USD. [default: no limit]")
]
MaxUnknown = Annotated[float | None, typer.Option(help="Highest share of lost answers. [default: 0.05]")]
MaxError = Annotated[float | None, typer.Option(help="Highest share of errors. [default: 0.10]")]
MaxUnreachable = Annotated[
    float | None, typer.Option(help="Highest share of unreachable pictures. [default: 0.20]")
]
AllowPartial = Annotated[
    bool, typer.Option("--allow-partial", help="Pictures the budget did not reach don't close the gate.")
]
