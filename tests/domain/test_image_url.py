"""Image URLs: rejection reasons, the normal form, keys."""

import string
from collections.abc import Iterator
from itertools import product

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2v_tasks.domain.candidate_table import add_image_keys
from s2v_tasks.domain.image_url import (
    REJECTION_REASONS,
    image_key,
    normal_form,
    requested_form,
    url_rejection_reason,
)


def keyed(url: str) -> dict[str, object]:
    """The one row of a table with this URL, with its key or reason."""
    rows = pl.LazyFrame({"image_url": [url]})
    (row,) = add_image_keys(rows, "image_url").collect().rows(named=True)
    return row


REJECTED = [
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
VALID = [
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


@pytest.mark.parametrize(("url", "reason"), REJECTED)
def test_a_bad_url_is_rejected_with_its_reason(url: str | None, reason: str) -> None:
    """A URL that no fetcher could use costs nothing and says reason."""
    assert url_rejection_reason(url) == reason


@pytest.mark.parametrize("url", VALID)
def test_a_valid_url_is_not_rejected(url: str) -> None:
    """What a fetcher can use goes on, whatever it looks like."""
    assert url_rejection_reason(url) is None


def test_the_rejection_reasons_are_exactly_those_that_are_listed() -> None:
    """Each listed slug is reachable and there is no other."""
    assert {reason for _, reason in REJECTED} == REJECTION_REASONS


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


def test_the_key_never_changes() -> None:
    """Keys live in ledgers for years: this one is pinned."""
    assert image_key("HTTPS://A.example:443/p.jpg?w=1#x") == image_key("https://a.example/p.jpg?w=1")
    assert image_key("https://a.example/p.jpg?w=1") == "a060d78b0f4183161a76443b96665a7e"


@given(st.text(max_size=60) | st.text("htps:/[]?#&=@.%\\ " + string.digits, max_size=60))
def test_no_url_breaks_the_rules(tail: str) -> None:
    """Whatever a row holds, there is a slug or a key, and the normal form is its own normal form."""
    for url in (tail, f"https://{tail}", f"https://a.example/{tail}"):
        assert url_rejection_reason(url) in REJECTION_REASONS | {None}
        assert len(image_key(url)) == 32
        assert normal_form(normal_form(url)) == normal_form(url)


def odd_urls() -> Iterator[str]:
    """Every 37th character of all Unicode planes, in each part of a URL, and letters that fold into ASCII."""
    templates = (
        "http{}://a.example:8080/p",
        "https://{}.example/p",
        "https://a{}:80/p?x=1",
        "https://a/{}?{}=1",
    )
    folding = "\u017f\u212a\u0130\u0131\uff33\ufb05\u1e9e"
    for point in (*range(0, 0x110000, 37), *map(ord, folding)):
        for template in templates:
            yield template.replace("{}", chr(point))
            yield template.replace("{}", chr(point)).upper()


@pytest.mark.ci
def test_no_character_of_unicode_breaks_the_rules() -> None:
    """Each odd URL has its reason or a key; equal keys only where scheme, host, path and query are equal."""
    by_key: dict[str, tuple[str, str]] = {}
    count = 0
    for url in odd_urls():
        count += 1
        if url_rejection_reason(url) is not None:
            assert url_rejection_reason(url) in REJECTION_REASONS
            continue
        scheme, _, rest = url.partition("://")
        host, slash, path = rest.partition("/")
        ascii_lower = host.encode().lower().decode().removesuffix(":80" if scheme.lower() == "http" else "-")
        same = (f"{scheme.lower()}://{ascii_lower}", slash + path.partition("#")[0])
        assert by_key.setdefault(image_key(url), same) == same
        assert normal_form(normal_form(url)) == normal_form(url)
    assert count > 200_000


SCHEMES = st.sampled_from(["http", "https", "HTTP", "hTTps", "http\u017f", "ftp", ""]) | st.text(max_size=6)
HOSTS = st.sampled_from(
    [
        "a.example",
        "A.Example",
        "a.example.",
        "\u212a.example",
        "k.example",
        "m\u00fcnchen.test",
        "[::1]",
        "[::A]",
    ]
) | st.text(max_size=20)
AUTHORITIES = st.tuples(HOSTS, st.sampled_from(["", ":", ":80", ":443", ":080", ":8080", ":0", ":x"])).map(
    "".join
)
PATHS = st.sampled_from(["", "/", "/p.jpg", "/P.jpg", "/%70.jpg", "//p.jpg"]) | st.text(max_size=12).map(
    "/{}".format
)
QUERIES = st.sampled_from(
    ["", "?", "?a=1", "?a=2", "?A=1", "#x", "?a=1#x", "?X-Amz-Date=1", "?X-Amz-Date=1&X-Amz-Signature=2",
     "?X-Amz-Date=3&X-Amz-Signature=4", "?a=1&X-Amz-Date=1&X-Amz-Signature=2", "?a=1&X-Amz-Signature=5"]
) | st.text(max_size=12).map("?{}".format)  # fmt: skip
ODD_PARTS = st.tuples(
    *(st.lists(part, min_size=5, max_size=5) for part in (SCHEMES, AUTHORITIES, PATHS, QUERIES))
)
"""Five of each part of a URL: 625 URLs, of which many differ in one part only."""


def requested(url: str) -> tuple[object, ...]:
    """What a server can tell of a valid URL, without a signature; by string methods alone."""
    scheme, _, rest = url.partition("#")[0].partition("://")
    ends = [rest.find(sign) for sign in "/?" if sign in rest]
    authority, tail = rest[: min(ends, default=len(rest))], rest[min(ends, default=len(rest)) :]
    host, colon, port = authority.rpartition(":")
    if not colon or "]" in port:
        host, port = authority, ""
    default = {"http": 80, "https": 443}[scheme.lower()]
    path, mark, query = tail.partition("?")
    if "X-Amz-Signature=" in query:
        names = ("X-Amz-Date=", "X-Amz-Signature=")
        query = "&".join(part for part in query.split("&") if not part.startswith(names))
        mark = "?" if query else ""
    host = "".join(c.lower() if c.isascii() else c for c in host)
    return scheme.lower(), host, int(port or default), path, mark + query


def check_odd_urls(parts: tuple[list[str], ...]) -> None:
    """Every combination has a reason or a key; equal keys only where a server can't tell the URLs apart."""
    by_key: dict[str, tuple[object, ...]] = {}
    for scheme, *rest in product(*parts):
        url = f"{scheme}://{''.join(rest)}"
        reason, normal = url_rejection_reason(url), normal_form(url)
        assert reason in REJECTION_REASONS | {None}
        assert normal_form(normal) == normal
        if reason is None:
            assert by_key.setdefault(image_key(url), requested(url)) == requested(url)
            assert image_key(requested_form(url)) == image_key(url)


@given(ODD_PARTS)
@settings(max_examples=10, deadline=None)
def test_keys_are_equal_only_where_the_image_cant_differ(parts: tuple[list[str], ...]) -> None:
    """Some thousand URLs, of parts that hypothesis makes."""
    check_odd_urls(parts)


@pytest.mark.ci
@given(ODD_PARTS)
@settings(max_examples=320, deadline=None)
def test_200_000_odd_urls_break_no_rule(parts: tuple[list[str], ...]) -> None:
    """The same with 320 times 625 URLs."""
    check_odd_urls(parts)


@pytest.mark.parametrize(
    "url", ["http\u017f://example.com:8080/a.jpg", "HTTP\u017f://a/", "h\u2009ttps://a/"]
)
def test_a_scheme_that_only_folds_into_http_is_none(url: str) -> None:
    """The row gets its reason; no command stops."""
    assert url_rejection_reason(url) in {"not_http", "bad_characters"}
    assert keyed(url)["image_key"] is None


def test_hosts_that_only_fold_together_are_two() -> None:
    """The Kelvin sign is no k, a dotted capital I no i: they may lead to different hosts."""
    assert image_key("http://\u212a.example/") != image_key("http://k.example/")
    assert image_key("http://M\u00dcNCHEN.example/") != image_key("http://m\u00fcnchen.example/")
    assert image_key("http://M\u00fcNCHEN.example/") == image_key("http://m\u00fcnchen.example/")


PLAIN_OR_NOT = st.from_regex(
    r"\A(https?|HTTP|ftp)://[a-z0-9A-Z_.\-:@\[\]%]{0,70}(/[a-zA-Z0-9._~%\-/+?#&=@: é\x00]{0,20})?\Z"
)


@given(PLAIN_OR_NOT | st.integers(2000, 2060).map(lambda n: f"https://a.example/{'x' * (n - 18)}"))
def test_plain_urls_take_the_short_way_to_the_same_result(url: str) -> None:
    """The short way gives the same key or reason as the rules, for whatever is taken for plain."""
    row = keyed(url)
    reason = url_rejection_reason(url)
    assert (row["reason"], row["image_key"]) == (reason, None if reason else image_key(url))
