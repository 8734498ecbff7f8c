from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "spacemanage.settings")
application = get_wsgi_application()

from spacemanage.boot import refuse_published_passwords  # noqa: E402  the apps must be loaded first

refuse_published_passwords()
