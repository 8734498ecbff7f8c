"""Requests through an HTTP proxy: absolute form for http upstreams, a tunnel with TLS inside for https ones."""

from __future__ import annotations

import asyncio
import base64
import datetime
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from relay.http import ConnectError, HttpClient
from tests.relay.conftest import run_async
from tests.relay.servers import Server, listening, reply


class TunnelProxy:
    """Answers CONNECT by passing bytes on in both directions."""

    def __init__(self, answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n") -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self.url = ""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.requests.append(head)
        writer.write(self.answer)
        if b" 200 " not in self.answer:
            writer.close()
            return
        host, _, port = head.split(b" ")[1].decode().rpartition(":")
        inner_reader, inner_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def proxying(proxy: TunnelProxy) -> AsyncIterator[TunnelProxy]:
    started = await asyncio.start_server(proxy, "127.0.0.1", 0)
    proxy.url = f"http://user:p%40ss@127.0.0.1:{started.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        started.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1 with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


@asynccontextmanager
async def listening_with_tls(server: Server, certificate: Path) -> AsyncIterator[Server]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    started = await asyncio.start_server(server, "127.0.0.1", 0, ssl=context)
    server.url = f"https://127.0.0.1:{started.sockets[0].getsockname()[1]}/v1"
    try:
        yield server
    finally:
        started.close()


async def ask(client: HttpClient, url: str, proxy: str) -> bytes:
    response = await client.request(
        "POST", url, headers=(("x-a", "b"),), body=b"{}", connect_timeout_s=5, timeout_s=5, proxy=proxy
    )
    with response:
        return await response.read(1000)


def trusting(certificate: Path) -> HttpClient:
    client = HttpClient()
    client._tls = ssl.create_default_context(cafile=str(certificate))
    return client


def test_an_http_upstream_is_asked_in_absolute_form_with_the_proxys_credential() -> None:
    async def scene() -> None:
        client = HttpClient()
        async with listening(Server(reply(200, b"hello"), reply(200, b"again")), "") as proxy:
            address = proxy.url.replace("://", "://user:p%40ss@")
            assert await ask(client, "http://upstream.example:8080/v1/x?y=1", address) == b"hello"
            assert await ask(client, "http://upstream.example:8080/v1/x?y=1", address) == b"again"
            assert proxy.requests[0].startswith(b"POST http://upstream.example:8080/v1/x?y=1 HTTP/1.1\r\n")
            assert proxy.header("host") == "upstream.example:8080"
            assert proxy.header("proxy-authorization") == f"Basic {base64.b64encode(b'user:p@ss').decode()}"
            assert proxy.connections == 1
        client.close()

    run_async(scene())


def test_an_https_upstream_is_asked_through_a_tunnel_that_is_kept(certificate: Path) -> None:
    async def scene() -> None:
        client = trusting(certificate)
        async with (
            listening_with_tls(Server(reply(200, b"one"), reply(200, b"two")), certificate) as server,
            proxying(TunnelProxy()) as proxy,
        ):
            assert [await ask(client, server.url, proxy.url) for _ in range(2)] == [b"one", b"two"]
            (connect,) = proxy.requests
            authority = server.url.removeprefix("https://").removesuffix("/v1")
            assert connect.startswith(f"CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n".encode())
            assert b"proxy-authorization: Basic " in connect
            # The proxy's credential is for the proxy alone.
            assert (server.header("proxy-authorization"), server.header("x-a")) == ("", "b")
            client.close()

    run_async(scene())


def test_an_invalid_certificate_behind_a_proxy_is_an_error_that_says_so(certificate: Path) -> None:
    async def scene() -> None:
        client = HttpClient()
        async with (
            listening_with_tls(Server(reply(200, b"one")), certificate) as server,
            proxying(TunnelProxy()) as proxy,
        ):
            with pytest.raises(ConnectError, match="certificate is not valid"):
                await ask(client, server.url, proxy.url)
            assert server.requests == []

    run_async(scene())


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "the proxy answered 407"),
        (b"", "the proxy closed the connection"),
        (b"x" * 100_000, "too long"),
    ],
)
def test_a_proxy_that_opens_no_tunnel_is_an_error(answer: bytes, message: str) -> None:
    async def scene() -> None:
        async with proxying(TunnelProxy(answer)) as proxy:
            with pytest.raises(ConnectError, match=message):
                await ask(HttpClient(), "https://upstream.example/v1", proxy.url)

    run_async(scene())
