from __future__ import annotations

from django.apps import AppConfig


class SpaceManageConfig(AppConfig):
    name = "spacemanage"
