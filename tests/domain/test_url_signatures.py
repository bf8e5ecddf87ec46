"""Signing parameters: what is removed from a URL, where, and what must stay."""

from collections.abc import Callable

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2v_tasks.domain.image_url import MAY_HAVE_FORMER_KEY, former_key, image_key, normal_form
from s2v_tasks.domain.url_signatures import FAMILIES, unsigned

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
    "cos_in_one": f"sign=q-sign-algorithm%3Dsha1%26q-ak%3Dk%26q-sign-time%3D1%3B2%26q-signature%3D{'a' * 40}",
    "volcengine_tos": "X-Tos-Algorithm=TOS4-HMAC-SHA256&X-Tos-Credential=k&X-Tos-Date=d&X-Tos-Expires=9"
    "&X-Tos-SignedHeaders=host&X-Tos-Security-Token=t&X-Tos-Signature=s",
    "huawei_obs": "AccessKeyId=k&Expires=1&Signature=s&x-obs-security-token=t",
    "qiniu": f"e=1700000000&token={'k' * 40}:{'s' * 27}=",
    "alibaba_cdn": f"auth_key=1700000000-0-0-{'a' * 32}",
    "tencent_cdn": f"sign=1700000000-abc-0-{'a' * 32}",
    "akamai": f"hdnts=st=1700000000~exp=1700000900~acl=/*~hmac={'a' * 64}",
    "baidu_bos": f"authorization=bce-auth-v1%2Fk%2F2026-01-01T00%3A00%3A00Z%2F300%2F%2F{'a' * 64}",
    "discord": "ex=65d903de&is=65c68ede&hm=s",
    "meta": "_nc_ht=h&_nc_cat=1&_nc_ohc=x&oh=00_AfA&oe=s&_nc_sid=1",
    "sina": "KID=imgbed,tva&Expires=1&ssig=s",
    "tiktok": "x-expires=1700000000&x-signature=s",
}
HOSTS = {
    "huawei_obs": "b.obs.cn-north-4.myhuaweicloud.com",
    "discord": "cdn.discordapp.com",
    "meta": "scontent-lax3-1.cdninstagram.com",
    "sina": "wx1.sinaimg.cn",
    "tiktok": "p16-sign-va.tiktokcdn.com",
}
"""Where a family's parameters mean something; the others mean it everywhere."""
ITEMS = sorted(
    {item for query in SIGNED.values() for item in query.split("&")}
    | {f"{name}=1" for family in FAMILIES.values() for name in family.later}
)


def test_every_family_of_signatures_has_an_example() -> None:
    """A family cannot be added without a test of it."""
    assert set(SIGNED) == set(FAMILIES)


def plain(family: str, path: str = "p.jpg") -> str:
    """An unsigned URL on a host of the family."""
    return f"https://{HOSTS.get(family, 'a.example')}/{path}"


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_signed_again_keeps_its_key(family: str) -> None:
    """Two signatures of one object are one image, and what is not of the signature stays in order."""
    url, query = plain(family), SIGNED[family]
    assert image_key(f"{url}?{query}") == image_key(url)
    assert normal_form(f"{url}?v=%32&{query}&w=8") == f"{url}?v=%32&w=8"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_names_without_the_signature_are_kept(family: str) -> None:
    """Parameters of a family mean something else where its signature is absent or is none."""
    rest = "&".join(item for item in SIGNED[family].split("&") if not item.endswith("=s"))
    url = f"{plain(family)}?{rest.replace('aaaa', 'a').replace('ssss', 's').replace('&oe=s', '')}"
    assert normal_form(url) == url


@pytest.mark.parametrize("family", HOSTS)
def test_names_that_other_sites_use_are_signatures_on_the_vendors_hosts_only(family: str) -> None:
    """The same query elsewhere, and on a host that resembles the vendor's, is kept whole."""
    host = HOSTS[family]
    for other in ("a.example", f"{host}.a.example", f"not{host}.example"):
        url = f"https://{other}/p.jpg?{SIGNED[family]}"
        assert normal_form(url) == url


@pytest.mark.parametrize("family", FAMILIES)
def test_what_makes_another_image_stays_in_a_signed_url(family: str) -> None:
    """The table's own pair: signed in the same way, the two URLs still have different keys."""
    keys = set()
    for url in FAMILIES[family].differ:
        joined = "&" if "?" in url else "?"
        keys.add(image_key(f"{url}{joined}{SIGNED[family]}"))
    assert len(keys) == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_says_where_its_rule_is_published_and_when_it_was_read(family: str) -> None:
    """Every rule names its source, so that it can be checked again."""
    source = FAMILIES[family].source
    assert source.endswith("(2026-11)")
    assert len(source) > 20


@pytest.mark.parametrize(
    ("query", "rest"),
    [
        ("X-Amz-Signature=s&x-id=GetObject", ""),
        ("X-Amz-Signature=s&response-content-disposition=inline&versionId=3", "?versionId=3"),
        ("AWSAccessKeyId=k&Signature=s&Expires=1&response-cache-control=no", ""),
        ("X-Goog-Signature=s&response-content-type=image/png&generation=1", "?generation=1"),
        ("sig=s&sv=1&rscd=inline&rsct=image%2Fjpeg&snapshot=2", "?snapshot=2"),
        ("sig=s&sv=1&rsce=gzip", "?rsce=gzip"),
        ("x-id=GetObject&response-content-type=a&rscd=b", "?x-id=GetObject&response-content-type=a&rscd=b"),
    ],
)
def test_headers_that_a_signed_url_names_do_not_make_another_image(query: str, rest: str) -> None:
    """They go with the signature and stay without it; versions always stay, and so does an encoding."""
    assert unsigned("a.example", f"?{query}") == rest


@pytest.mark.parametrize("family", FAMILIES)
def test_the_form_under_which_early_ledgers_were_written_never_changes(family: str) -> None:
    """A URL that had another key then still gives it, so that nothing is paid for twice."""
    url = f"{plain(family)}?{SIGNED[family]}"
    if FAMILIES[family].is_former:
        assert normal_form(url, former=True) == plain(family)
        assert former_key(url) is None
    else:
        assert normal_form(url, former=True) == url
        assert former_key(url) not in {None, image_key(url)}


@given(st.sampled_from(sorted(FAMILIES)), st.sets(st.sampled_from(ITEMS)), st.sampled_from([str, str.upper]))
def test_no_url_with_a_former_key_is_overlooked(
    family: str, more: set[str], spelling: Callable[[str], str]
) -> None:
    """The pattern that says which URLs may have one is fast, and never misses one."""
    url = f"{plain(family)}?{spelling('&'.join([SIGNED[family], *more]))}"
    if former_key(url) is not None:
        assert pl.Series([url]).str.contains(MAY_HAVE_FORMER_KEY).item()


def test_vendors_that_ignore_case_are_followed() -> None:
    """Amazon, Google and Azure read a parameter name in any case."""
    assert normal_form("https://a.example/p?x-amz-signature=s&X-AMZ-Date=d") == "https://a.example/p"
    assert normal_form("https://a.example/p?SIG=s&SV=1&w=8") == "https://a.example/p?w=8"


def test_a_process_parameter_of_oss_makes_another_image() -> None:
    """A resized object is another image, so that parameter stays in the key."""
    small = normal_form("https://a.example/p?x-oss-process=image/resize,w_9&x-oss-signature=s&x-oss-date=d")
    assert small == "https://a.example/p?x-oss-process=image/resize,w_9"


@pytest.mark.parametrize(
    "signed",
    [
        f"https://a.example/p.jpg?sign=1582791032--0-{'a' * 32}",
        f"https://a.example/p.jpg?sign=1582791032-im1acp76sx9sdqe601v-0-{'a' * 32}",
        f"https://a.example/p.jpg?sign=1582791032-{'A1' * 50}-0-{'a' * 32}",
    ],
)
def test_what_the_vendors_page_allows_is_a_signature(signed: str) -> None:
    """Tencent Cloud CDN: 0 to 100 random characters."""
    assert normal_form(signed) == signed.partition("?")[0]
