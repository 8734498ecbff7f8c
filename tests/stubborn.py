"""A server whose workers do not end, under a supervisor with short timeouts: python -m tests.stubborn PORT"""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import Any

from spacemanage.serve import Config, Supervisor


class HastySupervisor(Supervisor):
    SETTLING_TIMEOUT_S = int(os.environ.get("SETTLING_TIMEOUT_S", "1"))


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the worker's process id."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if os.environ.get("IS_STUBBORN"):
            time.sleep(600)
        await send({"type": "lifespan.shutdown.complete"})
        return
    pid = b"%d" % os.getpid()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(pid))]})
    await send({"type": "http.response.body", "body": pid})


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    config = Config("tests.stubborn:application", port=int(sys.argv[1]), log_config=None, workers=2)
    config.timeout_graceful_shutdown = 1
    HastySupervisor(config, sockets=[config.bind_socket()]).run()
