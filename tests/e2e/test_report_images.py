"""The thumbnails of a run of the command: after the publication, whatever becomes of them."""

from collections.abc import Callable

import polars as pl
import pytest
from workbench import Bench, Ran, pointer

pytestmark = pytest.mark.ci


def test_a_run_keeps_thumbnails_of_its_images(
    in_process: Bench, command: Callable[..., Ran], caplog: pytest.LogCaptureFixture
) -> None:
    """One for each image of the sample; if they can't be written, one line says so, and the rest stands."""
    bench = in_process
    bench.always = ()
    candidates = bench.candidates([*bench.portraits(2), bench.url(1, "crowd"), "http://127.0.0.1:1/x.jpg"])
    arguments = bench.curating(candidates, "--max-unreachable-share", 1, "--min-pass-rate", 0.1)

    assert command(*arguments, "--run-id", "kept").status == 0
    tiles = pl.read_parquet(bench.out / "runs" / "kept" / "thumbnails.parquet")
    assert set(tiles.select("sheet", "note").iter_rows()) == {
        ("failed/several_humans", None),
        ("passed", None),
        ("screened_out/refused", "not_fetched"),
    }

    (bench.out / "runs" / "failing" / "thumbnails.parquet" / "in the way").mkdir(parents=True)
    assert command(*arguments, "--run-id", "failing").status == 0
    (warning,) = [message for message in caplog.messages if "write_contact_sheets failed" in message]
    assert "the run's result stands" in warning
    assert pointer(bench.out).run_id == "failing"
