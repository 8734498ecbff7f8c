"""Structured logs on stderr: one logfmt line (`key=value`) per event."""

from __future__ import annotations

from logging import Filter, LogRecord

import structlog
from django.db import InterfaceError, OperationalError
from structlog.typing import Processor

DATABASE_AWAY = (OperationalError, InterfaceError)

CHAIN: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso"),
]

structlog.configure(
    processors=[*CHAIN, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
    cache_logger_on_first_use=True,
)


def formatter() -> structlog.stdlib.ProcessorFormatter:
    # LOGGING names it. It renders records of the standard library and of structlog alike.
    render = structlog.processors.LogfmtRenderer(
        key_order=["timestamp", "level", "logger", "event"], bool_as_flag=False
    )
    finish: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        render,
    ]
    return structlog.stdlib.ProcessorFormatter(processors=finish, foreign_pre_chain=CHAIN)


class DatabaseAway(Filter):
    """Log an unreachable database as one line, because a traceback of each page that needed it adds nothing."""

    def filter(self, record: LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, DATABASE_AWAY):
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            record.msg, record.args = "Database away: %s", (why,)
            record.exc_info, record.exc_text = None, None
        return True
