"""Links that expire and are signed again: the same images under several URLs, the older ones dead."""

from collections.abc import Callable

import polars as pl
import pytest
from many_images import ImageServer
from workbench import Bench, Ran


@pytest.mark.ci
@pytest.mark.parametrize("newest_is_fresh", [True, False])
def test_images_whose_urls_were_signed_again_pass_once(
    in_process: Bench, command: Callable[..., Ran], *, newest_is_fresh: bool
) -> None:
    """Three expired rows and the same three signed again, in either order: three calls, three published."""
    with ImageServer() as images:
        urls = {
            signature: [f"{images.origin}/{n}.png?X-Amz-Date=1&X-Amz-Signature={signature}" for n in range(3)]
            for signature in ("expired", "fresh")
        }
        order = ("expired", "fresh") if newest_is_fresh else ("fresh", "expired")
        candidates = in_process.candidates([url for name in order for url in urls[name]], n=list(range(6)))
        estimate = command("estimate", candidates, "--allow-private-hosts")
        ran = command(*in_process.curating(candidates, "--min-pass-rate", 1))
    assert ran.status == 0, ran.out + ran.err
    assert sorted(in_process.billed_urls()) == urls["fresh"]
    assert in_process.received() == 3
    first, other = (3, 0) if newest_is_fresh else (0, 3)
    rows = ran.verdicts.select("outcome", "duplicate_of").rows()
    assert rows[first : first + 3] == [("passed", None)] * 3
    assert rows[other : other + 3] == [("duplicate", first + n) for n in range(3)]
    approved = pl.read_parquet(ran.run_dir / "approved.parquet")
    assert approved["image_url"].to_list() == urls["fresh"]
    assert estimate.status == 0, estimate.err
    assert "screened out for free 0 (0 of 3 sampled)" in " ".join((estimate.out + estimate.err).split())
    with_copies = command(
        *in_process.curating(candidates, "--keep-duplicates", out=in_process.folder / "all"),
        "--ledger", f"sqlite:///{in_process.out}/ledger.sqlite3",
    )  # fmt: skip
    assert with_copies.status == 0, with_copies.err
    assert in_process.received() == 3
    assert pl.read_parquet(with_copies.run_dir / "approved.parquet")["n"].to_list() == list(range(6))
