"""Request URLs: most are split by a pattern, and then exactly as httpx parses them."""

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from s2v_tasks.adapters.http.request_url import Origin, RequestUrl, parsed_url, redirect_target
from s2v_tasks.domain.image_url import url_rejection_reason

ORIGINS = st.sampled_from(
    [
        *("http://a.example", "https://a.example", "http://a.example:80", "https://a.example:8443"),
        *("http://a.example:0080", "http://a.example:", "http://10.0.0.1:8080", "http://1.2.3.999"),
        *("http://a..example", "http://a.example.", "http://-", "HTTP://A.Example", "http://a.example:99999"),
        *(
            "http://[::1]:80",
            "http://user@a.example",
            "http://b\u00fccher.example",
            "http://",
            "ftp://a.example",
        ),
    ]
)
REST = st.text(alphabet="/ab.~%2f?&=+!'()*,;:@#[]|^ \u00e4\\\"<>{}`$_-", max_size=20)


def by_httpx(text: str) -> RequestUrl | None:
    """The same, with every URL parsed as a whole."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        return None
    if url_rejection_reason(str(url)):
        return None
    port = url.port or (443 if url.scheme == "https" else 80)
    origin = Origin(url.scheme, url.raw_host.decode(), port)
    return RequestUrl(origin, url.netloc.decode(), url.raw_path.decode())


@given(ORIGINS, REST)
@example("http://a.example", "/a/../b")
@example("http://a.example", "/a%2fb%zz?c='d'")
@example("http://a.example", "?a")
@example("http://a.example", "//b/./c")
def test_a_url_is_split_as_httpx_parses_it(origin: str, rest: str) -> None:
    assert parsed_url(origin + rest) == by_httpx(origin + rest)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://a.example/p.jpg?v=1", (("https", "a.example", 443), "a.example", "/p.jpg?v=1")),
        ("http://a.example:8080/p%20q", (("http", "a.example", 8080), "a.example:8080", "/p%20q")),
        ("https://a.example:443/", (("https", "a.example", 443), "a.example", "/")),
        ("http://[::1]/p#part", (("http", "::1", 80), "[::1]", "/p")),
        ("http://1.2.3.999/p", None),
        ("http://a.example:99999/p", None),
        ("http://user:word@a.example/p", None),
    ],
)
def test_a_url_is_split_into_what_a_request_needs(text: str, expected: tuple[object, ...] | None) -> None:
    assert parsed_url(text) == expected


@pytest.mark.parametrize(
    ("url", "location", "expected"),
    [
        ("http://a.example/b/c", "d?e", "http://a.example/b/d?e"),
        ("http://a.example/b/c", "//b.example/d", "http://b.example/d"),
        ("http://a.example/b/c", "https://b.example:444/d", "https://b.example:444/d"),
        ("https://a.example/b", "http://a.example/b", None),
        ("https://a.example/b", "/c", "https://a.example/c"),
        ("http://a.example/b", "ftp://a.example/b", None),
    ],
)
def test_a_redirect_is_followed_but_not_to_http_from_https(url: str, location: str, expected: str) -> None:
    base = parsed_url(url)
    assert isinstance(base, RequestUrl)
    target = redirect_target(base, location)
    assert (target and str(target)) == expected
