"""The product's settings with plain static files and quick password hashing, on whatever DATABASE_URL names."""

import os

os.environ.setdefault("DEMO", "true")

from spacemanage.settings import *  # noqa: F403

# WhiteNoise wants its folder, which a bare clone has not collected yet.
STATIC_ROOT.mkdir(parents=True, exist_ok=True)  # noqa: F405
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
