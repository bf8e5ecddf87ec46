"""Why an object store can't be used: a closed set of causes in words, found in the library's error.

Of the error only the store's status and code are shown: the rest may hold a signed URL or a key.
"""

import re
from typing import Final

_STATUS: Final = re.compile(r"status code: (\d+ [A-Za-z ]+\w)(?s:.*?<Code>(\w+)</Code>)?")


def _status(*codes: int) -> str:
    """A pattern of HTTP statuses where they are one: a URL, an id or a duration may hold the same digits."""
    return rf"\bstatus(?: code)?:? (?:{'|'.join(map(str, codes))})\b"


_KEYS: Final = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or GOOGLE_..., AZURE_..."
CAUSES: Final[tuple[tuple[str, str, str], ...]] = (
    (r"169\.254\.169\.254|metadata\.google|/latest/api/token|MissingCredential|Missing\w*Key",
     "there are no credentials", f"set {_KEYS}, or run it where a role gives them"),
    (_status(407) + "|ProxyAuth", "the proxy asks for a password",
     "set it in HTTPS_PROXY, or name the store in NO_PROXY"),
    (r"unsuccessful tunnel|tunnel error|[Pp]roxy ?[Cc]onnect",
     "the proxy does not let it through", "fix HTTPS_PROXY, or name the store in NO_PROXY"),
    (r"ConnectionRefused|Connection refused", "the connection is refused",
     "check host and port in AWS_ENDPOINT_URL, and HTTP_PROXY and HTTPS_PROXY"),
    (r"dns error|failed to lookup", "there is no such host",
     "check AWS_ENDPOINT_URL (or the bucket's name and AWS_REGION), and this machine's name server"),
    (r"InvalidCertificate|UnknownIssuer|NotValidForName", "its certificate is not trusted",
     "give the server a certificate that this machine trusts, for the host in AWS_ENDPOINT_URL"),
    (r"BadScheme", "a connection without TLS is not allowed",
     "set AWS_ALLOW_HTTP=true, or write https:// in AWS_ENDPOINT_URL"),
    (r"InvalidContentType|InvalidMessage|CorruptMessage", "there is no TLS on that port",
     "write http:// in AWS_ENDPOINT_URL and set AWS_ALLOW_HTTP=true, or name the port with TLS"),
    (r"kind: Timeout|TimedOut|timed out", "it does not respond",
     "check AWS_ENDPOINT_URL and the network, and run the same command again"),
    (r"Unreachable|No route", "there is no way to it", "check this machine's network"),
    (r"kind: Interrupted|IncompleteMessage|ConnectionReset|ConnectionAborted|UnexpectedEof",
     "it closed the connection without a response",
     "check that AWS_ENDPOINT_URL has the port's protocol (http:// or https://)"),
    (r"<Code>(ExpiredToken|TokenRefreshRequired|RequestExpired)", "the session token has expired",
     "get a new one (AWS_SESSION_TOKEN, with its keys)"),
    (_status(401) + "|Unauthenticated"
     "|<Code>(InvalidAccessKeyId|SignatureDoesNotMatch|InvalidToken|InvalidSecurity)",
     "the credentials are wrong", f"fix {_KEYS}"),
    (r"<Code>RequestTimeTooSkewed", "this machine's clock is wrong", "set it"),
    (r"<Code>NoSuchBucket|NoSuchContainer|ContainerNotFound", "there is no such bucket",
     "fix its name, or create it"),
    (r"<Code>(PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocation)|without LOCATION",
     "the bucket is in another region", "set AWS_REGION"),
    (_status(501) + "|<Code>NotImplemented", "it does not support the request",
     "use a store with conditional puts (If-Match, If-None-Match)"),
    (_status(507) + r"|<Code>\w*(Quota|Insufficient|Storage)\w*(Exceeded|Full|Storage)", "it is full",
     "make room"),
    (_status(429, 500, 502, 503, 504) + "|<Code>SlowDown", "it is overloaded or down",
     "run the same command again later"),
    (_status(403) + "|PermissionDenied|AccessDenied", "access is denied",
     "give the key the rights to list, read, write and delete there"),
    (r"MissingEtag|Unable to extract metadata", "it is no object store", "check AWS_ENDPOINT_URL"),
)  # fmt: skip
"""What is found in an error, the cause, the fix; the first that is found counts."""


def store_cause(error: BaseException) -> tuple[str, str]:
    """The cause in words, with the store's status and code if there is one, and the fix."""
    text = f"{type(error).__name__} {error}"
    status = " ".join(filter(None, found.groups())) if (found := _STATUS.search(text)) else ""
    for pattern, cause, fix in CAUSES:
        if re.search(pattern, text):
            return (f"{cause}: {status}" if status else cause), fix
    what = status or type(error).__name__
    return (
        what,
        "check the bucket's name, the store's variables (AWS_..., GOOGLE_..., AZURE_...) and its rights",
    )
