from __future__ import annotations

from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig


class OperatorsConfig(AppConfig):
    name = "operators"


class OperatorsSiteConfig(AdminConfig):
    """Django admin with the operators' own site; it imports `operators.admin`, which registers the pages."""

    default_site = "operators.site.OperatorsSite"
