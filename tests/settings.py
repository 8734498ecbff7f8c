"""The product's settings with plain static files and quick password hashing, on whatever DATABASE_URL names."""

import os

os.environ.setdefault("DEMO", "true")

from spacemanage.settings import *  # noqa: F403

# WhiteNoise reads its whole folder for each test client: an empty one is quick, and there on a bare clone.
STATIC_ROOT = VAR_DIR / "test-static"  # noqa: F405
STATIC_ROOT.mkdir(parents=True, exist_ok=True)
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
