"""Many files as one table, folders whole, and columns that other programs can read."""

import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from s2v_tasks.adapters.storage import listing, sources
from s2v_tasks.adapters.storage.object_store import ObjectPath
from s2v_tasks.adapters.storage.portable_types import check_portable
from s2v_tasks.errors import InputError


def written(folder: Path, files: dict[str, Any]) -> str:
    """Files of text, or of columns as parquet; the folder's name."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content)
        else:
            pl.DataFrame(content).write_parquet(path)
    return str(folder)


def read(candidates: str) -> pl.DataFrame:
    found = sources.find(candidates)
    sources.check_records(found)
    return sources.scan(found, candidates).collect(engine="streaming")


def i32(*values: int) -> pl.Series:
    return pl.Series(values, dtype=pl.Int32)


UNITED: dict[str, tuple[dict[str, Any], dict[str, list[Any]]]] = {
    "an empty list first": (
        {"a.ndjson": '{"u":"1","m":[]}\n', "b.ndjson": '{"u":"2","m":["x"]}\n'},
        {"u": ["1", "2"], "m": [[], ["x"]]},
    ),
    "a column that comes late": (
        {"a.ndjson": '{"u":"1"}\n', "b.ndjson": '{"x":7,"u":"2"}\n'},
        {"u": ["1", "2"], "x": [None, 7]},
    ),
    "whole numbers, then fractions": (
        {"a.ndjson": '{"u":"1","x":1}\n', "b.ndjson": '{"u":"2","x":1.5}\n'},
        {"u": ["1", "2"], "x": [1.0, 1.5]},
    ),
    "fields of an object": (
        {"a.ndjson": '{"u":{"p":null}}\n', "b.ndjson": '{"u":{"p":1,"q":[{"z":true}]}}\n'},
        {"u": [{"p": None, "q": None}, {"p": 1, "q": [{"z": True}]}]},
    ),
    "CSV columns in another order": (
        {"a.csv": "u,n\n1,007\n", "b.csv": "n,u\n08,2\n"},
        {"u": ["1", "2"], "n": ["007", "08"]},
    ),
    "a CSV column more": (
        {"a.csv": "u\n1\n", "b.csv": "u,n\n2,x\n"},
        {"u": ["1", "2"], "n": [None, "x"]},
    ),
    "narrow and wide numbers in parquet": (
        {"a.parquet": {"u": ["1"], "n": i32(5)}, "b.parquet": {"u": ["2"], "n": [2**40]}},
        {"u": ["1", "2"], "n": [5, 2**40]},
    ),
    "a parquet column that some parts lack": (
        {"a.parquet": {"u": ["1"]}, "b.parquet": {"u": ["2"], "n": [1]}},
        {"u": ["1", "2"], "n": [None, 1]},
    ),
    "categories and text": (
        {"a.parquet": {"u": pl.Series(["1"], dtype=pl.Categorical)}, "b.parquet": {"u": ["2"]}},
        {"u": ["1", "2"]},
    ),
    "decimals of other scales": (
        {"a.parquet": {"d": [Decimal("1.5")]}, "b.parquet": {"d": [Decimal("2.25")]}},
        {"d": [Decimal("1.50"), Decimal("2.25")]},
    ),
    "folders that are columns": (
        {
            "source=laion/part=007/a.parquet": {"u": ["1"]},
            "source=a%2Fb/part=8/a.parquet": {"u": ["2"]},
            "source=__HIVE_DEFAULT_PARTITION__/part=9/a.parquet": {"u": ["3"]},
        },
        {"u": ["3", "2", "1"], "source": [None, "a/b", "laion"], "part": ["9", "8", "007"]},
    ),
    "folders of CSV that are columns": (
        {"s=x/a.csv": "u\n1\n", "s=y/a.csv": "u\n2\n", "a.csv": "u\n0\n"},
        {"u": ["0", "1", "2"], "s": [None, "x", "y"]},
    ),
    "folders of NDJSON that are columns": (
        {"s=x/a.ndjson": '{"u":1}\n', "s=y/a.ndjson": '{"u":2,"v":[]}\n'},
        {"u": [1, 2], "v": [None, []], "s": ["x", "y"]},
    ),
}


@pytest.mark.parametrize(("files", "columns"), UNITED.values(), ids=UNITED)
def test_files_that_differ_are_read_as_one_table(
    files: dict[str, Any], columns: dict[str, list[Any]], tmp_path: Path
) -> None:
    """Every value of every file, under its own name; a column that a file lacks is null there."""
    frame = read(written(tmp_path, files))
    order = sorted(range(frame.height), key=lambda n: str(frame.row(n))) if "source" not in columns else None
    assert set(frame.columns) == set(columns)
    for name, values in columns.items():
        got = frame[name].to_list()
        assert (got if order is not None else sorted(got, key=str)) == (
            values if order is not None else sorted(values, key=str)
        )


SPLIT: dict[str, tuple[dict[str, Any], str, str]] = {
    "text and numbers": (
        {"a.ndjson": '{"u":"1","x":1}\n', "b.ndjson": '{"u":"2","x":"s"}\n'}, "b.ndjson", "x",
    ),
    "yes and 1": ({"a.ndjson": '{"x":true}\n', "b.ndjson": '{"x":1}\n'}, "b.ndjson", "x"),
    "text and lists": ({"a.ndjson": '{"x":"s"}\n', "b.ndjson": '{"x":["t"]}\n'}, "b.ndjson", "x"),
    "numbers that no fraction holds": (
        {"a.ndjson": '{"x":9007199254740993}\n', "b.ndjson": '{"x":0.5}\n'}, "a.ndjson", "x",
    ),
    "such numbers in a list": (
        {"a.parquet": {"x": [[2**60 + 1]]}, "b.parquet": {"x": [[0.5]]}}, "a.parquet", "x",
    ),
    "signed and unsigned": (
        {"a.parquet": {"x": [-1]}, "b.parquet": {"x": pl.Series([2**63], dtype=pl.UInt64)}}, "b.parquet", "x",
    ),
    "text and bytes": ({"a.parquet": {"x": ["s"]}, "b.parquet": {"x": [b"s"]}}, "b.parquet", "x"),
}  # fmt: skip


@pytest.mark.parametrize(("files", "name", "column"), SPLIT.values(), ids=SPLIT)
def test_what_no_type_holds_without_loss_is_refused(
    files: dict[str, Any], name: str, column: str, tmp_path: Path
) -> None:
    """The line names the file and the column."""
    with pytest.raises(InputError, match=rf"{name}: column '{column}' .*Cast one"):
        read(written(tmp_path, files))


def test_a_file_that_can_not_be_read_is_named_among_many(tmp_path: Path) -> None:
    """Broken, cut off, ragged, or no UTF-8: the file itself, not only the selected columns."""
    good = {f"{n}.csv": "u,n\n1,2\n" for n in range(3)}
    for bad in (b"u,n\n1,2,3\n", b"u,n\n\xe9,1\n", b'u,n\n"\n'):
        candidates = written(tmp_path, good)
        (tmp_path / "1.csv").write_bytes(bad)
        found = sources.find(candidates)
        with pytest.raises(InputError, match=r"1\.csv"), sources.wrap_read_errors(candidates, found):
            read(candidates)


def test_a_byte_order_mark_is_no_part_of_ndjson(tmp_path: Path) -> None:
    """Nor of CSV; the rows are those of the file without it."""
    (tmp_path / "a.ndjson").write_bytes(b'\xef\xbb\xbf{"u":"1"}\n{"u":"2"}\n')
    assert read(str(tmp_path / "a.ndjson"))["u"].to_list() == ["1", "2"]


@pytest.mark.parametrize(
    "dtype",
    [
        pl.Int128(), pl.UInt128(), pl.List(pl.Int128), pl.Struct({"a": pl.Int128}), pl.Struct({}),
        pl.List(pl.Struct({})), pl.Decimal(60, 2), pl.List(pl.Decimal(39, 0)), pl.Object(),
    ],
    ids=str,
)  # fmt: skip
def test_a_column_that_others_can_not_read_is_refused(dtype: pl.DataType, capfd: Any) -> None:
    """By name and type, before anything is written, and without a page of a library's panic."""
    with pytest.raises(InputError, match=r"column 'x' holds .*cast it"):
        check_portable(pl.Schema({"image_url": pl.String, "x": dtype}))
    assert capfd.readouterr().err == ""


def test_columns_that_others_can_read_are_not_refused() -> None:
    """Also those that only newer programs know."""
    types: list[Any] = [
        pl.Null,
        pl.Decimal(38, 2),
        pl.Time,
        pl.Duration("ns"),
        pl.Categorical(),
        pl.List(pl.Null),
    ]
    check_portable(pl.Schema({str(n): dtype for n, dtype in enumerate(types)}))


def test_a_number_above_63_bits_is_refused_with_its_file_format(tmp_path: Path) -> None:
    """A 64-bit hash in NDJSON, and a decimal of 60 digits in parquet: both by the types of the file."""
    (tmp_path / "a.ndjson").write_text('{"image_url":"x","hash":18446744073709551615}\n')
    schema = sources.schema(sources.find(str(tmp_path / "a.ndjson")))
    assert schema is not None
    with pytest.raises(InputError, match="'hash' holds Int128"):
        check_portable(schema)
    pq.write_table(
        pa.table({"d": pa.array([Decimal("1.00")], type=pa.decimal256(60, 2))}), tmp_path / "a.parquet"
    )
    schema = sources.schema(sources.find(str(tmp_path / "a.parquet")))
    assert schema is not None
    with pytest.raises(InputError, match="'d' holds Decimal"):
        check_portable(schema)


# -- folders -----------------------------------------------------------------------------------------------


def test_a_linked_folder_is_read_like_any_other(tmp_path: Path) -> None:
    """Its rows are there; a link in a circle and one that leads nowhere are refused by name."""
    written(tmp_path / "in", {"a.csv": "u\n1\n"})
    written(tmp_path / "else", {"b.csv": "u\n2\n"})
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "else")
    assert read(str(tmp_path / "in"))["u"].to_list() == ["1", "2"]
    (tmp_path / "else" / "back").symlink_to(tmp_path / "in")
    with pytest.raises(InputError, match=r"back links to a folder that it is in"):
        sources.find(str(tmp_path / "in"))
    (tmp_path / "else" / "back").unlink()
    (tmp_path / "in" / "c.csv").symlink_to(tmp_path / "gone.csv")
    for candidates in (f"{tmp_path}/in", f"{tmp_path}/in/*.csv"):
        with pytest.raises(InputError, match=r"c\.csv: it is a broken link"):
            sources.find(candidates)


@pytest.mark.parametrize("pattern", ["", "/*/*.csv", "/**/*.csv"])
def test_a_folder_that_can_not_be_read_is_refused_by_name(pattern: str, tmp_path: Path) -> None:
    """Its rows would be missing in silence."""
    written(tmp_path, {"in/a/x.csv": "u\n1\n", "in/b/x.csv": "u\n2\n"})
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == tmp_path.owner() and folder.is_relative_to("/tmp/"):  # noqa: S108
            folder.chmod(0o755)
    (tmp_path / "in" / "b").chmod(0)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)  # root may read everything
        with pytest.raises(InputError, match=r"in/b.*rights"):
            sources.find(f"{tmp_path}/in{pattern}")
    finally:
        os.seteuid(user)
        (tmp_path / "in" / "b").chmod(0o700)


@pytest.mark.parametrize(
    ("candidates", "out", "is_refused"),
    [
        ("in", "in/out", True),
        ("in", "in", True),
        ("in", "in/a/../out", True),
        ("in/**/*.parquet", "in/out", True),
        ("in", "in/_out", False),
        ("in", "out", False),
        ("in", "into", False),
        ("in/*.parquet", "in/out", False),
        ("in/a.parquet", "in/out", False),
        ("out/a", "out", False),
    ],
)
def test_an_output_folder_among_the_candidates_is_refused(
    candidates: str, out: str, is_refused: bool, tmp_path: Path
) -> None:
    """By the name of the option: the next command would take its files for candidates."""
    written(tmp_path, {"in/a.parquet": {"u": ["1"]}, "out/a/a.parquet": {"u": ["1"]}})

    def check() -> None:
        listing.check_outside(f"{tmp_path}/{candidates}", tmp_path / out)

    if not is_refused:
        return check()
    with pytest.raises(InputError, match=r"--out .* is in the folder of the candidates"):
        check()
    return None


def test_the_same_holds_in_an_object_store() -> None:
    """A prefix is a folder; another bucket is elsewhere."""
    with pytest.raises(InputError, match="--out s3://b/in/out is in"):
        listing.check_outside("s3://b/in", ObjectPath.of("s3://b/in/out"))
    listing.check_outside("s3://b/in", ObjectPath.of("s3://c/in/out"))
    listing.check_outside("s3://b/in", Path("/in/out"))


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    """Not only its ending: a ledger among the parts is found at once."""
    written(tmp_path, {"a.parquet": {"u": ["1"]}, "ledger.sqlite3": "x"})
    with pytest.raises(InputError, match=r"\.sqlite3 of .*ledger\.sqlite3"):
        sources.find(str(tmp_path))
