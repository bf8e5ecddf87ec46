"""URL signatures: which query parameters only sign a URL; one table with a row for each signing scheme. Pure.

The same object signed twice is one image. A parameter is removed from the normal form only if the whole
signature is present, and for names that other sites use too only on the vendor's hosts: treating two images
as one is worse than paying for one image twice. Parameters that resize, crop or select a version are kept.
"""

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Family:
    """The signing scheme of one vendor.

    ``proof``: parameters that are all present in a signed URL. ``names`` and ``prefixes``: parameters removed
    then, never those in ``kept``. With ``items``, each pattern must match a whole ``name=value`` too, and
    only the matches are removed. ``folded``: the vendor ignores the case of names; then all names here are
    lower case. ``host`` None: any host, because no other site uses such names. ``source``: the documentation,
    or URLs seen in public, and the month in which they were read.
    ``differ``: two URLs that must keep different keys.

    ``is_former``: the first ledgers were written with this family; of such a family ``later`` are the names
    that were added since (see ``unsigned``).
    """

    source: str
    differ: tuple[str, str]
    proof: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    kept: frozenset[str] = frozenset()
    folded: bool = False
    host: re.Pattern[str] | None = None
    items: tuple[re.Pattern[str], ...] = ()
    is_former: bool = False
    later: frozenset[str] = frozenset()

    def signs(
        self, host: str, query: Sequence[str], exact: AbstractSet[str], lower: AbstractSet[str]
    ) -> bool:
        """Whether this vendor signed the URL.

        Args:
            host: The URL's host.
            query: The ``name=value`` items of its query.
            exact: Their names.
            lower: Their names in lower case.
        """
        if not self.proof <= (lower if self.folded else exact):
            return False
        if self.host is not None and not self.host.fullmatch(host):
            return False
        return all(any(pattern.fullmatch(item) for item in query) for pattern in self.items)

    def removes(self, item: str, *, former: bool = False) -> bool:
        """Whether this item belongs to the signature, so that it does not identify the image."""
        if self.items:
            return any(pattern.fullmatch(item) for pattern in self.items)
        name = self._name(item)
        if name in self.kept:
            return False
        return name in self.names or name.startswith(self.prefixes) or (name in self.later and not former)

    def _name(self, item: str) -> str:
        name = item.partition("=")[0]
        return name.lower() if self.folded else name


def unsigned(host: str, query: str, *, former: bool = False) -> str:
    """Remove signing parameters from a query (with its question mark); the others keep their order.

    ``former``: by the rules of the first ledgers, so that the images paid for then are found. Never change
    the results of ``former``.
    """
    if not query:
        return query
    items = query[1:].split("&")
    exact = {item.partition("=")[0] for item in items}
    lower = {name.lower() for name in exact}
    families = _FORMER if former else FAMILIES.values()
    signed = [family for family in families if family.signs(host, items, exact, lower)]
    if not signed:
        return query
    rest = [item for item in items if not any(family.removes(item, former=former) for family in signed)]
    return "?" + "&".join(rest) if rest else ""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _hosts(*suffixes: str) -> re.Pattern[str]:
    """The hosts and their subdomains."""
    return re.compile(rf"(?:[^/]+\.)?(?:{'|'.join(map(re.escape, suffixes))})")


def _items(*patterns: str) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern, re.ASCII | re.IGNORECASE) for pattern in patterns)


_OVERRIDES: Final = _names(
    "response-content-disposition response-content-type response-content-language"
    " response-cache-control response-expires"
)
"""HTTP headers that a signed URL may set for the response: the bytes are the same."""
_CDN_KEY: Final = r"1[0-9]{9}-[0-9a-z]{0,100}-[0-9a-z]+-[0-9a-f]{32}"

FAMILIES: Final[dict[str, Family]] = {
    "aws_v4": Family(
        "Amazon S3: authenticating requests by query parameters, V4; x-id: URLs seen (2026-11)",
        ("https://b.s3.amazonaws.com/p?versionId=1", "https://b.s3.amazonaws.com/p?versionId=2"),
        _names("x-amz-signature"), prefixes=("x-amz-",), folded=True,
        is_former=True, later=_OVERRIDES | {"x-id"},
    ),
    "aws_v2": Family(
        "Amazon S3: signing and authenticating REST requests, version 2 (2026-11)",
        ("https://b.s3.amazonaws.com/p?versionId=1", "https://b.s3.amazonaws.com/p?versionId=2"),
        _names("AWSAccessKeyId Signature Expires"),
        _names("AWSAccessKeyId Signature Expires x-amz-security-token"),
        is_former=True, later=_OVERRIDES,
    ),
    "google_v4": Family(
        "Google Cloud Storage: signed URLs, V4, the client's test data (2026-11)",
        ("https://storage.googleapis.com/b/p?generation=1", "https://storage.googleapis.com/b/p?generation=2"),
        _names("x-goog-signature"), prefixes=("x-goog-",), folded=True, is_former=True, later=_OVERRIDES,
    ),
    "google_v2": Family(
        "Google Cloud Storage: V2 signing process; URLs seen (2026-11)",
        ("https://storage.googleapis.com/b/p?generation=1", "https://storage.googleapis.com/b/p?generation=2"),
        _names("GoogleAccessId Signature Expires"), _names("GoogleAccessId Signature Expires"),
        is_former=True, later=_OVERRIDES,
    ),
    "cloudfront": Family(
        "Amazon CloudFront: create a signed URL using a canned policy (2026-11)",
        ("https://d1.cloudfront.net/p?width=100", "https://d1.cloudfront.net/p?width=900"),
        _names("Key-Pair-Id Signature"), _names("Key-Pair-Id Signature Policy Expires Hash-Algorithm"),
        is_former=True,
    ),
    "oss_v1": Family(
        "Alibaba Cloud OSS: add signatures to URLs, V1 (2026-11)",
        ("https://b.oss-cn-beijing.aliyuncs.com/p?x-oss-process=style/a",
         "https://b.oss-cn-beijing.aliyuncs.com/p?x-oss-process=style/b"),
        _names("OSSAccessKeyId Signature Expires"),
        _names("OSSAccessKeyId Signature Expires security-token"),
        ("x-oss-",), _names("x-oss-process"), is_former=True, later=_OVERRIDES,
    ),
    "oss_v4": Family(
        "Alibaba Cloud OSS: V4 signatures in presigned URLs (2026-11)",
        ("https://b.oss-cn-beijing.aliyuncs.com/p?x-oss-process=style/a",
         "https://b.oss-cn-beijing.aliyuncs.com/p?x-oss-process=style/b"),
        _names("x-oss-signature"), _names("security-token"), ("x-oss-",), _names("x-oss-process"),
        folded=True, is_former=True, later=_OVERRIDES,
    ),
    "cos": Family(
        "Tencent Cloud COS: request signature, XML API (2026-11)",
        ("https://b.cos.ap-beijing.myqcloud.com/p?imageMogr2/thumbnail/9x",
         "https://b.cos.ap-beijing.myqcloud.com/p?imageMogr2/thumbnail/99x"),
        _names("q-signature"), _names("q-ak q-key-time q-header-list q-url-param-list x-cos-security-token"),
        ("q-sign",), folded=True, is_former=True, later=_OVERRIDES,
    ),
    "cos_in_one": Family(
        "Tencent Cloud COS: pre-signed URL, the whole signature as the parameter sign (2026-11)",
        ("https://b.cos.ap-beijing.myqcloud.com/p?sign=1", "https://b.cos.ap-beijing.myqcloud.com/p?sign=2"),
        items=_items(r"(?:sign=)?q-sign-algorithm(?:=|%3D)sha1%26[^&]*q-signature(?:=|%3D)[0-9a-f]{40}"),
    ),
    "azure_sas": Family(
        "Azure Storage: SASQueryParameters of the SDK; rsce changes the encoding and stays (2026-11)",
        ("https://a.blob.core.windows.net/c/p?snapshot=1", "https://a.blob.core.windows.net/c/p?snapshot=2"),
        _names("sig sv"),
        _names("sig sv ss srt sr sp st se spr sip si sdd ses skoid sktid skt ske sks skv saoid suoid scid"),
        folded=True, is_former=True, later=_names("rscc rscd rscl rsct"),
    ),
    "volcengine_tos": Family(
        "Volcengine and BytePlus TOS: including a signature in the URL (2026-11)",
        ("https://b.tos-cn-beijing.volces.com/p?x-tos-process=image/resize,w_9",
         "https://b.tos-cn-beijing.volces.com/p?x-tos-process=image/resize,w_99"),
        _names("x-tos-signature x-tos-credential"),
        _names("x-tos-algorithm x-tos-credential x-tos-date x-tos-expires x-tos-signedheaders x-tos-policy"
               " x-tos-signature x-tos-security-token") | _OVERRIDES,
        folded=True,
    ),
    "huawei_obs": Family(
        "Huawei Cloud OBS: authentication of a signature in a URL (2026-11)",
        ("https://b.obs.cn-north-4.myhuaweicloud.com/p?x-image-process=image/resize,w_9",
         "https://b.obs.cn-north-4.myhuaweicloud.com/p?x-image-process=image/resize,w_99"),
        _names("AccessKeyId Signature Expires"),
        _names("AccessKeyId Signature Expires x-obs-security-token") | _OVERRIDES,
        host=_hosts("myhuaweicloud.com", "myhuaweicloud.cn", "myhuaweicloud.eu", "myhwclouds.com"),
    ),
    "qiniu": Family(
        "Qiniu Kodo: download token of a private bucket, e=TIME&token=KEY:SIGNATURE (2026-11)",
        ("https://a.clouddn.com/p?imageView2/2/w/9", "https://a.clouddn.com/p?imageView2/2/w/99"),
        _names("e token"), items=_items(r"e=1[0-9]{9}", r"token=[\w-]{40}(?::|%3A)[\w-]{27}(?:=|%3D)"),
    ),
    "alibaba_cdn": Family(
        "Alibaba Cloud CDN: URL signing type A, auth_key=TIME-RANDOM-UID-MD5 (2026-11)",
        ("https://a.example/p?auth_key=1", "https://a.example/p?auth_key=2"),
        _names("auth_key"), items=_items(rf"auth_key={_CDN_KEY}"),
    ),
    "tencent_cdn": Family(
        "Tencent Cloud CDN: type A, sign=TIME-RANDOM-UID-MD5, 0 to 100 random characters (2026-11)",
        ("https://a.example/p?sign=1", "https://a.example/p?sign=2"),
        _names("sign"), items=_items(rf"sign={_CDN_KEY}"),
    ),
    "akamai": Family(
        "Akamai: EdgeAuth, token authentication 2.0, exp=TIME~...~hmac=HEX (2026-11)",
        ("https://a.example/p?hdnts=1", "https://a.example/p?hdnts=2"),
        items=_items(r"(?:hdnts|hdnea|hdntl|__token__)=(?:[^&]*~)?exp=[0-9]+~[^&]*hmac=[0-9a-f]{32,128}"),
    ),
    "baidu_bos": Family(
        "Baidu AI Cloud BOS: signature authentication, authorization=bce-auth-v1/... (2026-11)",
        ("https://b.bj.bcebos.com/p?x-bce-process=image/resize,w_9",
         "https://b.bj.bcebos.com/p?x-bce-process=image/resize,w_99"),
        _names("authorization"), folded=True,
        items=_items(r"authorization=bce-auth-v1(?:/|%2F)[^&]*(?:/|%2F)[0-9a-f]{64}"),
    ),
    "discord": Family(
        "Discord: signed attachment URLs since 2023-12, ex, is and hm (2026-11)",
        ("https://media.discordapp.net/attachments/1/2/p.png?width=9",
         "https://media.discordapp.net/attachments/1/2/p.png?width=99"),
        _names("ex is hm"), _names("ex is hm"),
        host=re.compile(r"cdn\.discordapp\.com|media\.discordapp\.net"),
    ),
    "meta": Family(
        "Instagram and Facebook image hosts, URLs seen: oh and oe sign, _nc_* route, stp crops (2026-11)",
        ("https://scontent.cdninstagram.com/p.jpg?stp=dst-jpg_s150x150",
         "https://scontent.cdninstagram.com/p.jpg?stp=dst-jpg_s640x640"),
        _names("oh oe"), _names("oh oe"), ("_nc_",), _names("_nc_tp"),
        host=_hosts("cdninstagram.com", "fbcdn.net"),
    ),
    "sina": Family(
        "Sina image hosts, URLs seen: KID, Expires and ssig (2026-11)",
        ("https://wx1.sinaimg.cn/large/p.jpg?w=9", "https://wx1.sinaimg.cn/large/p.jpg?w=99"),
        _names("ssig Expires KID"), _names("ssig Expires KID"), host=_hosts("sinaimg.cn"),
    ),
    "tiktok": Family(
        "TikTok image hosts, URLs seen: only x-expires and x-signature change (2026-11)",
        ("https://p16.tiktokcdn.com/p.jpeg?biz_tag=a", "https://p16.tiktokcdn.com/p.jpeg?biz_tag=b"),
        _names("x-expires x-signature"), _names("x-expires x-signature"),
        host=_hosts("tiktokcdn.com", "tiktokcdn-us.com", "tiktokcdn-eu.com", "byteimg.com"),
    ),
}  # fmt: skip
"""Signing parameters by family."""
_FORMER: Final = [family for family in FAMILIES.values() if family.is_former]


def _sign_of_change(family: Family) -> list[str]:
    """Patterns of a query's items: without a match of one, ``former`` makes no difference for this family."""
    if family.items:
        return [family.items[0].pattern]
    names = sorted(family.later) if family.is_former else [min(family.proof)]
    return [rf"{re.escape(name)}(?:[=&#]|$)" for name in names]


_SIGNS: Final = [pattern for family in FAMILIES.values() for pattern in _sign_of_change(family)]
CHANGED: Final = rf"(?i)[?&](?:{'|'.join(_SIGNS)})"
"""Pattern of the URLs of which ``unsigned`` may remove more than it did for the first ledgers; for polars."""
