"""Providers against real servers, with real TLS: who the operator is to them, its limits, and that nothing of either leaks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
from aiohttp import web
from aiohttp.test_utils import TestServer

from cutover.adapters.providers import Providers
from cutover.field_path import Json
from cutover.gates.http import Http
from cutover.ports import Sample
from cutover.settings.settings import Provider

SECRET: Final = "s3cret"  # noqa: S105 -- looked for in every note
GOOD: Final = {"status": "success", "data": {"resultType": "scalar", "result": [1700000000.25, "7"]}}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A real server that answers every request so; its address."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    server = TestServer(app)
    await server.start_server(ssl=tls)
    try:
        yield str(server.make_url("")).rstrip("/")
    finally:
        await server.close()


@contextlib.asynccontextmanager
async def asking(url: str, **fields: Any) -> AsyncIterator[Providers]:
    """The same server as a provider of either kind."""
    server = {"url": url, **fields}
    providers = Providers(
        {
            "default": Provider.model_validate({"prometheus": server}),
            "status": Provider.model_validate({"http": server}),
        }
    )
    try:
        yield providers
    finally:
        await providers.close()


async def ask(providers: Providers) -> Sample:
    return await providers.query("default", "up", 60)


async def fetch(providers: Providers, path: str = "/status", query: Mapping[str, str] | None = None) -> Sample:
    def pick(document: Json) -> Sample:
        return Sample(float(document["n"]))

    return await providers.fetch("status", path, query or {}, pick)


class SeenRequest:
    """A handler that keeps what it was asked, and answers so."""

    def __init__(self, answer: Any = GOOD) -> None:
        self.headers: list[Mapping[str, str]] = []
        self.urls: list[str] = []
        self.forms: list[Mapping[str, Any]] = []
        self.answer = answer

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.headers.append(request.headers)
        self.urls.append(request.raw_path)
        self.forms.append(await request.post())
        return web.json_response(self.answer)


# --- who the operator is ----------------------------------------------------------------------------------------------


async def test_a_rotated_token_is_the_one_that_is_sent(tmp_path: Path) -> None:
    token, seen = tmp_path / "token", SeenRequest()
    token.write_text("first\n")
    async with serving(seen.handle) as url, asking(url, bearerTokenFile=str(token)) as providers:
        assert (await ask(providers)).value == 7.0
        token.write_text("second\n")
        assert (await ask(providers)).value == 7.0
    assert [headers["Authorization"] for headers in seen.headers] == ["Bearer first", "Bearer second"]


async def test_user_and_password_and_headers(tmp_path: Path) -> None:
    for name, text in (("user", "alice"), ("password", "pass word:ü\n"), ("key", "k1")):
        (tmp_path / name).write_text(text)
    seen = SeenRequest({"n": 1})
    fields = {
        "basic": {"usernameFile": str(tmp_path / "user"), "passwordFile": str(tmp_path / "password")},
        "headers": {"X-Scope-OrgID": "shop"},
        "headerFiles": {"X-Key": str(tmp_path / "key")},
    }
    async with serving(seen.handle) as url, asking(url, **fields) as providers:
        assert (await fetch(providers)).value == 1.0
    (headers,) = seen.headers
    assert headers["Authorization"] == "Basic YWxpY2U6cGFzcyB3b3JkOsO8"
    assert (headers["X-Scope-OrgID"], headers["X-Key"]) == ("shop", "k1")
    assert headers["Accept"] == "application/json"


async def test_a_token_that_is_gone_is_reported_without_its_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token, seen = tmp_path / "token", SeenRequest()
    token.write_text(SECRET)
    async with serving(seen.handle) as url, asking(url, bearerTokenFile=str(token)) as providers:
        token.write_text(f"{SECRET}\n{SECRET}")
        sample = await ask(providers)
    assert sample == Sample(None, "the operator's credentials for Prometheus cannot be used; its log says why")
    assert seen.headers == [], "without its credentials nothing is asked"
    (record,) = caplog.records
    assert str(token) in record.why  # type: ignore[attr-defined]
    assert SECRET not in str(vars(record))


async def test_a_file_that_is_fixed_is_used_and_the_log_says_both_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cutover")
    token, seen = tmp_path / "token", SeenRequest()
    async with serving(seen.handle) as url, asking(url, bearerTokenFile=str(token)) as providers:
        for _ in range(3):
            assert not providers.usable("default")
            assert "cannot be used" in (await ask(providers)).note
        assert providers.health() == {"default": False, "status": False}
        token.write_text("mended")
        assert providers.usable("default")
        assert (await ask(providers)).value == 7.0
        assert providers.health() == {"default": True, "status": True}
    assert [headers["Authorization"] for headers in seen.headers] == ["Bearer mended"]
    assert [record.getMessage() for record in caplog.records if record.name.startswith("cutover")] == [
        "the credentials for Prometheus cannot be used",
        "the credentials for provider status cannot be used",
        "the credentials for Prometheus can be used again",
        "the credentials for provider status can be used again",
    ]


def as_server(authority: trustme.CA, trusted: trustme.CA | None = None) -> ssl.SSLContext:
    """What a server needs to be known by an authority, and, with `trusted`, to ask who comes."""
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(made)
    if trusted:
        trusted.configure_trust(made)
        made.verify_mode = ssl.CERT_REQUIRED
    return made


def as_client(folder: Path, authority: trustme.CA, name: str) -> None:
    """Put a client's certificate and key into files, as a Secret of type kubernetes.io/tls has them."""
    mine = authority.issue_cert(name)
    mine.cert_chain_pems[0].write_to_path(folder / "tls.crt")
    mine.private_key_pem.write_to_path(folder / "tls.key")


async def test_both_sides_show_certificates_and_new_ones_are_taken(tmp_path: Path) -> None:
    servers, clients, untrusted = trustme.CA(), trustme.CA(), trustme.CA()
    servers.cert_pem.write_to_path(tmp_path / "ca.crt")
    as_client(tmp_path, untrusted, "stranger.example")
    tls = {"caFile": "ca.crt", "certFile": "tls.crt", "keyFile": "tls.key"}
    fields = {"tls": {key: str(tmp_path / file) for key, file in tls.items()}}
    async with serving(SeenRequest().handle, as_server(servers, clients)) as url, asking(url, **fields) as providers:
        assert (await ask(providers)).note == "cannot reach Prometheus", "a stranger's certificate"
        as_client(tmp_path, clients, "cutover.example")
        assert (await ask(providers)).value == 7.0
        (tmp_path / "tls.key").write_text(SECRET)
        assert "credentials for Prometheus cannot be used" in (await ask(providers)).note


async def test_without_a_certificate_it_is_not_let_in(tmp_path: Path) -> None:
    servers = trustme.CA()
    servers.cert_pem.write_to_path(tmp_path / "ca.crt")
    fields = {"tls": {"caFile": str(tmp_path / "ca.crt")}}
    async with (
        serving(SeenRequest().handle, as_server(servers, trustme.CA())) as url,
        asking(url, **fields) as providers,
    ):
        assert (await ask(providers)).note == "cannot reach Prometheus"


@pytest.mark.parametrize("trusts_another", [True, False], ids=["another", "the system's"])
async def test_an_untrusted_server_gets_no_credentials(tmp_path: Path, trusts_another: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    (tmp_path / "token").write_text(SECRET)
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.crt")
    fields: dict[str, Any] = {"bearerTokenFile": str(tmp_path / "token")}
    if trusts_another:
        fields["tls"] = {"caFile": str(tmp_path / "ca.crt")}
    seen = SeenRequest()
    async with serving(seen.handle, as_server(trustme.CA())) as url, asking(url, **fields) as providers:
        assert (await ask(providers)).note == "cannot establish a TLS connection to Prometheus"
    assert seen.headers == []


async def test_a_redirect_is_not_followed_and_takes_no_token_along(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(SECRET)
    elsewhere = SeenRequest({"n": 1})

    async def redirect(_: web.Request) -> web.StreamResponse:
        raise web.HTTPTemporaryRedirect(f"{other}/status")

    says, fields = (
        "answered with a redirect, which is not followed (HTTP 307)",
        {"bearerTokenFile": f"{tmp_path}/token"},
    )
    async with serving(elsewhere.handle) as other, serving(redirect) as url, asking(url, **fields) as providers:
        assert (await fetch(providers)).note == f"provider status {says}"
        assert (await ask(providers)).note == f"Prometheus {says}"
    assert elsewhere.headers == []


async def test_no_proxy_and_no_password_of_the_environment_comes_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the pod's environment says is for the API server: a provider is reached as the settings say, as whom they say."""
    seen, proxy = SeenRequest({"n": 1}), SeenRequest({"n": 2})
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login operator password {SECRET}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with serving(seen.handle) as url, serving(proxy.handle) as other, asking(url) as providers:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, other)
        assert (await fetch(providers)).value == 1.0
    assert proxy.headers == []
    assert [headers.get("Authorization") for headers in seen.headers] == [None]


async def test_a_cookie_of_one_question_does_not_go_with_the_next() -> None:
    seen: list[Mapping[str, str]] = []

    async def bake(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers)
        answer = web.json_response({"n": 1})
        answer.set_cookie("session", SECRET)
        return answer

    async with serving(bake) as url, asking(url.replace("127.0.0.1", "localhost")) as providers:
        await fetch(providers)
        await fetch(providers)
    assert [headers.get("Cookie") for headers in seen] == [None, None]


# --- how much may be asked --------------------------------------------------------------------------------------------


async def test_no_more_are_asked_at_once_than_may_be() -> None:
    inside, most, proceed = 0, 0, asyncio.Event()
    arrived = asyncio.Semaphore(0)

    async def slow(_: web.Request) -> web.StreamResponse:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        arrived.release()
        await proceed.wait()
        inside -= 1
        return web.json_response({"n": 1})

    async with serving(slow) as url, asking(url, concurrency=2, timeout=20) as providers:
        questions = [asyncio.create_task(fetch(providers)) for _ in range(5)]
        for _ in range(2):
            await arrived.acquire()
        proceed.set()
        assert [(await question).value for question in questions] == [1.0] * 5
    assert most == 2


async def test_who_found_no_place_in_time_was_not_asked() -> None:
    asked, forever = 0, asyncio.Event()

    async def silent(_: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        await forever.wait()
        return web.json_response({"n": 1})

    async with serving(silent) as url, asking(url, concurrency=1, timeout=0.3) as providers:
        first, second = await asyncio.gather(fetch(providers), fetch(providers))
        assert first.note == "provider status gave no answer within 0.3s"
        assert second.note in {
            "provider status was not queried, because 1 queries to it were already running",
            first.note,  # the first one's time was over a moment earlier
        }
        forever.set()
    assert asked in {1, 2}


async def test_an_answer_that_comes_in_drops_is_not_waited_for() -> None:
    forever = asyncio.Event()

    async def drip(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b'{"n"')
        await forever.wait()
        return answer

    async with serving(drip) as url, asking(url, timeout=0.3) as providers:
        assert (await fetch(providers)).note == "provider status gave no answer within 0.3s"
        forever.set()


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
async def test_too_large_is_reported_and_not_read_to_its_end(compressed: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    async def endless(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        if compressed:
            answer.enable_compression()
        await answer.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await answer.write(b" " * 65536)
        return answer

    async with serving(endless) as url, asking(url, maxBytes=100_000, timeout=20) as providers:
        assert (
            await fetch(providers)
        ).note == "the response of provider status is too large; the maximum is 100000 bytes"
        assert (await ask(providers)).note == "the response of Prometheus is too large; the maximum is 100000 bytes"


async def test_a_large_answer_is_read_beside_the_loop() -> None:
    async with serving(SeenRequest({"filler": "x" * 500_000, "n": 3}).handle) as url, asking(url) as providers:
        assert (await fetch(providers)).value == 3.0


# --- what comes back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (401, "rejected the operator's credentials (HTTP 401)"),
        (403, "rejected the operator's credentials (HTTP 403)"),
        (404, "rejected the query (HTTP 404)"),
        (503, "rejected the query (HTTP 503)"),
        (204, "rejected the query (HTTP 204)"),
    ],
)
async def test_another_code(code: int, says: str) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=code, text=json.dumps({"n": 1, "why": SECRET}) if code != 204 else None)

    async with serving(answer) as url, asking(url) as providers:
        assert (await fetch(providers)).note == f"provider status {says}"
        assert (await ask(providers)).note == f"Prometheus {says}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"<html>{SECRET}</html>",
        '{"n": NaN}',
        '{"n": -Infinity}',
        "[" * 100_000,
        '{"n": ' + "9" * 5000 + "}",
        "\xff",
    ],
    ids=["empty", "HTML", "NaN", "infinite", "deep", "long", "no text"],
)
async def test_what_is_not_json_gives_no_number(text: str) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=text.encode("latin-1"), content_type="application/json")

    async with serving(answer) as url, asking(url) as providers:
        assert (await fetch(providers)).note == "the response of provider status is not JSON"
        assert (await ask(providers)).note == "the response of Prometheus is not JSON"


async def test_a_connection_that_breaks() -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async with serving(cut) as url, asking(url) as providers:
        assert (await fetch(providers)).note == "cannot reach provider status"


async def test_nobody_there() -> None:
    async with asking("http://127.0.0.1:9") as providers:
        assert (await ask(providers)).note == "cannot reach Prometheus"
        assert (await fetch(providers)).note == "cannot reach provider status"
        assert (providers.names("prometheus"), providers.names("http")) == (["default"], ["status"])
        assert (await providers.query("status", "up", 60)).note == "there is no provider status of kind prometheus"
        nothing = await providers.fetch("other", "", {}, lambda _: Sample(0.0))
        assert nothing.note == "there is no provider other of kind http"


async def test_path_and_query_are_joined_to_the_address() -> None:
    seen = SeenRequest({"n": 1})
    gate = Http.model_validate(
        {"provider": "status", "path": "/v1/a:b@c", "query": {"q": "a b&c=d#é/../", "e": ""}, "jsonPath": "$.n"}
    )
    async with serving(seen.handle) as url, asking(f"{url}/base") as providers:
        assert (await fetch(providers, gate.path, gate.query)).value == 1.0
        assert (await fetch(providers, "")).value == 1.0
    assert seen.urls == ["/base/v1/a:b@c?q=a+b%26c%3Dd%23%C3%A9/../&e=", "/base"]


async def test_what_prometheus_is_asked() -> None:
    seen = SeenRequest()
    async with serving(seen.handle) as url, asking(f"{url}/prom", timeout=2.5) as providers:
        sample = await ask(providers)
        await providers.query("default", "up", 2_000_000, sample.at)
    assert seen.urls == ["/prom/api/v1/query"] * 2
    assert [dict(form) for form in seen.forms] == [
        {"query": "up", "timeout": "2.500", "lookback_delta": "60.000", "nocache": "1"},
        {"query": "up", "timeout": "2.500", "lookback_delta": "2000000.000", "nocache": "1", "time": "1700000000.250"},
    ]


async def test_no_secret_is_in_any_log_or_note(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With everything that logs set to say all it can, and every kind of answer."""
    caplog.set_level(logging.DEBUG)
    for name in ("token", "user", "password", "key"):
        (tmp_path / name).write_text(SECRET)
    who: list[dict[str, Any]] = [
        {"bearerTokenFile": str(tmp_path / "token")},
        {"basic": {"usernameFile": str(tmp_path / "user"), "passwordFile": str(tmp_path / "password")}},
        {"headers": {"X-A": SECRET}, "headerFiles": {"X-B": str(tmp_path / "key")}},
    ]
    codes = iter([200, 302, 401, 500] * 2 * len(who))

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=next(codes), text=SECRET, headers={"Location": f"/{SECRET}", "X-S": SECRET})

    notes = []
    async with serving(answer) as url:
        for fields in who:
            async with asking(url, **fields) as providers:
                notes += [(await ask(providers)).note for _ in range(4)] + [
                    (await fetch(providers)).note for _ in range(4)
                ]
    assert len(set(notes)) == 8
    assert "s3cret" not in str(notes)
    assert "czNjcmV0" not in str(notes)
    assert [record for record in caplog.records if "s3cret" in str(vars(record))] == []
