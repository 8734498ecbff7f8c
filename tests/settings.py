"""The product's settings with plain static files and fast password hashing, for the database in DATABASE_URL."""

import atexit
import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from cryptography.fernet import Fernet

# The first process of a run creates its folder and secrets, which test workers and servers under test inherit. So two
# runs in one checkout share no file.
if "TEST_DIR" not in os.environ:
    os.environ["TEST_DIR"] = tempfile.mkdtemp(prefix="spacemanage-test-")
    atexit.register(shutil.rmtree, os.environ["TEST_DIR"], ignore_errors=True)
    os.environ["SECRET_KEY"] = secrets.token_urlsafe(64)
    os.environ["CREDENTIAL_KEYS"] = Fernet.generate_key().decode()
    os.environ.setdefault("DEMO", "true")
TEST_DIR = Path(os.environ["TEST_DIR"])

# Container images often set PYTHONDONTWRITEBYTECODE. Without bytecode each server under test compiles all of Django
# when it starts, which doubles the CPU time of a start.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
    os.environ.setdefault("PYTHONPYCACHEPREFIX", str(Path(__file__).resolve().parent.parent / "var" / "pycache"))
    sys.dont_write_bytecode = False
    sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"]

from django.conf.locale import LANG_INFO  # noqa: E402

from spacemanage.settings import *  # noqa: E402, F403
from tests import postgres, pseudo  # noqa: E402

if postgres.is_clock_faked():
    postgres.sleep_by_select()

if DATABASES["default"]["ENGINE"].endswith("sqlite3"):  # noqa: F405
    DATABASES["default"]["TEST"] = {"NAME": str(TEST_DIR / "test.sqlite3")}  # noqa: F405
else:
    # Two runs may share a server, so each has a database of its own.
    DATABASES["default"]["TEST"] = {"NAME": f"test_{secrets.token_hex(4)}"}  # noqa: F405

# WhiteNoise scans its whole folder for each test client. An empty one is fast, and exists in a bare clone.
STATIC_ROOT = TEST_DIR / "static"
STATIC_ROOT.mkdir(exist_ok=True)
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

# The right-to-left pseudo-localisation; tests/browser/conftest.py generates its catalog.
LANG_INFO[pseudo.CODE] = pseudo.INFO
LANGUAGES = [*LANGUAGES, (pseudo.CODE, "Pseudo")]  # noqa: F405
LOCALE_PATHS = [*LOCALE_PATHS, TEST_DIR / "pseudo"]  # noqa: F405
