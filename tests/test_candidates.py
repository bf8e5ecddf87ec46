"""Stage 1: refused addresses, the normal form, keys and duplicates."""

import string
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2v_tasks import candidates
from s2v_tasks.candidates import (
    FAMILIES,
    REFUSALS,
    SCHEMA,
    check_columns,
    fresh,
    identify,
    image_key,
    normal_form,
    refusal,
)
from s2v_tasks.errors import InputError

REFUSED = [
    (None, "empty_url"),
    ("", "empty_url"),
    (" ", "bad_characters"),
    (" https://a.example/p.jpg", "bad_characters"),
    ("https://a.example/p.jpg\n", "bad_characters"),
    ("https://a.example/p q.jpg", "bad_characters"),
    ("https://a.example/\x00", "bad_characters"),
    ("https://a.example/\u00a0", "bad_characters"),
    ("https://a.example/\ud800", "bad_characters"),
    ("https://a.example/" + "x" * 2031, "url_too_long"),
    ("ftp://a.example/p.jpg", "not_http"),
    ("data:image/png;base64,AAAA", "not_http"),
    ("//a.example/p.jpg", "not_http"),
    ("a.example/p.jpg", "not_http"),
    ("httpsx://a.example/", "not_http"),
    ("https://me@a.example/p.jpg", "user_info"),
    ("https://me:secret@a.example/p.jpg", "user_info"),
    ("https://a.example\\@b.example/p.jpg", "user_info"),
    ("https://", "no_host"),
    ("https:/a.example/p.jpg", "no_host"),
    ("https:p.jpg", "no_host"),
    ("https:///p.jpg", "no_host"),
    ("https://:443/p.jpg", "no_host"),
    ("https://?q", "no_host"),
    ("https://a.example:http/p.jpg", "malformed_url"),
    ("https://a.example:0/p.jpg", "malformed_url"),
    ("https://a.example:65536/p.jpg", "malformed_url"),
    ("https://a.example:1:2/p.jpg", "malformed_url"),
    ("https://[::1/p.jpg", "malformed_url"),
    ("https://[::12345]/p.jpg", "malformed_url"),
    ("https://[fe80::1%25eth0]/p.jpg", "malformed_url"),
    ("https://a..example/p.jpg", "malformed_url"),
    ("https://./p.jpg", "malformed_url"),
    ("https://" + "a" * 64 + ".example/p.jpg", "malformed_url"),
    ("https://a.example\\p.jpg", "malformed_url"),
]
SOUND = [
    "https://a.example",
    "HTTPS://A.example/p.jpg",
    "http://a.example:8080/p.jpg?x=1#top",
    "https://a.example:/p.jpg",
    "https://a.example./p.jpg",
    "https://under_score.example/p.jpg",
    "https://münchen.example/bild.jpg",
    "https://[2001:db8::1]:8443/p.jpg",
    "https://a.example/me@home/p.jpg?to=me@b.example",
    "https://a.example/" + "x" * 2030,
]


@pytest.mark.parametrize(("url", "reason"), REFUSED)
def test_a_bad_address_is_refused_with_its_reason(url: str | None, reason: str) -> None:
    """An address that no fetcher could use costs nothing and says why."""
    assert refusal(url) == reason


@pytest.mark.parametrize("url", SOUND)
def test_a_sound_address_is_not_refused(url: str) -> None:
    """What a fetcher can use goes on, whatever it looks like."""
    assert refusal(url) is None


def test_the_refusals_are_exactly_those_that_are_listed() -> None:
    """Each listed slug is reachable and there is no other."""
    assert {reason for _, reason in REFUSED} == REFUSALS


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("HTTPS://CDN.Example/P.jpg", "https://cdn.example/P.jpg"),
        ("https://a.example:443/p.jpg", "https://a.example/p.jpg"),
        ("http://a.example:080/p.jpg", "http://a.example/p.jpg"),
        ("http://a.example:/p.jpg", "http://a.example/p.jpg"),
        ("http://a.example:443/p.jpg", "http://a.example:443/p.jpg"),
        ("https://a.example/p.jpg#x?y", "https://a.example/p.jpg"),
        ("https://a.example/p.jpg?b=2&a=%7e&&c", "https://a.example/p.jpg?b=2&a=%7e&&c"),
        ("https://a.example/p.jpg?", "https://a.example/p.jpg?"),
        ("https://a.example/%41/../p.jpg", "https://a.example/%41/../p.jpg"),
        ("https://[2001:DB8::1]:443/p.jpg", "https://[2001:db8::1]/p.jpg"),
    ],
)
def test_the_normal_form_keeps_all_but_what_cannot_matter(url: str, expected: str) -> None:
    """Only case of scheme and host, default port and fragment go; the rest stays byte for byte."""
    assert normal_form(url) == expected


SIGNED = {
    "aws_v4": "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=k%2F1&X-Amz-Date=2026&X-Amz-Signature=s",
    "aws_v2": "AWSAccessKeyId=k&Expires=1&Signature=s",
    "google_v4": "X-Goog-Algorithm=a&X-Goog-Date=d&X-Goog-Signature=s",
    "google_v2": "GoogleAccessId=k&Expires=1&Signature=s",
    "cloudfront": "Policy=p&Signature=s&Key-Pair-Id=k",
    "oss_v1": "OSSAccessKeyId=k&Expires=1&Signature=s&security-token=t&x-oss-traffic-limit=9",
    "oss_v4": "x-oss-signature-version=OSS4&x-oss-date=d&x-oss-signature=s&x-oss-security-token=t",
    "cos": "q-sign-algorithm=sha1&q-ak=k&q-sign-time=1&q-key-time=1&q-header-list=&q-url-param-list="
    "&q-signature=s&x-cos-security-token=t",
    "azure_sas": "sv=2024-08-04&ss=b&srt=o&sp=r&se=2026&st=2025&spr=https&sr=b&skoid=o&sktid=t&sig=s",
}


def test_every_family_of_signatures_has_an_example() -> None:
    """A family cannot be added without a test of it."""
    assert set(SIGNED) == set(FAMILIES)


@pytest.mark.parametrize("query", SIGNED.values(), ids=SIGNED)
def test_a_picture_signed_anew_keeps_its_key(query: str) -> None:
    """Two signatures of one object are one picture, and what is not of the signature stays in order."""
    plain = "https://a.example/p.jpg"
    assert image_key(f"{plain}?{query}") == image_key(plain)
    assert normal_form(f"{plain}?v=%32&{query}&w=8") == f"{plain}?v=%32&w=8"


@pytest.mark.parametrize("query", SIGNED.values(), ids=SIGNED)
def test_the_same_names_without_the_signature_are_kept(query: str) -> None:
    """Parameters of a family mean something else where its signature is absent."""
    rest = "&".join(item for item in query.split("&") if not item.endswith("=s"))
    url = f"https://a.example/p.jpg?{rest}"
    assert normal_form(url) == url


def test_vendors_that_ignore_case_are_followed() -> None:
    """Amazon, Google and Azure read a parameter name in any case."""
    assert normal_form("https://a.example/p?x-amz-signature=s&X-AMZ-Date=d") == "https://a.example/p"
    assert normal_form("https://a.example/p?SIG=s&SV=1&w=8") == "https://a.example/p?w=8"


def test_a_process_parameter_of_oss_makes_another_picture() -> None:
    """A resized object is judged on its own, so that parameter stays in the key."""
    small = normal_form("https://a.example/p?x-oss-process=image/resize,w_9&x-oss-signature=s&x-oss-date=d")
    assert small == "https://a.example/p?x-oss-process=image/resize,w_9"


def test_the_key_never_changes() -> None:
    """Keys live in ledgers for years: this one is pinned."""
    assert image_key("HTTPS://A.example:443/p.jpg?w=1#x") == image_key("https://a.example/p.jpg?w=1")
    assert image_key("https://a.example/p.jpg?w=1") == "a060d78b0f4183161a76443b96665a7e"


@given(st.text(max_size=60) | st.text("htps:/[]?#&=@.%\\ " + string.digits, max_size=60))
def test_no_address_breaks_the_rules(tail: str) -> None:
    """Whatever stands in a row, there is a slug or a key, and the normal form is its own normal form."""
    for url in (tail, f"https://{tail}", f"https://a.example/{tail}"):
        assert refusal(url) in REFUSALS | {None}
        assert len(image_key(url)) == 32
        assert normal_form(normal_form(url)) == normal_form(url)


def rows_of(*urls: str | None) -> pl.LazyFrame:
    return pl.LazyFrame(
        {"id": range(len(urls)), "image_url": urls}, schema_overrides={"image_url": pl.String}
    )


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_rows_are_numbered_keyed_and_compared(engine: str) -> None:
    """Every row comes out in order; repeats name their first, refused rows are nobody's repeat."""
    a, b = "https://a.example/p.jpg", "https://b.example/p.jpg"
    rows = rows_of(a, None, b, a + "#again", "", b, a)
    out = identify(rows, "image_url").collect(engine=engine)  # type: ignore[call-overload]
    assert out.schema == SCHEMA
    assert out["row"].to_list() == list(range(7))
    assert out["url"].to_list() == [a, None, b, a + "#again", "", b, a]
    ka, kb = image_key(a), image_key(b)
    assert out["image_key"].to_list() == [ka, None, kb, ka, None, kb, ka]
    assert out["reason"].to_list() == [None, "empty_url", None, None, "empty_url", None, None]
    assert out["duplicate_of"].to_list() == [None, None, None, 0, None, 2, 0]


def test_each_picture_is_looked_at_once() -> None:
    """Refused rows and repeats are left out of what is screened; the first spelling of a URL is sent."""
    a, b = "https://a.example/p.jpg#1", "https://b.example/p.jpg"
    out = fresh(identify(rows_of(a, None, b, "https://a.example/p.jpg", b), "image_url")).collect()
    assert out.rows() == [(image_key(a), a, 0), (image_key(b), b, 2)]


def test_no_rows_give_a_typed_empty_frame() -> None:
    """An empty input has the columns and types of any other."""
    assert identify(rows_of(), "image_url").collect().schema == SCHEMA
    assert identify(rows_of(), "image_url").collect_schema() == SCHEMA


def test_a_file_of_many_batches_is_compared_as_a_whole(tmp_path: Path) -> None:
    """Streaming reads in batches; numbers run on and a repeat is found across them."""
    distinct = 150_000
    urls = [f"https://a.example/{i}" for i in range(distinct)] * 2
    rows_of(*urls).sink_parquet(tmp_path / "in.parquet", row_group_size=20_000)
    identify(pl.scan_parquet(tmp_path / "in.parquet"), "image_url").sink_parquet(tmp_path / "out.parquet")
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert out["row"].to_list() == list(range(2 * distinct))
    assert out["duplicate_of"].head(distinct).null_count() == distinct
    assert out["duplicate_of"].tail(distinct).to_list() == list(range(distinct))


def test_the_url_column_may_have_any_name() -> None:
    """A URL column called like one of ours inside this stage does no harm."""
    for name in ("row", "url", "reason"):
        out = identify(pl.LazyFrame({name: ["https://a.example/"]}), name).collect()
        assert out.select("row", "url").rows() == [(0, "https://a.example/")]


@pytest.mark.parametrize(
    ("schema", "segment", "words"),
    [
        ({"a": pl.String, "b": pl.Int64}, None, "no column 'image_url'; they have: a, b"),
        ({}, None, "they have: none"),
        ({f"c{i}": pl.Int64 for i in range(25)}, None, "c19 and 5 more"),
        ({"image_url": pl.String}, "country", "no column 'country'"),
        ({"image_url": pl.Int64}, None, "'image_url' must hold strings, it holds Int64"),
        (
            {"image_url": pl.String, "outcome": pl.String},
            None,
            "column 'outcome', which a run adds itself: rename",
        ),
    ],
)
def test_an_input_that_cannot_be_used_is_refused_in_one_line(
    schema: dict[str, type[pl.DataType]], segment: str | None, words: str
) -> None:
    """The message names the column and what to do."""
    with pytest.raises(InputError) as caught:
        check_columns(pl.Schema(schema), "image_url", {"row", "outcome"}, segment)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_good_input_is_accepted() -> None:
    """The URL column, a segment column of any type and columns of the user's own are fine."""
    check_columns(pl.Schema({"image_url": pl.String, "country": pl.Int64}), "image_url", {"row"}, "country")


# -- which rows ------------------------------------------------------------------------------------------


def numbered(count: int) -> pl.LazyFrame:
    return pl.LazyFrame({"n": range(count)}).with_columns(kind=pl.when(pl.col("n") % 10 == 0).then(1))


def test_a_sample_is_the_same_on_any_day() -> None:
    """The seed decides, not the machine or the version of a library: these rows, in their order."""
    drawn = (2, 33, 42, 53, 94)
    rows = numbered(100)
    assert tuple(candidates.selected(rows, sample=5).collect()["n"]) == drawn
    again = candidates.selected(rows, sample=5, seed=0)
    assert tuple(again.collect(engine="streaming")["n"]) == drawn
    other = candidates.selected(rows, sample=5, seed=1).collect()["n"]
    assert tuple(other) != drawn
    assert other.is_sorted()


def test_lots_are_those_of_splitmix64() -> None:
    """The generator's published first outputs: polars' integers wrap around as it needs."""
    numbers = pl.DataFrame({"row": [0, 1, 2]}).select(candidates._lot(pl.col("row"), 0).alias("row"))  # noqa: SLF001
    assert numbers["row"].to_list() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


@pytest.mark.parametrize("seed", range(5))
def test_a_sample_is_even(seed: int) -> None:
    """About as many of each tenth of the rows; nothing twice, nothing else; a limit comes first."""
    drawn = candidates.selected(numbered(12_000), limit=10_000, sample=1_000, seed=seed).collect()["n"]
    assert drawn.n_unique() == 1_000
    tenths = (drawn // 1_000).value_counts()["count"]
    assert len(tenths) == 10
    assert tenths.min() > 60  # type: ignore[operator]
    assert tenths.max() < 140  # type: ignore[operator]


@given(
    st.lists(st.sampled_from([None, "a", "b", "c"]), min_size=1, max_size=60),
    st.integers(1, 70),
    st.integers(0, 9),
)
def test_every_value_gets_its_share_of_a_stratified_sample(
    kinds: list[str | None], size: int, seed: int
) -> None:
    """Its exact share of the sample, to within one row; null is a value too; all rows if asked for more."""
    rows = pl.LazyFrame({"kind": kinds}, schema={"kind": pl.String}).with_row_index("n")
    drawn = candidates.selected(rows, sample=size, seed=seed, stratify_by="kind").collect()
    assert drawn.height == min(size, len(kinds))
    assert drawn["n"].is_sorted()
    for kind in set(kinds):
        share = drawn.height * kinds.count(kind) / len(kinds)
        got = drawn["kind"].to_list().count(kind)
        assert abs(got - share) <= 1.5


def test_without_a_sample_rows_are_left_as_they_are() -> None:
    """No number is added and none is lost; the first rows may be asked for."""
    rows = numbered(9)
    assert candidates.selected(rows).collect().equals(rows.collect())
    assert candidates.selected(rows, limit=4).collect().equals(rows.collect().head(4))
    assert candidates.selected(rows, sample=20).collect().equals(rows.collect())


def test_a_url_may_be_a_field_of_a_struct() -> None:
    """By its path; a column that is really called so comes first; missing ones are named."""
    nested = pl.LazyFrame({"image": [{"meta": {"url": "http://a/1"}}, {"meta": {"url": None}}, None]})
    schema = nested.collect_schema()
    candidates.check_columns(schema, "image.meta.url", ())
    assert identify(nested, "image.meta.url").collect()["url"].to_list() == ["http://a/1", None, None]
    flat = nested.with_columns(pl.lit("http://b/1").alias("image.meta.url"))
    assert identify(flat, "image.meta.url").collect()["url"].to_list() == ["http://b/1"] * 3
    for missing in ("image.url", "image.meta.url.x", "other.url", "."):
        with pytest.raises(InputError, match="no column"):
            candidates.check_columns(schema, missing, ())
    with pytest.raises(InputError, match="must hold strings"):
        candidates.check_columns(schema, "image.meta", ())
    with pytest.raises(InputError, match="no column 'kind'"):
        candidates.check_columns(schema, "image.meta.url", (), stratify_by="kind")


PLAIN_OR_NOT = st.from_regex(
    r"\A(https?|HTTP|ftp)://[a-z0-9A-Z_.\-:@\[\]%]{0,70}(/[a-zA-Z0-9._~%\-/+?#&=@: é\x00]{0,20})?\Z"
)


@given(PLAIN_OR_NOT | st.integers(2000, 2060).map(lambda n: f"https://a.example/{'x' * (n - 18)}"))
def test_plain_addresses_get_by_without_a_closer_look_what_others_get(url: str) -> None:
    """The short way gives the same key or reason as the rules, for whatever is taken for plain."""
    (placed,) = identify(rows_of(url), "image_url").collect().rows(named=True)
    why = refusal(url)
    assert (placed["reason"], placed["image_key"]) == (why, None if why else image_key(url))
