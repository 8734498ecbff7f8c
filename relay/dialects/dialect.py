"""An endpoint family: reads a body by its table, and writes the body for an upstream from what was read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from relay import quick_json
from relay.dialects.ask import Ask
from relay.dialects.bodies import required_model
from relay.dialects.fields import Row, Table, Verdict
from relay.dialects.names import BUDGET_NAMES, CONTAINERS, SPELLING, canonical, guard, reason_against, unsupported
from relay.dialects.reading import Reading, completion_limit
from relay.profiles import Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """What an upstream's body is written with."""

    ask: Ask
    profile: Profile
    limit: int | None
    user: str
    cache_scope: str


Writer = Callable[[dict[str, Any], str, Write], None]


def _pseudonym(body: dict[str, Any], name: str, write: Write) -> None:
    body[name] = write.user
    if not write.user:
        del body[name]


def _scoped_key(body: dict[str, Any], name: str, write: Write) -> None:
    # One credential serves many spaces, so a plain key would let them probe each other's prompts.
    scoped = f"{write.cache_scope}\0{body[name]}".encode(errors="surrogatepass")
    body[name] = hashlib.blake2b(scoped, digest_size=16).hexdigest()


def _within_limit(body: dict[str, Any], name: str, write: Write) -> None:
    if write.limit is not None:
        body[name] = min(body.get(name, write.limit), write.limit)


def _budgets_within_limit(body: dict[str, Any], name: str, write: Write) -> None:
    if write.limit is not None:
        values = dict(body[name])
        for budget in [named for named in BUDGET_NAMES if named in values] or ["thinking_budget"]:
            asked = values.get(budget)
            values[budget] = write.limit if asked is None or asked == -1 else min(asked, write.limit)
        body[name] = values


WRITERS: Mapping[str, Writer] = {
    "user": _pseudonym,
    "safety_identifier": _pseudonym,
    "user_id": _pseudonym,
    "prompt_cache_key": _scoped_key,
    "min_tokens": _within_limit,
    **dict.fromkeys(BUDGET_NAMES, _within_limit),
    "chat_template_kwargs": _budgets_within_limit,
}


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """One endpoint. `rows` is its table of fields; `finish` bounds what several fields decide together.

    `limit_names` gives the names of the completion limit by Profile.limit_field. `stores` tells that the upstream keeps
    answers unless it is told not to.
    """

    path: str
    rows: Table
    finish: Callable[[Reading], None] | None = None
    limit_names: Callable[[Profile], tuple[str, ...]] | None = None
    # Whether the usage of a stream must be asked for.
    asks_usage: bool = False
    stores: bool = False
    has_tiers: bool = False
    # Where the client names no limit, upstreams differ too much in their own: 16 tokens here, the whole window there.
    always_sends_limit: bool = False

    @property
    def has_output(self) -> bool:
        return self.limit_names is not None

    def read(self, body: dict[str, Any], *, body_bytes: int) -> Ask:
        """Raises ApiError 400 with the path of the first field that may not pass."""
        model = required_model(body)
        reading = Reading(body, body_bytes)
        rows = self.rows
        for name, value in body.items():
            row = rows.get(name)
            if row is None:
                self._unknown(reading, name, value)
            elif row.judge is not None:
                row.judge(reading, value, name)
        if self.finish is not None:
            self.finish(reading)
        if not self.asks_usage:
            reading.shows_usage = True
        return reading.ask(model)

    def body_for(
        self,
        ask: Ask,
        profile: Profile,
        *,
        model: str,
        limit: int | None,
        user: str,
        cache_scope: str,
        tier: str = "",
    ) -> bytes:
        """`tier` is the service tier of a body without one, empty for none."""
        body = dict(ask.fields)
        body["model"] = model
        if ask.written:
            write = Write(ask=ask, profile=profile, limit=limit, user=user, cache_scope=cache_scope)
            for name in ask.written:
                WRITERS[name](body, name, write)
        if tier and self.has_tiers and "service_tier" not in body:
            body["service_tier"] = tier
        self._write_store(body, profile)
        if self.limit_names is not None:
            if limit is not None:
                body |= dict.fromkeys(self.limit_names(profile), limit)
            self._write_stream_options(body, ask, profile)
        _translate(body, profile)
        return quick_json.write(body)

    def _unknown(self, reading: Reading, name: str, value: Any) -> None:
        known = self._by_canonical.get(canonical(name))
        if known is not None and known.judge is completion_limit:
            completion_limit(reading, value, name)
            return
        if known is None:
            reason = reason_against(name)
        elif known.verdict is Verdict.PASSES:
            reason = ""
        else:
            reason = SPELLING
        if not reason:
            reading.unknown.append(name)
            if isinstance(value, CONTAINERS):
                guard(value, name, is_unknown=True)
        elif value is None or value is False:
            del reading.fields[name]
        else:
            raise unsupported(name, reason)

    @cached_property
    def _by_canonical(self) -> Mapping[str, Row]:
        return {canonical(name): row for name, row in self.rows.items()}

    def _write_store(self, body: dict[str, Any], profile: Profile) -> None:
        if profile.keeps_state or not (self.stores or "store" in body):
            return
        # OpenAI refuses metadata of chats that it does not keep.
        if body.get("store") and not self.stores:
            body.pop("metadata", None)
        body["store"] = False

    def _write_stream_options(self, body: dict[str, Any], ask: Ask, profile: Profile) -> None:
        asked = body.pop("stream_options", None)
        if not ask.is_stream or not profile.sends_stream_options:
            return
        options = {name: value for name, value in (asked or {}).items() if name != "include_usage"}
        if self.asks_usage:
            # The charge needs a stream's usage, whether or not the client asked for it.
            options["include_usage"] = True
        if options:
            body["stream_options"] = options


def _translate(body: dict[str, Any], profile: Profile) -> None:
    for name in profile.drops:
        body.pop(name, None)
    for name, there in profile.renames:
        if name in body:
            body[there] = body.pop(name)
