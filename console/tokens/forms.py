"""Forms for API keys: parse what was typed into KeyTerms, with errors beside their fields."""

from __future__ import annotations

import ipaddress
import re
from calendar import monthrange
from datetime import date, datetime, time, timedelta
from typing import Any

from django import forms
from django.core.validators import MaxLengthValidator
from django.forms.boundfield import BoundField
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from accounts.keys import GRACES, KeyTerms
from accounts.models import ApiKey
from console.tokens.first_call import models_on_offer
from core.fields import AmountField
from core.money import format_exact
from core.names import MAX_MODEL_NAME_LENGTH, validate_display_name

MAX_KEY_NAME_LENGTH = 80
MAX_LIST_ITEMS = 50
# Model names in the help text of the form; /v1/models lists them all.
MAX_MODELS_IN_HELP = 8
MAX_LIST_ECHO_CHARS = MAX_LIST_ITEMS * (MAX_MODEL_NAME_LENGTH + 2)

NEVER, KEEP, ON_DATE = "never", "keep", "date"
_EXPIRY_SPANS = {"1h": timedelta(hours=1), "1d": timedelta(days=1)}
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_SEPARATORS = re.compile(r"[,\r\n]+")


class ListBoundField(BoundField):
    """Truncates what was typed to the length of a full list, so that a huge input is not echoed in the response."""

    def value(self) -> Any:
        value = super().value()
        return value[:MAX_LIST_ECHO_CHARS] if isinstance(value, str) else value


class ListField(forms.CharField):
    """Items separated by commas or line breaks, cleaned to a tuple without duplicates, in the given order."""

    bound_field_class = ListBoundField

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(required=False, widget=forms.Textarea, **kwargs)

    def clean(self, value: Any) -> tuple[str, ...]:
        text: str = super().clean(value)
        typed = [item.strip() for item in _SEPARATORS.split(text) if item.strip()]
        items = tuple(dict.fromkeys(self.item(part) for part in dict.fromkeys(typed[: MAX_LIST_ITEMS + 1])))
        if len(typed) > MAX_LIST_ITEMS:
            raise forms.ValidationError(_("List at most %(most)d."), "many", {"most": MAX_LIST_ITEMS})
        return items

    def item(self, text: str) -> str:
        raise NotImplementedError


class ModelsField(ListField):
    def item(self, text: str) -> str:
        if len(text) > MAX_MODEL_NAME_LENGTH or " " in text or not text.isprintable():
            words = _("“%(item)s” is not a model name. Put commas or line breaks between names.")
            raise forms.ValidationError(words, "model", {"item": text[:MAX_MODEL_NAME_LENGTH]})
        return text


class NetworksField(ListField):
    def item(self, text: str) -> str:
        try:
            return str(_network(text))
        except ValueError:
            pass
        try:
            meant = _network(text, strict=False)
        except ValueError:
            words = _("“%(item)s” is not an address or range. Write one like 203.0.113.7 or 10.0.0.0/8.")
            raise forms.ValidationError(words, "network", {"item": text[:50]}) from None
        words = _("“%(item)s” is an address within a range. Write %(meant)s for the whole range.")
        raise forms.ValidationError(words, "network", {"item": text[:50], "meant": str(meant)})


class TokenForm(forms.Form):
    """The terms of a new key, or of `key`; for the latter, a field missing from the POST keeps its value."""

    name = forms.CharField(
        validators=[MaxLengthValidator(MAX_KEY_NAME_LENGTH, _("Use at most 80 characters.")), validate_display_name],
        error_messages={"required": _("Enter a name.")},
    )
    # Declared before `expires`: fields are cleaned in this order, and clean_expires reads it.
    expires_on = forms.CharField(required=False)
    expires = forms.CharField(required=False)
    limit = AmountField(required=False)
    models = ModelsField()
    ips = NetworksField()

    data: Any

    def __init__(self, data: Any = None, *, key: ApiKey | None = None) -> None:
        self.key = key
        super().__init__(data, initial=_shown(key) if key else {"expires": NEVER})
        if key is not None and data is not None:
            self.fields["name"].required = "name" in data

    def clean_expires(self) -> datetime | None:
        if "expires" not in self.data:
            return self.key.expires_at if self.key else None
        said: str = self.cleaned_data["expires"]
        if said == KEEP and self.key:
            return self.key.expires_at
        return expiry_at(self.cleaned_data.get("expires_on", "") if said == ON_DATE else said, now=timezone.now())

    def clean_limit(self) -> int | None:
        nanos: int | None = self.cleaned_data["limit"]
        if nanos == 0:
            raise forms.ValidationError(_("Enter more than $0.00, or leave it blank for no limit."), "zero")
        return nanos

    def terms(self) -> KeyTerms:
        given = self.cleaned_data
        terms = KeyTerms(
            name=given["name"],
            expires_at=given["expires"],
            limit_nanos=given["limit"],
            models=given["models"],
            ips=given["ips"],
        )
        return self._keeping_unsent(terms, self.key) if self.key else terms

    @property
    def expiry_choices(self) -> list[tuple[str, str]]:
        present = self.key.expires_at if self.key else None
        kept = date_format(timezone.localtime(present), gettext("j M Y, H:i")) if present else ""
        return [
            *([(KEEP, gettext("Unchanged: %(moment)s") % {"moment": kept})] if present else []),
            (NEVER, gettext("Never")),
            ("1h", gettext("1 hour from now")),
            ("1d", gettext("1 day from now")),
            ("1m", gettext("1 month from now")),
            (ON_DATE, gettext("On a date")),
        ]

    @property
    def expiry_choice(self) -> str:
        # An `expires` that is itself a date selects “On a date”.
        said = str(self["expires"].value() or NEVER)
        return said if said in dict(self.expiry_choices) else ON_DATE

    @property
    def expiry_date(self) -> str:
        said = str(self["expires"].value() or "")
        return said if said not in dict(self.expiry_choices) else str(self["expires_on"].value() or "")

    @property
    def models_help(self) -> str:
        parts = [gettext("With commas or line breaks between them. Leave blank for all.")]
        names = list(models_on_offer().values_list("name", flat=True)[: MAX_MODELS_IN_HELP + 1])
        if names:
            named = ", ".join(names[:MAX_MODELS_IN_HELP]) + (" …" if len(names) > MAX_MODELS_IN_HELP else "")
            parts.append(gettext("On offer: %(models)s") % {"models": named})
        return " ".join(parts)

    @property
    def first_date(self) -> date:
        return timezone.localdate() + timedelta(days=1)

    def _keeping_unsent(self, terms: KeyTerms, key: ApiKey) -> KeyTerms:
        return KeyTerms(
            name=terms.name if "name" in self.data else key.name,
            expires_at=terms.expires_at,
            limit_nanos=terms.limit_nanos if "limit" in self.data else key.limit,
            models=terms.models if "models" in self.data else tuple(key.models_allowed),
            ips=terms.ips if "ips" in self.data else tuple(key.ips_allowed),
        )


class RotateForm(forms.Form):
    grace = forms.ChoiceField(
        choices=[("none", _("Immediately")), ("1h", _("In 1 hour")), ("1d", _("In 1 day"))],
        error_messages={
            "required": _("Choose when the old key stops."),
            "invalid_choice": _("Choose when the old key stops."),
        },
    )

    def grace_time(self) -> timedelta:
        return GRACES[self.cleaned_data["grace"]]


def expiry_at(said: str, *, now: datetime) -> datetime | None:
    """Return the time of `1h`, `1d` or `1m` from now, or local midnight of an ISO date; None for `never`.

    Raises ValidationError for anything else and for a time that is not in the future.
    """
    if said == NEVER:
        return None
    if said in _EXPIRY_SPANS:
        return now + _EXPIRY_SPANS[said]
    if said == "1m":
        return _a_month_after(now)
    moment = _first_moment(said)
    if moment is None:
        raise forms.ValidationError(_("Choose when it expires, or enter a date like 2030-12-31."), "date")
    if moment <= now:
        raise forms.ValidationError(_("Choose a date after today."), "past")
    return moment


def _first_moment(said: str) -> datetime | None:
    if not _DATE.fullmatch(said):
        return None
    try:
        return datetime.combine(date.fromisoformat(said), time.min, timezone.get_current_timezone())
    except ValueError:
        return None


def _a_month_after(moment: datetime) -> datetime:
    year, month = divmod(moment.year * 12 + moment.month, 12)
    month += 1
    return moment.replace(year=year, month=month, day=min(moment.day, monthrange(year, month)[1]))


def _network(text: str, *, strict: bool = True) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Raises ValueError, also for a scope id (fe80::1%eth0): it names an interface of this host, not of a client."""
    if "%" in text:
        raise ValueError(text)
    return ipaddress.ip_network(text, strict=strict)


def _shown(key: ApiKey) -> dict[str, Any]:
    return {
        "name": key.name,
        "expires": KEEP if key.expires_at else NEVER,
        "limit": "" if key.limit is None else format_exact(key.limit),
        "models": "\n".join(key.models_allowed),
        "ips": "\n".join(key.ips_allowed),
    }
