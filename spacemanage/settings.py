"""All settings, read from the environment and validated: a bad value raises ImproperlyConfigured.

Without `DEMO=true` these are production settings: `SECRET_KEY` and `ALLOWED_HOSTS` are required, cookies are secure,
and HTTP redirects to HTTPS.
"""

from __future__ import annotations

import ipaddress
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dj_database_url
import django_stubs_ext
from cryptography.fernet import Fernet
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured
from django.core.management.utils import get_random_secret_key
from environs import Env, EnvError

# Makes Django's generic classes, such as ModelForm[Space], subscriptable at run time.
django_stubs_ext.monkeypatch()

BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = BASE_DIR / "var"

env = Env()


def networks(name: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    given: list[str] = env.list(name, [])
    try:
        return [ipaddress.ip_network(item.strip()) for item in given]
    except ValueError as error:
        raise ImproperlyConfigured(f"{name}: {error}. Give addresses or networks, split by commas.") from error


def secret_key(*, demo: bool) -> str:
    """Return SECRET_KEY from the environment; a demo without one generates it once and keeps it in var/."""
    key = env.str("SECRET_KEY", "")
    if key and (len(key) < 50 or len(set(key)) < 5):
        raise ImproperlyConfigured("SECRET_KEY: give at least 50 random characters.")
    if key:
        return key
    if not demo:
        raise ImproperlyConfigured("SECRET_KEY is not set. Give at least 50 random characters.")
    return demo_secret("demo_secret_key", get_random_secret_key)


def credential_keys(*, demo: bool) -> list[str]:
    """Return the keys that encrypt upstreams' credentials and two-factor secrets, newest first; see core/vault.py."""
    keys: list[str] = env.list("CREDENTIAL_KEYS", [])
    if keys or not demo:
        return keys
    return [demo_secret("demo_credential_key", lambda: Fernet.generate_key().decode())]


def demo_secret(name: str, make: Callable[[], str]) -> str:
    file = VAR_DIR / name
    if not file.exists():
        VAR_DIR.mkdir(exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(make())
    return file.read_text().strip()


def databases() -> dict[str, dict[str, Any]]:
    """Return DATABASES: PostgreSQL or SQLite as DATABASE_URL says, else SQLite in var/.

    SQLite ignores select_for_update, so its transactions are IMMEDIATE: each takes the write lock when it begins.
    """
    if "DATABASE_URL" not in os.environ:
        VAR_DIR.mkdir(exist_ok=True)
    try:
        found = env.str("DATABASE_URL", "") or f"sqlite:///{VAR_DIR / 'db.sqlite3'}"
        database: dict[str, Any] = dict(dj_database_url.parse(found))
    except ValueError as error:
        raise ImproperlyConfigured(f"DATABASE_URL: {error}") from error
    engine = database["ENGINE"].rpartition(".")[2]
    if engine == "sqlite3":
        database["OPTIONS"] = {
            "transaction_mode": "IMMEDIATE",
            "timeout": 30,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        }
        database["TEST"] = {"NAME": str(VAR_DIR / "test.sqlite3")}
    elif engine == "postgresql":
        database["CONN_MAX_AGE"] = env.int("DATABASE_CONN_MAX_AGE_S", 60)
        database["CONN_HEALTH_CHECKS"] = True
        database["OPTIONS"] = {**database.get("OPTIONS", {}), "connect_timeout": 5}
        # PgBouncer in transaction mode does not support server-side cursors outside a transaction.
        database["DISABLE_SERVER_SIDE_CURSORS"] = True
    else:
        raise ImproperlyConfigured("DATABASE_URL: only postgres:// and sqlite:// are supported.")
    return {"default": database}


try:
    DEMO = env.bool("DEMO", False)
    DEBUG = env.bool("DEBUG", False)
    SECRET_KEY = secret_key(demo=DEMO)
    CREDENTIAL_KEYS = credential_keys(demo=DEMO)
    DEMO_UPSTREAM_PORT = env.int("DEMO_UPSTREAM_PORT", 8001)
    ALLOWED_HOSTS: list[str] = env.list("ALLOWED_HOSTS", ["*"] if DEMO else [])
    CSRF_TRUSTED_ORIGINS: list[str] = env.list("CSRF_TRUSTED_ORIGINS", [])
    TRUSTED_PROXIES = networks("TRUSTED_PROXIES")
    DATABASES = databases()
    HTTPS = env.bool("HTTPS", not DEMO)
    # The relay reloads its catalogue of models, prices and upstreams at this interval.
    CATALOGUE_REFRESH_S = env.float("CATALOGUE_REFRESH_S", 2.0)
    # For so long an answer is read on after its client left, whole or streamed, so that it is charged as told.
    LEFT_ANSWER_S = env.float("LEFT_ANSWER_S", 120.0)
    LEFT_STREAM_S = env.float("LEFT_STREAM_S", 10.0)
    OPERATORS_NEED_2FA = env.bool("OPERATORS_NEED_2FA", False)
    LOG_LEVEL = env.log_level("LOG_LEVEL", logging.INFO)
except EnvError as error:
    raise ImproperlyConfigured(str(error)) from error

if not ALLOWED_HOSTS:
    raise ImproperlyConfigured("ALLOWED_HOSTS is not set. Give the host names that this site answers to.")

# -- Application ------------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "operators.apps.OperatorsSiteConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "allauth.account",
    "allauth.mfa",
    "allauth.usersessions",
    "axes",
    "csp",
    "django_cotton.apps.SimpleAppConfig",
    "django_htmx",
    "template_partials.apps.SimpleAppConfig",
    "tenants",
    "audit",
    "accounts",
    "usage",
    "quotas",
    "relay",
    "console",
    "operators.apps.OperatorsConfig",
    "spacemanage",
    # Production neither imports nor installs the demo.
    *(["demo"] if DEMO else []),
]

MIDDLEWARE = [
    "core.middleware.origin",
    "accounts.middleware.browser_locale",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.middleware.gzip.GZipMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "accounts.middleware.own_locale",
    "django_htmx.middleware.HtmxMiddleware",
    "accounts.middleware.SignInRequiredMiddleware",
    # allauth's middleware provides the request in a context variable; see docs/decisions/021.
    "allauth.account.middleware.AccountMiddleware",
    "accounts.middleware.second_factor_required",
    "accounts.middleware.session_seen",
    "tenants.middleware.space",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
]

ROOT_URLCONF = "spacemanage.urls"
WSGI_APPLICATION = "spacemanage.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "OPTIONS": {
            "loaders": [
                (
                    "template_partials.loader.Loader",
                    [
                        (
                            "django.template.loaders.cached.Loader",
                            [
                                "django_cotton.cotton_loader.Loader",
                                "django.template.loaders.filesystem.Loader",
                                "django.template.loaders.app_directories.Loader",
                            ],
                        )
                    ],
                )
            ],
            "builtins": [
                "django.templatetags.i18n",
                "django.templatetags.static",
                "django.templatetags.tz",
                "django_cotton.templatetags.cotton",
                "template_partials.templatetags.partials",
                "console.templatetags.look",
                "console.templatetags.quota",
            ],
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "console.frame.shell",
            ],
        },
    }
]
COTTON_DIR = "components"
FORM_RENDERER = "core.fields.TruncatingRenderer"

# -- Sign-in ----------------------------------------------------------------------------------------------------

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "accounts.backends.LivingUserBackend"]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 8}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator",
        "OPTIONS": {"user_attributes": ["username"]},
    },
]
# Usernames are unique by a database constraint, case-insensitively and among users that are not deleted, not by the
# field's `unique`, which this check looks for.
SILENCED_SYSTEM_CHECKS = ["auth.W004"]
LOGIN_URL = "/login/"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "/login/"

AXES_HANDLER = "accounts.throttle.Throttle"
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_FAILURE_LIMIT = "accounts.throttle.failure_limit"
AXES_LOCKOUT_PARAMETERS = ["username", "ip_address"]
AXES_COOLOFF_TIME = "accounts.throttle.cool_off"
AXES_USERNAME_CALLABLE = "accounts.throttle.throttled_name"
AXES_CLIENT_IP_CALLABLE = "accounts.throttle.client_address"
AXES_LOCKOUT_CALLABLE = "console.sign_in.views.refuse"
AXES_RESET_ON_SUCCESS = True
AXES_ENABLE_ACCESS_FAILURE_LOG = False
AXES_VERBOSE = False
# Sign-ins are recorded in the trail, and lockouts are ended by accounts.throttle.unlock.
AXES_DISABLE_ACCESS_LOG = True
AXES_ENABLE_ADMIN = False
# Form fields that axes masks where it stores or logs a failed sign-in. A username may be a password typed into the
# wrong field.
AXES_SENSITIVE_PARAMETERS = ["username", "present_password", "new_password", "code", "passkey", "csrfmiddlewaretoken"]

# Users have no e-mail address. Only allauth's second factor and its table of sessions are used.
ACCOUNT_USER_MODEL_EMAIL_FIELD = None
ACCOUNT_LOGIN_METHODS = {"username"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "password1*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
MFA_ADAPTER = "accounts.second_factor_adapter.SecondFactorAdapter"
MFA_SUPPORTED_TYPES = ["totp", "recovery_codes", "webauthn"]
MFA_TOTP_TOLERANCE = 1
MFA_RECOVERY_CODE_DIGITS = 10
MFA_WEBAUTHN_USER_VERIFICATION = "discouraged"

# A cache per process suffices: it only saves writing a session's "last seen" at every request.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "OPTIONS": {"MAX_ENTRIES": 10_000},
    }
}

# -- Safety -----------------------------------------------------------------------------------------------------

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
        "object-src": [NONE],
    }
}
SECURE_SSL_REDIRECT = HTTPS
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TRUSTED_PROXIES else None
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = HTTPS
SECURE_HSTS_PRELOAD = HTTPS
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_SECURE = HTTPS
CSRF_COOKIE_SECURE = HTTPS
SESSION_COOKIE_HTTPONLY = True
CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SAMESITE = "Lax"
CSRF_FAILURE_VIEW = "spacemanage.errors.csrf_failed"
X_FRAME_OPTIONS = "DENY"
# Large enough for a form with a far too long text, whose field can then report that. A larger body is refused.
DATA_UPLOAD_MAX_MEMORY_SIZE = 16 * 1024 * 1024

# -- Words, time, files -----------------------------------------------------------------------------------------

LANGUAGE_CODE = "en"
# Not translated: each language is named in itself.
LANGUAGES = [("en", "English"), ("zh-hans", "简体中文")]
LANGUAGE_COOKIE_NAME = "language"
LANGUAGE_COOKIE_AGE = 31_536_000
LANGUAGE_COOKIE_SECURE = HTTPS
LANGUAGE_COOKIE_HTTPONLY = True
LANGUAGE_COOKIE_SAMESITE = "Lax"
LOCALE_PATHS = [BASE_DIR / "locale"]
USE_I18N = True
USE_TZ = True
TIME_ZONE = "UTC"

STATIC_URL = "static/"
STATIC_ROOT = VAR_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}

MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": "spacemanage.logs.formatter"}},
    "filters": {"database_away": {"()": "spacemanage.logs.DatabaseAway"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["database_away"]}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    # axes' INFO lines add nothing, because accounts.throttle logs every refused sign-in. django.request logs 4xx as
    # warnings, which are the client's errors, and 5xx as errors.
    "loggers": {"axes": {"level": "WARNING"}, "django.request": {"level": "ERROR"}, "uvicorn": {"level": "ERROR"}},
}
