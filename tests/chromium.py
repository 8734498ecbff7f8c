from __future__ import annotations

import os
import shutil

NAMES = ["chromium", "chromium-browser", "google-chrome"]


def find_chromium() -> str | None:
    """Return the path of the browser that CHROMIUM names, or else of one on PATH."""
    return next(filter(None, map(shutil.which, [os.environ.get("CHROMIUM", ""), *NAMES])), None)
