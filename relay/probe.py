"""Ask an upstream once, with one token, and say what came back in words that an operator can act on."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _

from accounts.models import User
from audit.services import record
from relay import profiles
from relay.catalogue import target_of
from relay.faults import parsed
from relay.http import HttpError
from relay.models import Model, Upstream
from relay.statuses import Kind
from relay.targets import Target
from relay.upstreams import UpstreamError, Upstreams

TIMEOUT_S = 20
MAX_ANSWER_BYTES = 1024 * 1024
MAX_SHOWN_LENGTH = 200
_PROMPT = "Say OK."
_LIMIT_FIELD = re.compile(r"max_(completion_|output_)?tokens|extra_forbidden", re.I)
# Reasoning models answer so when one token was not enough to begin; the request itself was understood.
_LIMIT_REACHED = re.compile(r"max_tokens or model output limit was reached", re.I)


@dataclass(frozen=True)
class Probe:
    """What an upstream answered. `problem` is empty if it works."""

    path: str
    model: str
    latency_ms: int
    answer: str = ""
    answered_model: str = ""
    problem: str = ""
    request_id: str = ""

    @property
    def is_ok(self) -> bool:
        return not self.problem

    def text(self) -> str:
        name = f"{self.model} ({self.path}, {self.latency_ms} ms)"
        if self.problem:
            return f"{name}: {self.problem}"
        model = _("model %(model)s") % {"model": self.answered_model or "?"}
        return f"{name}: “{self.answer}”, {model}" + (f", id {self.request_id}" if self.request_id else "")


def try_out(*, upstream: Upstream, model: str = "", actor: User | None) -> Probe:
    """Ask for the model, or for the one that `sensible_model` names.

    It is recorded in the trail, since the provider may charge the operator's account for it.
    """
    result = _probe(upstream, model)
    after = {"model": result.model, "ok": result.is_ok, "latency_ms": result.latency_ms}
    record("upstream.tested", space=None, actor=actor, target=upstream, after=after)
    return result


def _probe(upstream: Upstream, model: str) -> Probe:
    name = model or sensible_model(upstream)
    target = target_of(upstream)
    if not name:
        return Probe("", "", 0, problem=_("It serves no model. Name one."))
    if target is None:
        return Probe("", name, 0, problem=_("Its credential cannot be decrypted: enter it again."))
    use = _use_of(name, upstream.models.filter(name=name).first())
    if use is Use.PIECES:
        return Probe("", name, 0, problem=_("It cannot be tried cheaply: each try would make and cost a whole piece."))
    path = next((path for path in (_PATHS[use], *_BODIES) if path in _BODIES and target.speaks(path)), "")
    if not path:
        return Probe("", name, 0, problem=_("It speaks no endpoint that can be tried with one token."))
    return asyncio.run(_ask(replace(target, timeout_s=min(target.timeout_s, TIMEOUT_S)), path, name))


async def _ask(target: Target, path: str, model: str) -> Probe:
    upstreams, started = Upstreams(), time.monotonic()
    answer, problem, request_id = b"", "", ""
    try:
        async with asyncio.timeout(2 * TIMEOUT_S):
            body = json.dumps(_BODIES[path](target) | {"model": target.model_name(model)}).encode()
            with await upstreams.request("POST", target, path, body, model=model, is_fresh=True) as response:
                request_id = response.request_id
                answer = await response.read(MAX_ANSWER_BYTES)
    except UpstreamError as error:
        request_id = error.request_id
        if _LIMIT_REACHED.search(error.fault.message):
            answer = json.dumps({"choices": [], "text": error.fault.message}).encode()
        else:
            problem = _explained(error, target, model)
    except (HttpError, TimeoutError) as error:
        problem = _("The answer did not arrive whole: %(reason)s.") % {"reason": str(error) or type(error).__name__}
    finally:
        upstreams.close()
    probed = Probe(path, model, round((time.monotonic() - started) * 1000), problem=problem, request_id=request_id)
    return probed if problem else _with_answer(probed, answer)


# -- Which endpoint, and which model ------------------------------------------------------------------------------


class Use(IntEnum):
    """What a model is for, from the best to try to the worst."""

    CHAT = 0
    EMBEDDINGS = 1
    RERANK = 2
    MODERATIONS = 3
    # Videos, pictures or sound: not by tokens, so that nothing small can be asked for.
    PIECES = 4


_PATHS = {
    Use.CHAT: profiles.CHAT,
    Use.EMBEDDINGS: profiles.EMBEDDINGS,
    Use.RERANK: profiles.RERANK,
    Use.MODERATIONS: profiles.MODERATIONS,
}
_NAMED = {"rerank": Use.RERANK, "moderation": Use.MODERATIONS, "embed": Use.EMBEDDINGS}
_OF_PIECES = ("per_second", "per_image", "per_character", "per_minute")


def sensible_model(upstream: Upstream) -> str:
    """The served model that is best to try: the first that chats, if any does. Empty if it serves none."""
    models = sorted(upstream.models.all(), key=lambda model: (_use_of(model.name, model), model.name))
    return models[0].name if models else ""


def _use_of(name: str, model: Model | None) -> Use:
    """Judged by the price, else by the name, since models that are free or have no price yet have no other mark."""
    price = model.price_at(timezone.now()) if model else None
    prices = price.rate.snapshot() if price else {}
    named = next((use for part, use in _NAMED.items() if part in name.lower()), None)
    if _is_sold(prices, "output", "audio_output", "image_output"):
        return Use.CHAT
    if _is_sold(prices, "input"):
        return named or Use.EMBEDDINGS
    return Use.PIECES if _is_sold(prices, *_OF_PIECES) else named or Use.CHAT


def _is_sold(prices: Mapping[str, int], *names: str) -> bool:
    return any(prices.get(name) for name in names)


# -- Bodies and answers -------------------------------------------------------------------------------------------


def _chat_body(target: Target) -> dict[str, Any]:
    limit = target.profile.limit_field
    names = {"both": ("max_completion_tokens", "max_tokens"), "none": ()}.get(limit, (limit,))
    return {"messages": [{"role": "user", "content": _PROMPT}], **dict.fromkeys(names, 1)}


_BODIES: dict[str, Callable[[Target], dict[str, Any]]] = {
    profiles.CHAT: _chat_body,
    profiles.MESSAGES: lambda _: {"messages": [{"role": "user", "content": _PROMPT}], "max_tokens": 1},
    # OpenAI takes no fewer than 16.
    profiles.RESPONSES: lambda _: {"input": _PROMPT, "max_output_tokens": 16, "store": False},
    profiles.COMPLETIONS: lambda _: {"prompt": _PROMPT, "max_tokens": 1},
    profiles.EMBEDDINGS: lambda _: {"input": _PROMPT},
    profiles.RERANK: lambda _: {"query": _PROMPT, "documents": [_PROMPT]},
    profiles.MODERATIONS: lambda _: {"input": _PROMPT},
}


def _with_answer(probed: Probe, raw: bytes) -> Probe:
    document = parsed(raw)
    results = ("choices", "content", "output", "data", "results")
    if not isinstance(document, dict) or not any(name in document for name in results):
        text = raw[:MAX_SHOWN_LENGTH].decode(errors="replace")
        return replace(probed, problem=_("It answered 200, but not with an answer: %(text)s") % {"text": text})
    model = document.get("model")
    return replace(probed, answer=_answer_text(document), answered_model=model if isinstance(model, str) else "")


def _answer_text(document: dict[str, Any]) -> str:
    """The text of a completion in any dialect, else the beginning of the JSON."""
    found = _texts(document.get("choices") or document.get("content") or document.get("output"))
    return (" ".join(found) or json.dumps(document, ensure_ascii=False))[:MAX_SHOWN_LENGTH].strip()


def _texts(value: Any) -> list[str]:
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    if not isinstance(value, dict):
        return []
    own = [text for name in ("text", "content") if isinstance(text := value.get(name), str) and text]
    return own + _texts(value.get("message")) + _texts(value.get("content"))


# -- What went wrong ----------------------------------------------------------------------------------------------


def _explained(error: UpstreamError, target: Target, model: str) -> str:
    told = target.mask().apply(error.fault.message)[:MAX_SHOWN_LENGTH]
    facts = {
        "status": error.status,
        "told": told or str(error),
        "address": target.url(profiles.CHAT, model).partition("?")[0],
        "name": target.model_name(model),
        "auth": target.profile.auth,
        "limit": target.profile.limit_field,
        "seconds": target.timeout_s,
    }
    return _advice(error, told) % facts


def _advice(error: UpstreamError, told: str) -> str:
    if error.kind is Kind.CLIENT:
        return _client_advice(told)
    if error.kind is Kind.UNUSABLE and "HTML" in str(error):
        return _("It answered with a web page. Check the base URL, and whether a proxy wants a sign-in: %(address)s")
    if error.kind is Kind.CREDENTIAL and error.status == 402:
        return _("The account has no balance (%(status)s): %(told)s")
    return _ADVICE[error.kind]()


def _client_advice(told: str) -> str:
    if _LIMIT_FIELD.search(told):
        return _(
            "It does not understand limit_field=%(limit)s (%(status)s): %(told)s "
            "Set limit_field to max_tokens, max_completion_tokens, both or none."
        )
    return _("It refused the request (%(status)s): %(told)s")


_ADVICE: dict[Kind, Callable[[], str]] = {
    Kind.UNKNOWN_MODEL: lambda: _(
        "It does not know the model %(name)s (%(status)s): %(told)s Give its own name for it, as PUBLIC=THERE."
    ),
    Kind.TOO_LARGE: lambda: _("It refused the request (%(status)s): %(told)s"),
    Kind.CREDENTIAL: lambda: _(
        "It refused the credential (%(status)s), sent as %(auth)s: %(told)s Enter the credential again, or set auth."
    ),
    Kind.RATE_LIMITED: lambda: _("It limits the rate of this account (%(status)s): %(told)s"),
    Kind.UNAVAILABLE: lambda: _("It fails at the moment (%(status)s): %(told)s"),
    Kind.UNREACHABLE: lambda: _(
        "%(told)s. Check the base URL, the proxy and the firewall; the address asked was %(address)s"
    ),
    Kind.BROKEN: lambda: _("%(told)s. Is it an HTTP server? The address asked was %(address)s"),
    Kind.TIMEOUT: lambda: _("No answer within %(seconds)s s."),
    Kind.UNUSABLE: lambda: _(
        "There is no such API at %(address)s (%(told)s). Check the base URL: does it end as it should, such as in /v1?"
    ),
}
