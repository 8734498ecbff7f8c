from __future__ import annotations

from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig

from operators.names import give_names


class OperatorsConfig(AppConfig):
    name = "operators"


class OperatorsSiteConfig(AdminConfig):
    """Makes OperatorsSite the default admin site, and autodiscovers `operators.admin`, which registers the pages."""

    default_site = "operators.site.OperatorsSite"

    def ready(self) -> None:
        give_names()
        super().ready()
