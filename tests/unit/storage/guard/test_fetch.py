"""The fetcher against a real server on the loopback, which the tests' policy opens."""

import asyncio
import gzip
import hashlib
import io
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import pytest

from kinora.storage.guard.fetch import FetchError, GuardedFetcher, Limits
from kinora.storage.guard.policy import Policy
from kinora.storage.guard.urls import UrlRefused
from rawserver import Answer, Server, listening

BODY = bytes(range(256)) * 8192  # 2 MiB
LIMITS = Limits(max_bytes=4 << 20, total_seconds=5, idle_seconds=2, connect_seconds=2)
OK = b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\n"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with listening() as made:
        made.answers["/ok"] = OK + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
        yield made


def names(**table: Sequence[str]) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    async def resolve(host: str, port: int) -> Sequence[str]:
        try:
            return table[host.replace(".", "_")]
        except KeyError:
            raise OSError("no such name") from None

    return resolve


def fetcher(server: Server, **table: Sequence[str]) -> GuardedFetcher:
    """Only the host `good` may be on the loopback, and on the server's port."""
    policy = Policy.of(["good", f"good:{server.port}"], ports=[80, 443, server.port])
    return GuardedFetcher(policy, resolve=names(good=["127.0.0.1"], **table))


async def test_fetched(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    sink = io.BytesIO()
    got = await fetcher(server).fetch(f"http://good:{server.port}/ok?Signature=a%2Fb", sink, LIMITS)
    assert sink.getvalue() == BODY
    assert (got.bytes, got.sha256) == (len(BODY), hashlib.sha256(BODY).hexdigest())
    assert (got.content_type, got.redirects, got.url) == ("video/mp4", 0, f"http://good:{server.port}/ok")
    assert server.requests[0].startswith("GET /ok?Signature=a%2Fb HTTP/1.1\r\n")
    assert f"\r\nHost: good:{server.port}\r\n" in server.requests[0]


async def test_cookies_do_not_come_back(server: Server) -> None:
    server.answers["/a"] = b"HTTP/1.1 302 X\r\nSet-Cookie: s=1; Path=/\r\nLocation: /ok\r\nContent-Length: 0\r\n\r\n"
    await fetcher(server).fetch(f"http://good:{server.port}/a", io.BytesIO(), LIMITS)
    assert len(server.requests) == 2
    assert "cookie" not in server.requests[1].lower()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed_three_times(server: Server, status: int) -> None:
    for hop in (4, 3, 2, 1):
        server.redirect(f"/{hop}", f"/{hop - 1}" if hop > 1 else f"http://good:{server.port}/ok", status)
    got = await fetcher(server).fetch(f"http://good:{server.port}/3", io.BytesIO(), LIMITS)
    assert got.redirects == 3
    with pytest.raises(UrlRefused, match="redirected 4 times; allowed: at most 3"):
        await fetcher(server).fetch(f"http://good:{server.port}/4", io.BytesIO(), LIMITS)


@pytest.mark.parametrize(
    ("location", "word"),
    [
        ("http://127.0.0.1/x", "loopback"), ("http://169.254.169.254/latest/meta-data", "metadata"),
        ("http://[::1]/", "loopback"), ("//10.0.0.1/", "private"), ("http://2130706433/", "four decimal"),
        ("http://inside/", "10.0.0.1"), ("file:///etc/passwd", "https://"), ("http://good@127.0.0.1/", "user"),
        ("http://good:22/", "port"), ("http://good\\@127.0.0.1/", "backslash"), ("http://example.com /", "spaces"),
        ("http://good./", "dot"),
    ],
)  # fmt: skip
async def test_redirects_are_checked_anew(server: Server, location: str, word: str) -> None:
    server.redirect("/a", location)
    with pytest.raises(UrlRefused, match=r"^f \(redirected\)") as refused:
        await fetcher(server, inside=["10.0.0.1"]).fetch(
            f"http://good:{server.port}/a", io.BytesIO(), LIMITS, field="f"
        )
    assert word in str(refused.value)
    assert len(server.requests) == 1


async def test_no_downgrade(server: Server, tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    serving, trusting = tls
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=serving)
    port = listening.sockets[0].getsockname()[1]
    made = GuardedFetcher(
        Policy.of(["good.test"], ports=[port, server.port]), resolve=names(good_test=["127.0.0.1"]), ssl=trusting
    )
    server.redirect("/down", f"http://good.test:{server.port}/ok")
    got = await made.fetch(f"https://good.test:{port}/ok", io.BytesIO(), LIMITS)  # SNI and certificate are the name's
    assert got.bytes == len(BODY)
    with pytest.raises(UrlRefused, match="allowed: https"):
        await made.fetch(f"https://good.test:{port}/down", io.BytesIO(), LIMITS)
    listening.close()


@pytest.fixture
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server that insists on SNI good.test, and a client that trusts its certificate alone."""
    import shutil
    import subprocess

    if shutil.which("openssl") is None:
        pytest.skip("openssl makes this test's certificate, and is not here")
    folder = tmp_path_factory.mktemp("tls")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=good.test"
        f" -addext subjectAltName=DNS:good.test -keyout {folder}/key -out {folder}/crt"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(folder / "crt", folder / "key")

    def insist(_: ssl.SSLObject, name: str | None, __: ssl.SSLContext) -> int | None:
        return None if name == "good.test" else ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

    serving.sni_callback = insist  # type: ignore[assignment]
    return serving, ssl.create_default_context(cafile=str(folder / "crt"))


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["1.1.1.1", "10.0.0.1"], ["::1"], ["1.1.1.1", "::ffff:127.0.0.1"], ["fe80::1%eth0"]]
)
async def test_every_address_is_checked(server: Server, addresses: list[str]) -> None:
    with pytest.raises(UrlRefused, match=f"evil, which resolves to {addresses[-1]}"):
        await fetcher(server, evil=addresses).fetch(f"http://evil:{server.port}/ok", io.BytesIO(), LIMITS)
    assert server.requests == []


async def test_an_answer_that_changes_is_not_asked_for_again(server: Server) -> None:
    """The name is resolved once a hop; the connection goes to what was checked."""
    answers = [["127.0.0.1"], ["10.0.0.1"]]
    asked = []

    async def changing(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return answers[min(len(asked), 2) - 1]

    policy = Policy.of(networks=["127.0.0.1/32"], ports=[server.port])
    got = await GuardedFetcher(policy, resolve=changing).fetch(f"http://turn:{server.port}/ok", io.BytesIO(), LIMITS)
    assert got.bytes == len(BODY)
    assert asked == ["turn"]
    server.redirect("/again", "/ok")
    asked.clear()
    with pytest.raises(UrlRefused, match=r"10\.0\.0\.1 \(private\)"):
        await GuardedFetcher(policy, resolve=changing).fetch(f"http://turn:{server.port}/again", io.BytesIO(), LIMITS)


async def _endless(_: str, writer: asyncio.StreamWriter) -> None:
    writer.write(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + bytes(65536) + b"\r\n")
        await writer.drain()


async def _drip(_: str, writer: asyncio.StreamWriter) -> None:
    writer.write(OK + b"Content-Length: 1000\r\n\r\n")
    for _ in range(1000):
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


async def _silent(_: str, writer: asyncio.StreamWriter) -> None:
    writer.write(OK + b"Content-Length: 1000\r\n\r\nx")
    await writer.drain()
    await writer.wait_closed()  # says no more for as long as the client stays


async def _slow_head(_: str, writer: asyncio.StreamWriter) -> None:
    for byte in OK * 100:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.02)


BOMB = gzip.compress(bytes(64 << 20))


@pytest.mark.parametrize(
    ("answer", "error", "word"),
    [
        (_endless, UrlRefused, "more than 4194304 bytes; allowed: at most"),
        (OK + b"Content-Length: 4194305\r\n\r\n", UrlRefused, "4194305 bytes; allowed: at most"),
        (OK + b"Content-Length: 10\r\n\r\nabc", FetchError, "before the end"),
        (OK + b"Content-Length: -1\r\n\r\nabc", FetchError, "while fetching"),
        (OK + b"Content-Length: 3\r\nContent-Length: 9\r\n\r\nabc", FetchError, "while fetching"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n10\r\nabc", FetchError, "before the end"),
        (OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB) + BOMB, UrlRefused, "Encoding gzip"),
        (OK + b"Content-Encoding: br\r\n\r\nabc", UrlRefused, "Encoding br"),
        (OK + b"Content-Length: 0\r\n\r\n", UrlRefused, "empty"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>", UrlRefused, "text/html; allowed: image/*"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: video/\xff\r\n\r\nabc", UrlRefused, "type"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", UrlRefused, "404"),
        (b"HTTP/1.1 206 Partial\r\nContent-Length: 1\r\n\r\nx", UrlRefused, "206"),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", UrlRefused, "304"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", FetchError, "503"),
        (b"HTTP/1.1 302 X\r\nContent-Length: 0\r\n\r\n", UrlRefused, "0 Location"),
        (b"HTTP/1.1 302 X\r\nLocation: /a\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n", UrlRefused, "2 Location"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", FetchError, "while fetching"),
        (b"", FetchError, "while fetching"),
        (OK + b"X: " + b"x" * 100_000 + b"\r\n\r\nabc", FetchError, "while fetching"),
    ],
)  # fmt: skip
async def test_bad_answers(server: Server, answer: bytes | Answer, error: type[Exception], word: str) -> None:
    server.answers["/bad"] = answer
    sink = io.BytesIO()
    with pytest.raises(error) as raised:
        await fetcher(server).fetch(f"http://good:{server.port}/bad?Signature=secret", sink, LIMITS, field="spec.x")
    assert word in str(raised.value)
    assert str(raised.value).startswith("spec.x")
    assert "secret" not in str(raised.value)
    assert len(sink.getvalue()) <= LIMITS.max_bytes


@pytest.mark.parametrize(
    ("answer", "limits"),
    [
        (_drip, replace(LIMITS, total_seconds=0.4)),
        (_slow_head, replace(LIMITS, total_seconds=0.4)),
        (_silent, replace(LIMITS, idle_seconds=0.2)),
    ],
)
async def test_slow_servers_are_left(server: Server, answer: Answer, limits: Limits) -> None:
    server.answers["/slow"] = answer
    with pytest.raises(FetchError, match="timed out; allowed: "):
        async with asyncio.timeout(3):
            await fetcher(server).fetch(f"http://good:{server.port}/slow", io.BytesIO(), limits)


async def test_a_longer_body_than_declared_is_cut_or_refused(server: Server) -> None:
    server.answers["/more"] = OK + b"Content-Length: 3\r\n\r\nabcdefgh"
    sink = io.BytesIO()
    with suppress(FetchError):  # the client refuses it where all of it comes at once
        got = await fetcher(server).fetch(f"http://good:{server.port}/more", sink, LIMITS)
        assert (got.bytes, sink.getvalue()) == (3, b"abc")
    assert len(sink.getvalue()) <= 3


async def test_names_that_do_not_resolve(server: Server) -> None:
    with pytest.raises(FetchError, match="host gone cannot be resolved"):
        await fetcher(server).fetch("http://gone/", io.BytesIO(), LIMITS)
    with pytest.raises(FetchError, match="33 addresses"):
        await fetcher(server, many=["1.1.1.1"] * 33).fetch("http://many/", io.BytesIO(), LIMITS)


async def test_the_system_s_resolver_is_checked_too() -> None:
    with pytest.raises(UrlRefused, match="localhost, which resolves to"):
        await GuardedFetcher(Policy()).fetch("http://localhost/", io.BytesIO(), LIMITS)


async def test_plain_http_can_be_shut(server: Server) -> None:
    policy = Policy.of(["good", f"good:{server.port}"], ports=[server.port], http=False)
    with pytest.raises(UrlRefused, match="f: scheme is http; allowed: https"):
        await GuardedFetcher(policy).fetch(f"http://good:{server.port}/ok", io.BytesIO(), LIMITS, field="f")
    assert server.requests == []
