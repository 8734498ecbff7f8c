"""Parse a User-Agent header into the names of a browser and an operating system."""

from __future__ import annotations

from dataclasses import dataclass

from django.utils.translation import gettext as _

# The first match counts, because a browser's User-Agent also names the browsers that it is derived from.
_BROWSERS = [
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("HeadlessChrome/", "Chrome"),
    ("Chrome/", "Chrome"),
    ("CriOS/", "Chrome"),
    ("Safari/", "Safari"),
]
_SYSTEMS = [
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("CrOS", "ChromeOS"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
]
_HANDHELD = {"iPhone", "iPad", "Android"}


@dataclass(frozen=True)
class Device:
    browser: str
    system: str

    @property
    def is_handheld(self) -> bool:
        return self.system in _HANDHELD

    @property
    def names(self) -> str:
        # Not translated, because people with other languages read the audit trail.
        return ", ".join(name for name in (self.browser, self.system) if name)

    @property
    def text(self) -> str:
        if self.browser and self.system:
            return _("%(browser)s on %(system)s") % {"browser": self.browser, "system": self.system}
        return self.browser or self.system or _("Unknown device")


def device_of(agent: str) -> Device:
    return Device(browser=_first(_BROWSERS, agent), system=_first(_SYSTEMS, agent))


def _first(names: list[tuple[str, str]], agent: str) -> str:
    return next((name for mark, name in names if mark in agent), "")
