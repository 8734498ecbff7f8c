"""Validation of an upstream's extra headers, query, proxy, names and profile settings. All raise ValidationError."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.utils.translation import gettext_lazy as _

from relay.profiles import ProfileError, profile_of

MAX_ENTRIES = 20
MAX_NAMED_MODELS = 2000
MAX_VALUE_LENGTH = 2000
MAX_UPSTREAM_MODEL_LENGTH = 200

# Names such as @cf/meta/llama-3 and /data/models/x are those of Cloudflare and of vLLM.
MODEL_NAME = RegexValidator(
    r"\A[A-Za-z0-9@/][A-Za-z0-9._:/@+-]*\Z", _("Use only the letters A-Z, digits and . _ : / @ + -"), "letters"
)
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", re.ASCII)
# The relay writes these itself, or they would let an upstream's settings take part in the connection.
_OWN_HEADERS = {
    *("host", "content-length", "content-type", "content-encoding", "transfer-encoding", "connection", "upgrade"),
    *("keep-alive", "te", "trailer", "expect", "accept-encoding", "proxy-authorization", "proxy-connection", "cookie"),
}
_CREDENTIAL_HEADERS = {"authorization", "x-api-key", "api-key", "x-goog-api-key"}
_SECRET_PARAMETERS = re.compile(r"(?i)(^|[_-])(key|apikey|token|secret|password|sig|signature|credential|code)$")
_SECRET_VALUES = re.compile(r"(?i)^(sk|pk|gsk|xai|hf|AIza|eyJ|bearer)[-_ ]?\S{12,}|^[A-Za-z0-9+/_=-]{40,}$")


def validate_header(name: str, value: str) -> None:
    if not _HEADER_NAME.fullmatch(name):
        raise ValidationError(_("“%(name)s” is not the name of a header."), "name", {"name": name[:100]})
    if name.lower() in _OWN_HEADERS:
        raise ValidationError(_("The header %(name)s cannot be set."), "own", {"name": name})
    if name.lower() in _CREDENTIAL_HEADERS:
        raise ValidationError(
            _("%(name)s carries the credential; enter it as such, and set auth where it goes by another name."),
            "credential",
            {"name": name},
        )
    if not value or value != value.strip() or any(not " " <= character <= "~" for character in value):
        # Line breaks would add headers of their own. The value is not quoted, because it may be secret.
        raise ValidationError(_("Header %(name)s: use only visible ASCII characters."), "value", {"name": name})
    if len(value) > MAX_VALUE_LENGTH:
        raise ValidationError(_("Header %(name)s: the value is too long."), "long", {"name": name})


def validate_headers(headers: Any) -> None:
    """The stored form: names and encrypted values."""
    if not isinstance(headers, dict) or len(headers) > MAX_ENTRIES:
        raise ValidationError(_("Give at most %(most)s."), "many", {"most": MAX_ENTRIES})


def validate_query(query: Any) -> None:
    if not isinstance(query, dict) or len(query) > MAX_ENTRIES:
        raise ValidationError(_("Give at most %(most)s."), "many", {"most": MAX_ENTRIES})
    for name, value in query.items():
        texts = (name, value)
        if not name or not all(isinstance(text, str) and 0 < len(text) <= MAX_VALUE_LENGTH for text in texts):
            raise ValidationError(_("Give a name and a value, such as api-version=2024-10-21."), "value")
        if not all(" " <= character <= "~" for text in texts for character in text):
            raise ValidationError(_("Use only visible ASCII characters."), "value")
        if _SECRET_PARAMETERS.search(name) or _SECRET_VALUES.search(value):
            # It would be stored in clear, and stand in logs of servers on the way.
            raise ValidationError(_("%(name)s looks like a credential; enter it as such."), "secret", {"name": name})


def validate_model_names(names: Any) -> None:
    if not isinstance(names, dict) or len(names) > MAX_NAMED_MODELS:
        raise ValidationError(_("Give names such as public=upstream."), "names")
    for public, there in names.items():
        MODEL_NAME(public)
        is_text = isinstance(there, str) and 0 < len(there) <= MAX_UPSTREAM_MODEL_LENGTH
        if not is_text or any(not "!" <= character <= "~" for character in there):
            raise ValidationError(
                _("%(name)s: the upstream's name is not valid; use visible ASCII characters without spaces."),
                "there",
                {"name": public},
            )


def validate_settings(kind: str, settings: Any) -> None:
    if not isinstance(settings, dict):
        raise ValidationError(_("Give settings such as limit_field=max_tokens."), "settings")
    try:
        profile_of(kind, settings)
    except ProfileError as error:
        raise ValidationError(str(error), "setting") from None


def split_proxy(text: str) -> tuple[str, str]:
    """The proxy's address and its credential (`user:password`, percent-encoded), which is stored encrypted."""
    try:
        parts = urlsplit(text)
        is_address = parts.scheme == "http" and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_address = False
    if not is_address or any(not "!" <= character <= "~" or character == "\\" for character in text):
        raise ValidationError(_("Enter an http:// address, such as http://proxy.example:3128."), "not_an_address")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValidationError(_("Leave out everything after the proxy's port."), "path")
    credential, _at, host = parts.netloc.rpartition("@")
    return urlunsplit((parts.scheme, host, "", "", "")), credential


def validate_proxy(text: str) -> None:
    if text and split_proxy(text)[1]:
        # The stored form has none.
        raise ValidationError(_("Leave the credential out of the address."), "credential")


def pairs_of(entries: list[str], separator: str) -> Mapping[str, str]:
    """Parse entries such as `Name: value` or `name=value`. Raises ValidationError for one without the separator."""
    pairs: dict[str, str] = {}
    for entry in entries:
        name, found, value = entry.partition(separator)
        if not found or not name.strip():
            raise ValidationError(
                _("Write a name, “%(separator)s” and a value."), "separator", {"separator": separator}
            )
        pairs[name.strip()] = value.strip()
    return pairs
