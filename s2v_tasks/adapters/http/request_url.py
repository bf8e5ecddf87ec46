"""Request URLs: image URLs in the ASCII form in which they are requested, split into what a request needs."""

import re
from functools import lru_cache
from typing import Final, NamedTuple

import httpx

from s2v_tasks.domain.image_url import DEFAULT_PORT, url_rejection_reason

# What most URLs are: an origin, and a path and query that the parser leaves as they are. Parsing the
# whole URL would be 7 % of the CPU time of screening an image.
_PLAIN: Final = re.compile(
    r"(https?://[a-z0-9.:-]+)((?:/(?!\.)[\w~!$&()*+,;=:@.-]*)+(?:\?[\w~!$&()*+,;=:@./?-]*)?)", re.ASCII
)


class Origin(NamedTuple):
    """Scheme, host and port of a URL. Two origins never share a connection, whatever their addresses."""

    scheme: str
    host: str
    port: int


class RequestUrl(NamedTuple):
    """A URL to which a request can be sent; ASCII.

    ``origin``: its host without brackets. ``authority``: the value of the header ``Host``. ``target``: path
    and query.
    """

    origin: Origin
    authority: str
    target: str

    def __str__(self) -> str:
        return f"{self.origin.scheme}://{self.authority}{self.target}"


def parsed_url(text: str, base: RequestUrl | None = None) -> RequestUrl | None:
    """Parse a URL, relative to ``base`` if given; None if no request can be sent to it."""
    plain = _PLAIN.fullmatch(text)
    if plain is None:
        return _parsed(text, base)
    site = _parsed_site(plain[1])
    return site and site._replace(target=plain[2])


@lru_cache(1024)
def _parsed_site(text: str) -> RequestUrl | None:
    return _parsed(text, None)


def _parsed(text: str, base: RequestUrl | None) -> RequestUrl | None:
    try:
        url = httpx.URL(text) if base is None else httpx.URL(str(base)).join(text)
    except (httpx.InvalidURL, ValueError):
        return None
    # The limit on length is the detector's, and the detector never gets a redirect's target.
    if url_rejection_reason(str(url)) not in (None, "url_too_long"):
        return None
    origin = Origin(url.scheme, url.raw_host.decode(), url.port or DEFAULT_PORT[url.scheme])
    return RequestUrl(origin, url.netloc.decode(), url.raw_path.decode("ascii"))


def redirect_target(url: RequestUrl, location: str) -> RequestUrl | None:
    """The target of a redirect; None if it is not followed."""
    target = parsed_url(location, url)
    if target is None or (url.origin.scheme, target.origin.scheme) == ("https", "http"):
        return None
    return target
