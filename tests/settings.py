"""The product's settings with plain static files and quick password hashing, on whatever DATABASE_URL names."""

import os

os.environ.setdefault("DEMO", "true")

from django.conf.locale import LANG_INFO

from spacemanage.settings import *  # noqa: F403
from tests import pseudo

# WhiteNoise reads its whole folder for each test client: an empty one is quick, and there on a bare clone.
STATIC_ROOT = VAR_DIR / "test-static"  # noqa: F405
STATIC_ROOT.mkdir(parents=True, exist_ok=True)
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

# A pseudo-language read from the right, for the tests alone; its catalog is made by their conftest.
LANG_INFO[pseudo.CODE] = pseudo.INFO
LANGUAGES = [*LANGUAGES, (pseudo.CODE, "Pseudo")]  # noqa: F405
LOCALE_PATHS = [*LOCALE_PATHS, pseudo.DIRECTORY]  # noqa: F405
