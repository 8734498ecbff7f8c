"""Forms that several pages share."""

from __future__ import annotations

from django import forms
from django.utils.translation import gettext_lazy as _


class StatusForm(forms.Form):
    enabled = forms.ChoiceField(
        choices=[("true", "true"), ("false", "false")],
        error_messages={
            "required": _("Send enabled=true or enabled=false."),
            "invalid_choice": _("Send true or false."),
        },
    )

    def is_enabled(self) -> bool:
        return bool(self.cleaned_data["enabled"] == "true")
