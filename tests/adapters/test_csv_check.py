"""CSV files whose records are in doubt are refused with their line; the others are counted."""

import csv
import io
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2v_tasks.adapters.storage import csv_check, sources
from s2v_tasks.errors import InputError


def counted(text: str, chunk: int = 1 << 20) -> int:
    content = text.encode()
    return csv_check.count_records(
        (content[at : at + chunk] for at in range(0, len(content), chunk)), "some.csv"
    )


IN_DOUBT = {
    "Spark's escapes, twice": ('u,n\n1,"a \\" b"\n2,x\n3,"a \\" b"\n4,y\n', 2),
    "Spark's escapes, once": ('u,n\n1,"a \\" b"\n2,x\n', 2),
    "a value that is one escaped quote": ('u,n\n1,"\\""\n2,x\n3,"\\""\n4,y\n', 4),
    "escaped quotes at the ends of lines": ('u,n\n1,"\n\\""\n2,x\n3,"\n\\""\n', 3),
    "an escaped quote in the header": ('u,"a \\" b"\n1,x\n', 1),
    "inches, twice": ('u,n\n1,5" tall\n2,x\n3,6" tall\n', 2),
    "inches, once": ('u,n\n1,5" tall\n2,x\n', 2),
    "a quote that is not closed": ('u,n\n1,x\n2,"y\n3,z\n', 3),
    "text behind a closing quote": ('u,n\n1,"a" b\n', 2),
    "a blank before an opening quote": ('u,n\n1, "a,\nb"\n', 2),
    "lines that end with a carriage return": ("u\n1\r2\r3\n", 2),
}
SOUND = {
    "plain": ("u,n\n1,a\n2,b\n", 2),
    "no line end at the end": ("u,n\n1,a\n2,b", 2),
    "Windows": ("u,n\r\n1,a\r\n2,b\r\n", 2),
    "quoted separators, quotes and lines": ('u,n\n1,"a, ""b""\r\nc"\n2,""\n3,""""\n', 3),
    "quotes inside a value": ('u,n\n1,a "nice" one\n2,5" by 6"\n', 2),
    "a backslash before a closing quote": ('u,n\n1,"C:\\"\n2,x\n', 2),
    "a byte order mark and blank lines": ("\ufeff\n\r\nu,n\n1,a\n\n2,b\n", 3),
    "a header alone": ("u,n\n", 0),
    "nothing": ("", 0),
}


@pytest.mark.parametrize(("text", "line"), IN_DOUBT.values(), ids=IN_DOUBT)
def test_a_file_whose_records_are_in_doubt_is_refused_with_its_line(text: str, line: int) -> None:
    """However the bytes arrive; one line that names the file and says what to do."""
    for chunk in (1 << 20, 3):
        with pytest.raises(InputError, match=rf"some\.csv: line {line} ") as error:
            counted(text, chunk)
        assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(("text", "records"), SOUND.values(), ids=SOUND)
def test_a_sound_file_is_counted_as_it_is_read(text: str, records: int) -> None:
    """The same number as the reader gives rows, by whatever pieces the bytes arrive."""
    assert counted(text) == counted(text, 1) == records
    if records:
        assert pl.read_csv(io.BytesIO(text.encode()), infer_schema=False).height == records


@settings(max_examples=400)
@given(
    st.lists(
        st.sampled_from(
            ['"', ",", "\n", "a", "\\", '""', '\\"', "\r\n", " ", "\r", '2,"y"\n', '"l\nm"', "q,w\n", "é"]
        ),
        max_size=14,
    )
)
def test_what_is_not_refused_reads_as_two_readers_read_it(pieces: list[str]) -> None:
    """Polars and Python's own module agree on every accepted file, row by row and value by value."""
    text = "u,n\n" + "".join(pieces)
    try:
        records = counted(text)
        frame = pl.read_csv(io.BytesIO(text.encode()), infer_schema=False)
    except (InputError, pl.exceptions.PolarsError):
        return
    assert frame.height == records
    if "\r\r" in text:
        return  # whether a blank line or a value is one of taste; no row is lost
    rows = [(*row, "", "")[:2] for row in csv.reader(io.StringIO(text, newline=""))][1:]
    assert [tuple(value or "" for value in row) for row in frame.rows()] == rows


def test_a_record_without_an_end_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unclosed quote is refused before the file is read to its end."""
    content = b'u,n\n1,"' + b"x\n" * (csv_check.MAX_RECORD_BYTES // 2)
    with pytest.raises(InputError, match="line 2 begins 64 MB or more in which a quote is not closed"):
        csv_check.count_records(iter([content] + [b"x" * csv_check.BLOCK_BYTES] * 99), "some.csv")


def test_a_good_record_may_span_blocks() -> None:
    """Counted once, with the lines that it has."""
    long = "x\n" * csv_check.BLOCK_BYTES
    text = f'u,n\n1,"{long}"\n2,a\n3,"b" c\n'
    with pytest.raises(InputError, match=f"line {csv_check.BLOCK_BYTES + 4} has text behind"):
        counted(text)
    assert counted(text.replace('"b" c', "c")) == 3


def test_files_in_other_encodings_are_named(tmp_path: Path) -> None:
    """UTF-16 and UTF-32, with or without a mark, CSV or NDJSON; and lines that end with a carriage return."""
    for name, text in (("a.csv", "image_url,n\nhttp://a/1,2\n"), ("a.ndjson", '{"image_url": "x"}\n')):
        path = tmp_path / name
        for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
            path.write_bytes(text.encode(encoding))
            with pytest.raises(InputError, match=rf"{name}: it is UTF-16 or UTF-32; save it as UTF-8"):
                sources.schema(sources.find(str(path)))
        path.write_bytes(text.replace("\n", "\r").encode())
        with pytest.raises(InputError, match=rf"{name}: its lines end with a carriage return alone"):
            sources.schema(sources.find(str(path)))
