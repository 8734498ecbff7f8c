"""One line that describes the machine on which a benchmark ran."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it ships no types


def machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores ({_processor()}), {memory:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}; load average at the start {load:.1f}"
    )


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", information.read_text()) if information.exists() else None
    return found[1] if found else platform.processor() or platform.machine()
