"""Why an object store can't be used: each cause by its own words, without a secret, on servers that do it."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from s2v_tasks.adapters.storage import file_io, listing, pointer
from s2v_tasks.adapters.storage.object_store import ObjectPath
from s2v_tasks.adapters.storage.store_errors import CAUSES, store_cause
from s2v_tasks.errors import InputError, StorageUnavailable, UsageError
from s2v_tasks.runtime.plan import check_out

SECRET = "hunter2"  # noqa: S105
_buckets = iter(range(10_000))


class Server:
    """A server on loopback that gives every request one response."""

    def __init__(self, status: int = 200, body: str = "", headers: dict[str, str] | None = None) -> None:
        class Handler(BaseHTTPRequestHandler):
            def respond(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                """No log."""

        for method in ("GET", "PUT", "HEAD", "DELETE", "POST"):
            setattr(Handler, f"do_{method}", Handler.respond)
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.http.server_address[1]

    @contextmanager
    def running(self) -> Iterator[int]:
        """Serve; its port."""
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield self.port
        finally:
            self.http.shutdown()
            self.http.server_close()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> ObjectPath:
    """A bucket that no test used before: clients are kept by its name."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    return ObjectPath(f"s3://causes-{next(_buckets)}", "x")


def said(bucket: ObjectPath) -> str:
    """The message, the same for an output and for candidates, each a bad use; one line without a secret."""
    with pytest.raises(UsageError) as output:
        check_out(bucket)
    with pytest.raises(InputError) as source:
        listing.find(str(bucket))
    messages = {
        str(output.value).removeprefix("--out ").partition(" can't ")[2],
        str(source.value).partition(" can't ")[2],
    }
    (message,) = messages
    assert SECRET not in message
    assert "\n" not in message
    assert output.value.exit_status == source.value.exit_status == 2
    return message


def _error(code: str) -> str:
    return f"<Error><Code>{code}</Code><Message>{SECRET}</Message></Error>"


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (403, "AccessDenied", "access is denied: 403 Forbidden AccessDenied"),
        (403, "ExpiredToken", "the session token has expired"),
        (400, "ExpiredToken", "the session token has expired"),
        (403, "InvalidAccessKeyId", "the credentials are wrong"),
        (403, "SignatureDoesNotMatch", "the credentials are wrong"),
        (403, "RequestTimeTooSkewed", "this machine's clock is wrong"),
        (301, "PermanentRedirect", "the bucket is in another region"),
        (400, "AuthorizationHeaderMalformed", "the bucket is in another region"),
        (407, "", "the proxy asks for a password"),
        (501, "NotImplemented", "it does not support the request"),
        (405, "MethodNotAllowed", "405 Method Not Allowed MethodNotAllowed"),
    ],
)
def test_what_a_store_refuses_is_said_in_words(
    bucket: ObjectPath, status: int, code: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its status and its code; its message is not repeated."""
    with Server(status, _error(code)).running() as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        with pytest.raises(UsageError, match=words) as error:
            check_out(bucket)
        assert SECRET not in str(error.value)
        with pytest.raises(UsageError):
            listing.find(str(bucket))


def test_a_bucket_that_is_not_there_is_no_missing_file(
    bucket: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A put into it is refused by the bucket's name, not by the object's."""
    with Server(404, _error("NoSuchBucket")).running() as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        with pytest.raises(StorageUnavailable, match="there is no such bucket"):
            file_io.write_json(bucket, {})


def test_no_tls_is_said_where_it_is_missing(bucket: ObjectPath, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port without it, and a setting that wants it."""
    with Server().running() as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{port}")
        with pytest.raises(UsageError, match="there is no TLS on that port"):
            check_out(bucket)
        monkeypatch.setenv("AWS_ALLOW_HTTP", "false")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        with pytest.raises(UsageError, match=r"without TLS is not allowed.*AWS_ALLOW_HTTP=true"):
            check_out(ObjectPath(f"{bucket.root}-http", "x"))


@pytest.mark.needs("openssl")
def test_an_unsigned_certificate_is_reported(
    bucket: ObjectPath, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With what to do about it."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    command = [*make.split(), "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    server, tls = Server(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    server.http.socket = tls.wrap_socket(server.http.socket, server_side=True)
    with server.running() as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{port}")
        with pytest.raises(UsageError, match="its certificate is not trusted"):
            check_out(bucket)


def test_what_is_not_there_is_the_same_for_source_and_output(
    bucket: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No server listens; status 2 for both, with the same message."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    assert "the connection is refused" in said(bucket)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('ConnectError("dns error", ...)', "there is no such host"),
        ("http://169.254.169.254/latest/api/token in 1 ms", "there are no credentials"),
        ("unsuccessful tunnel", "the proxy does not let it through"),
        ("kind: Timeout", "it does not respond"),
        ("IncompleteMessage", "it closed the connection"),
        ("Server returned non-2xx status code: 503 Service Unavailable: ", "it is overloaded or down"),
        ("Server returned non-2xx status code: 507 Insufficient Storage: ", "it is full"),
        ("http://b:407/401/429 in 1.507 s: status code: 403 Forbidden: 501", "access is denied: 403"),
        ("MissingEtag", "it is no object store"),
        (f"https://b/x?X-Amz-Signature={SECRET}", "RuntimeError"),
    ],
)
def test_other_causes_are_found_in_the_library_s_error(text: str, words: str) -> None:
    """What can't be made on loopback in a short time; what is unknown shows only its class."""
    cause, fix = store_cause(RuntimeError(text))
    assert words in cause
    assert fix
    assert SECRET not in cause + fix


def test_the_page_has_every_cause() -> None:
    """A reader of a message finds it there, with its fix."""
    page = (Path(__file__).parents[3] / "docs" / "guides" / "stores.md").read_text("utf-8")
    assert [cause for _, cause, _ in CAUSES if cause not in page] == []


# -- the conditional put -----------------------------------------------------------------------------------


def test_a_store_that_ignores_conditions_takes_no_run(
    bucket: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried before anything is paid: a store that says yes to every put would let a pointer go back."""
    headers = {"ETag": '"1"', "Last-Modified": "Fri, 01 May 2026 00:00:00 GMT"}
    with Server(200, "", headers).running() as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        with pytest.raises(StorageUnavailable, match="ignores the conditions of a put"):
            (bucket / "check").check_conditional_puts()


@pytest.mark.ci
def test_a_store_that_keeps_conditions_is_left_as_it_was(in_store: dict[str, str]) -> None:
    """What was tried is removed."""
    out = ObjectPath("s3://bucket", f"conditions-{next(_buckets)}")
    pointer.check_movable(out)
    assert list(out.below()) == []


# -- URLs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/x.parquet?X-Amz-Signature=hunter2&X-Amz-Date=1",
        "S3://bucket/x?AWSAccessKeyId=hunter2",
        "gs://bucket/x?X-Goog-Signature=hunter2",
        "abfss://c@a.dfs.core.windows.net/x?sv=1&sig=hunter2",
        "s3://key@hunter2@bucket/x",
        "s3://hunter2@bucket/x",
        "s3://key:hunter2@bucket/x",
        "s3://key:hun/hunter2@bucket/x",
    ],
)
def test_a_url_with_a_secret_is_refused_and_not_shown(url: str) -> None:
    """As an output and as candidates: parameters are stored in clear."""
    for read in (file_io.parse_path, listing.find, listing.normalize_path):
        with pytest.raises(UsageError, match="keys") as error:
            read(url)
        assert SECRET not in str(error.value)


def test_a_scheme_is_read_in_any_spelling() -> None:
    """And is one path: another spelling is not another run."""
    assert str(file_io.parse_path("S3://Bucket/X")) == "s3://Bucket/X"
    assert listing.normalize_path("GS://b/x") == "gs://b/x"
    assert listing.normalize_path("HF://datasets/u/n") == "hf://datasets/u/n"
    assert listing.find("Hf://datasets/u/n") == ["hf://datasets/u/n"]
    assert str(file_io.parse_path("s3://b/what?now/a@b/t=1:2")) == "s3://b/what?now/a@b/t=1:2"
