"""test_upstream: an upstream is asked once, and what went wrong is said in words that an operator can act on."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from accounts.models import User
from audit.models import AuditEvent
from relay.models import Model, Upstream
from relay.prices import PriceList, Rate
from relay.probe import try_out
from tests.postgres import free_port
from tests.relay.servers import HANG_UP, Script, Server, json_reply, listening, reply

pytestmark = pytest.mark.django_db

ANSWER = {"model": "gpt-4o-2026-01-01", "choices": [{"message": {"content": "OK."}}]}
SECRET = "sk-operator-5f2c77"


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start scripted servers in a thread, since commands and views run an event loop of their own."""
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def start(*scripts: Script) -> Server:
        server, ready = Server(*scripts), threading.Event()

        async def hold() -> None:
            async with listening(server):
                ready.set()
                await stop.wait()

        asyncio.run_coroutine_threadsafe(hold(), loop)
        assert ready.wait(5)
        return server

    yield start
    asyncio.run_coroutine_threadsafe(end_all(stop), loop).result(5)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


async def end_all(stop: asyncio.Event) -> None:
    stop.set()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    _done, pending = await asyncio.wait(others, timeout=0.2) if others else (set(), set())
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)


def upstream_at(url: str, **values: Any) -> Upstream:
    upstream = Upstream(name="east", base_url=url, timeout_s=1, **values)
    upstream.seal(SECRET)
    upstream.save()
    upstream.models.add(Model.objects.create(name="gpt-4o"))
    return upstream


def run(*args: str) -> str:
    out = io.StringIO()
    call_command("test_upstream", "--name=east", *args, stdout=out)
    return out.getvalue()


def error(code: str, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "code": code}}


def test_an_upstream_that_works_shows_answer_model_latency_and_id(serve: Callable[..., Server]) -> None:
    server = serve(json_reply(200, ANSWER, "x-request-id: req-7"))
    upstream_at(server.url, model_names={"gpt-4o": "dep-1"})

    shown = run()

    assert shown.startswith("gpt-4o (/chat/completions, ")
    assert " ms): “OK.”, model gpt-4o-2026-01-01, id req-7" in shown
    assert server.body() == {
        "messages": [{"role": "user", "content": "Say OK."}],
        "max_completion_tokens": 1,
        "model": "dep-1",
    }
    event = AuditEvent.objects.get()
    assert (event.kind, event.actor_name, event.target_name) == ("upstream.tested", "test_upstream", "east")


@pytest.mark.parametrize(
    ("kind", "path", "limit"),
    [
        ("mistral", b"/v1/chat/completions", "max_tokens"),
        ("anthropic", b"/v1/chat/completions", "max_tokens"),
        ("azure", b"/v1/openai/deployments/gpt-4o/chat/completions", "max_completion_tokens"),
        ("voyage", b"/v1/embeddings", None),
    ],
)
def test_each_kind_is_asked_in_its_way(serve: Callable[..., Server], kind: str, path: bytes, limit: str | None) -> None:
    server = serve(json_reply(200, ANSWER))

    assert try_out(upstream=upstream_at(server.url, kind=kind), actor=None).is_ok
    assert server.requests[0].startswith(b"POST " + path + b" ")
    assert [name for name in server.body() if "max" in name] == ([limit] if limit else [])


@pytest.mark.parametrize(
    ("script", "text"),
    [
        (
            json_reply(401, error("invalid_api_key", f"Bad key {SECRET}")),
            "refused the credential (401), sent as bearer",
        ),
        (json_reply(402, error("x", "Top up.")), "no balance (402): Top up."),
        (json_reply(404, error("model_not_found", "No model")), "does not know the model gpt-4o (404)"),
        (reply(404, b"<html>"), "There is no such API at http://127.0.0.1"),
        (reply(405), "There is no such API at"),
        (
            json_reply(400, error("unsupported_parameter", "Unsupported parameter: max_completion_tokens")),
            "does not understand limit_field=max_completion_tokens",
        ),
        (
            json_reply(422, {"detail": [{"loc": ["x"], "msg": "no", "type": "t"}]}),
            "It refused the request (422): x: no",
        ),
        (json_reply(429, error("rate_limit_exceeded", "Slow down.")), "limits the rate of this account (429)"),
        (reply(503), "fails at the moment (503)"),
        (reply(200, b"<!doctype html>"), "answered with a web page"),
        (reply(200), "There is no such API at"),
        (json_reply(200, {"hello": 1}), 'not with an answer: {"hello": 1}'),
        (json_reply(200, error("server_error", "Boom.")), "fails at the moment"),
        ([HANG_UP], "Is it an HTTP server?"),
        ([5.0], "No answer within 1 s."),
    ],
)
def test_what_went_wrong_is_said_in_words_to_act_on(serve: Callable[..., Server], script: Script, text: str) -> None:
    upstream_at(serve(script).url)

    with pytest.raises(CommandError) as raised:
        run()

    assert text in str(raised.value) and SECRET not in str(raised.value)


def test_an_address_that_nobody_listens_at_is_named() -> None:
    port = free_port()
    upstream_at(f"http://127.0.0.1:{port}/v1")

    with pytest.raises(CommandError, match=f"Check the base URL.*127.0.0.1:{port}/v1/chat/completions"):
        run()


def test_a_model_that_needs_more_than_one_token_works(serve: Callable[..., Server]) -> None:
    told = error("x", "Could not finish the message because max_tokens or model output limit was reached.")
    upstream_at(serve(json_reply(400, told)).url)

    assert "model output limit was reached" in run()


@pytest.mark.parametrize(
    ("args", "text"),
    [(["--name=west"], "--name: there is no such upstream; there is: east"), (["--model=x"], "it serves: gpt-4o")],
)
def test_an_unknown_upstream_or_model_is_named(args: list[str], text: str) -> None:
    upstream_at("http://127.0.0.1:1/v1")

    with pytest.raises(CommandError, match=text):
        run(*args)


# -- The button ---------------------------------------------------------------------------------------------------


def signed_in(client: Client, user: User) -> Client:
    client.force_login(user, backend="accounts.backends.LivingUserBackend")
    return client


def test_the_button_shows_the_answer_and_is_recorded(
    serve: Callable[..., Server], client: Client, operator: User
) -> None:
    upstream = upstream_at(serve(json_reply(200, ANSWER)).url)
    page = f"/admin/relay/upstream/{upstream.pk}/change/"

    assert f'formaction="/admin/relay/upstream/{upstream.pk}/test/"' in signed_in(client, operator).get(page).text
    response = client.post(f"/admin/relay/upstream/{upstream.pk}/test/", follow=True)

    assert response.redirect_chain == [(page, 302)] and "“OK.”, model gpt-4o-2026-01-01" in response.text
    event = AuditEvent.objects.get(kind="upstream.tested")
    assert (event.actor_name, event.target_name, event.after["ok"]) == ("operator", "east", True)


def test_the_button_shows_what_went_wrong(serve: Callable[..., Server], client: Client, operator: User) -> None:
    upstream = upstream_at(serve(reply(503)).url)

    response = signed_in(client, operator).post(f"/admin/relay/upstream/{upstream.pk}/test/", follow=True)

    assert "It fails at the moment (503)" in response.text and "errornote" not in response.text


def test_nobody_else_presses_the_button_and_reading_asks_nothing(
    serve: Callable[..., Server], client: Client, operator: User, manager: User
) -> None:
    server = serve(json_reply(200, ANSWER))
    address = f"/admin/relay/upstream/{upstream_at(server.url).pk}/test/"

    assert signed_in(client, manager).post(address).status_code == 403
    assert signed_in(client, operator).get(address).status_code == 405
    assert server.requests == [] and not AuditEvent.objects.filter(kind="upstream.tested").exists()


# -- Which model and endpoint -------------------------------------------------------------------------------------


def priced(upstream: Upstream, name: str, **prices: int) -> Model:
    model, _is_new = Model.objects.get_or_create(name=name)
    upstream.models.add(model)
    model.set_price(PriceList(Rate(**prices)), timezone.now())
    return model


VECTOR = {"model": "v-1", "data": [{"embedding": [0.5]}]}


@pytest.mark.parametrize(
    ("name", "prices", "path"),
    [
        ("a-vectors", {"input": 20}, b"/v1/embeddings"),
        ("nomic-embed-text", {}, b"/v1/embeddings"),
        ("omni-moderation", {}, b"/v1/moderations"),
        ("a-chat", {"input": 20, "output": 80}, b"/v1/chat/completions"),
        ("a-free-one", {}, b"/v1/chat/completions"),
    ],
)
def test_a_model_is_asked_at_the_endpoint_that_it_is_for(
    serve: Callable[..., Server], name: str, prices: dict[str, int], path: bytes
) -> None:
    server = serve(json_reply(200, VECTOR))
    priced(upstream_at(server.url), name, **prices)

    assert f"{name} ({path.decode().removeprefix('/v1')}, " in run(f"--model={name}")
    assert server.requests[0].startswith(b"POST " + path + b" ")


@pytest.mark.parametrize("piece", ["per_second", "per_image", "per_character", "per_minute"])
def test_a_model_that_is_sold_by_the_piece_is_not_asked(serve: Callable[..., Server], piece: str) -> None:
    server = serve(json_reply(200, ANSWER))
    priced(upstream_at(server.url), "sora-2", **{piece: 100})

    with pytest.raises(CommandError, match=r"sora-2.*cannot be tried cheaply"):
        run("--model=sora-2")

    assert server.requests == []


def test_without_a_name_a_model_that_chats_is_asked(serve: Callable[..., Server]) -> None:
    server = serve(json_reply(200, ANSWER))
    upstream = upstream_at(server.url)
    priced(upstream, "a-vectors", input=20)
    priced(upstream, "b-video", per_second=100)
    priced(upstream, "gpt-4o", input=20, output=80)

    assert run().startswith("gpt-4o (/chat/completions, ")


def test_the_button_asks_the_model_that_was_chosen_and_keeps_its_spelling(
    serve: Callable[..., Server], client: Client, operator: User
) -> None:
    upstream = upstream_at(serve(json_reply(200, VECTOR)).url)
    priced(upstream, "a-vectors", input=20)
    page = signed_in(client, operator).get(f"/admin/relay/upstream/{upstream.pk}/change/").text

    assert '<option value="gpt-4o" selected>' in page and '<option value="a-vectors">' in page
    address = f"/admin/relay/upstream/{upstream.pk}/test/"
    answer = client.post(address, {"test_model": "a-vectors"}, follow=True)
    assert ">a-vectors (/embeddings, " in answer.text


def test_the_button_asks_no_model_that_is_not_served(
    serve: Callable[..., Server], client: Client, operator: User
) -> None:
    server = serve(json_reply(200, ANSWER))
    address = f"/admin/relay/upstream/{upstream_at(server.url).pk}/test/"

    answer = signed_in(client, operator).post(address, {"test_model": "other"}, follow=True)

    assert "It does not serve that model." in answer.text and server.requests == []
