"""Form fields for names with values, one a line. Values of secret ones are never shown."""

from __future__ import annotations

from typing import Any

from django import forms

from relay.upstream_settings import pairs_of, validate_header

# Stands for a stored value that the page does not show.
KEPT = "••••••"


class PairsField(forms.CharField):
    """A JSON object as lines such as `name=value`. `separator` stands between name and value."""

    separator = "="
    shown_separator = "="

    def __init__(self, **options: Any) -> None:
        widget = forms.Textarea(attrs={"rows": 3, "class": "vLargeTextField", "spellcheck": "false"})
        super().__init__(required=False, widget=widget, max_length=200_000, **options)

    def prepare_value(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return "\n".join(f"{name}{self.shown_separator}{text}" for name, text in value.items())

    def has_changed(self, initial: Any, data: Any) -> bool:
        return super().has_changed(self.prepare_value(initial), (data or "").replace("\r\n", "\n"))

    def to_python(self, value: Any) -> Any:
        lines = [line.strip() for line in str(value or "").splitlines()]
        return dict(pairs_of([line for line in lines if line], self.separator))

    def run_validators(self, value: Any) -> None:
        """Leave out CharField's validators of text: the model's field validates the pairs."""


class HeadersField(PairsField):
    """Lines such as `Name: value`. A stored value is shown as KEPT, and a line that is left so keeps it."""

    separator = ":"
    shown_separator = ": "

    def prepare_value(self, value: Any) -> Any:
        return super().prepare_value(dict.fromkeys(value, KEPT) if isinstance(value, dict) else value)

    def clean(self, value: Any) -> dict[str, str]:
        headers: dict[str, str] = super().clean(value)
        for name, text in headers.items():
            if text != KEPT:
                validate_header(name, text)
        return headers
