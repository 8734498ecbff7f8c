"""An upstream as the relay asks it: address, headers and names, computed from its profile and settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from urllib.parse import quote, urlencode, urlsplit

from relay.faults import Mask, hidden_values
from relay.profiles import OPENAI, Profile
from relay.routes import Headers

_OWN_HEADERS: Headers = (("accept-encoding", "identity"), ("user-agent", "space-manage"))
_CREDENTIAL_HEADERS = {name: name for name in ("x-api-key", "api-key", "x-goog-api-key")} | {"bearer": "authorization"}


@dataclass(frozen=True)
class Target:
    """An upstream with its secrets decrypted, which are in clear nowhere else.

    `models` maps public names to the upstream's; a missing one is the same there. `proxy` is an http:// address with
    its credential. `headers` and `query` are sent with every request.
    """

    id: int
    name: str
    base_url: str
    credential: str = field(repr=False)
    priority: int
    weight: int
    timeout_s: int
    profile: Profile = OPENAI
    models: Mapping[str, str] = field(default_factory=dict)
    headers: Headers = field(default=(), repr=False)
    query: tuple[tuple[str, str], ...] = ()
    proxy: str = field(default="", repr=False)

    def speaks(self, endpoint: str) -> bool:
        return endpoint in self.profile.speaks

    def model_name(self, public_name: str) -> str:
        return self.models.get(public_name, public_name)

    def url(self, path: str, public_name: str = "") -> str:
        """The address of a path such as /chat/completions, or /videos/ID/content?x=y."""
        path, _, query = path.partition("?")
        template = self.profile.path_of(_endpoint(path, self.profile))
        base = _url(self.base_url, self.profile.kind, template, path, self.model_name(public_name))
        parts = [urlencode(self.query), query]
        full_query = "&".join(part for part in parts if part)
        return f"{base}?{full_query}" if full_query else base

    def request_headers(self, content_type: str, more: Headers = ()) -> Headers:
        """All headers but the length: ours, the client's forwarded ones, the profile's, the operator's, the credential.

        Where two have the same name, the later one is sent.
        """
        typed = (("content-type", content_type),) if content_type else ()
        return _merged(_OWN_HEADERS + more + self.profile.headers + typed + self.headers + self._credential_header())

    def _credential_header(self) -> Headers:
        name = _CREDENTIAL_HEADERS.get(self.profile.auth, "")
        if not self.credential or not name:
            return ()
        return ((name, f"Bearer {self.credential}" if name == "authorization" else self.credential),)

    def mask(self, public_name: str = "") -> Mask:
        there = self.model_name(public_name)
        renames = ((there, public_name),) if there != public_name else ()
        secrets = (self.credential, self.proxy, *(value for _, value in self.headers))
        return Mask(self.base_url, hidden_values(secrets), renames)


def rank(target: Target, conversation_key: str) -> float:
    """Greater is preferred. Weighted rendezvous hashing: a key keeps its upstream when others come and go.

    The share of keys that an upstream gets is its share of the weights.
    """
    digest = blake2b(f"{target.id}:{conversation_key}".encode(), digest_size=8).digest()
    # Strictly between 0 and 1, so that the logarithm is finite and not 0.
    uniform = (int.from_bytes(digest, "big") + 1) / (2**64 + 2)
    return -target.weight / math.log(uniform) if uniform < 1 else math.inf


@lru_cache(maxsize=256)
def _merged(headers: Headers) -> Headers:
    return tuple({name.lower(): value for name, value in headers}.items())


def _endpoint(path: str, profile: Profile) -> str:
    # /videos/ID/content belongs to /videos.
    return path if path in profile.speaks else "/" + path.lstrip("/").partition("/")[0]


@lru_cache(maxsize=4096)
def _url(base_url: str, kind: str, template: str, path: str, model: str) -> str:
    base = base_url.rstrip("/")
    if kind == "azure" and base.endswith("/openai/v1"):
        template = "{path}"
    added = template.replace("{model}", quote(model, safe="")).replace("{path}", path)
    return base + _without_overlap(base, added)


def _without_overlap(base: str, added: str) -> str:
    """The path without the part that the base URL ends in already, such as /openai of Azure's addresses."""
    have, want = urlsplit(base).path.split("/")[1:], added.split("/")[1:]
    for count in range(min(len(have), len(want) - 1), 0, -1):
        if have[-count:] == want[:count]:
            return "".join(f"/{part}" for part in want[count:])
    return added
