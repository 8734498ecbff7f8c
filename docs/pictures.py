"""Take the screenshots of README and docs from a running `./run`: .venv/bin/python docs/pictures.py"""

from __future__ import annotations

import os
from pathlib import Path

from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).parent / "images"
BASE = os.environ.get("BASE", "http://127.0.0.1:8000")


def main() -> None:
    with sync_playwright() as playwright:
        chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 860}, color_scheme="light")
        page.goto(f"{BASE}/login/")
        page.get_by_label("Username").fill("mira.okafor")
        page.get_by_label("Password").fill("halcyon-demo")
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url("**/console/")
        page.goto(f"{BASE}/console/?period=30d")
        page.wait_for_load_state("networkidle")
        page.screenshot(path=IMAGES / "dashboard.png")
        page.goto(f"{BASE}/space/users/")
        page.screenshot(path=IMAGES / "user-management.png")
        browser.close()


if __name__ == "__main__":
    main()
