"""Structured logs.

Responsible for the form of a line (JSON, or readable text on a terminal) and for the trace and
request id that tie it to a call. Not for what is worth a line. Nothing secret is ever passed to a
logger: no token, key, password or proxy, and no message of a request as a whole.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import structlog

from gridlane_kit.call import CURRENT, Call

_CHATTY: Final = ("alembic",)
"""Libraries that tell at INFO what they do by themselves."""


def configure(
    *, json: bool | None = None, level: str = "INFO", stream: TextIO | None = None
) -> None:
    """Sets up the logging of this process, the standard library's included. Call it once, at start.

    Parameters:
        json: lines as JSON; None means unless `stream` is a terminal.
        level: "DEBUG", "INFO", "WARNING" or "ERROR".
        stream: where lines go; standard error when not given.
    """
    out = sys.stderr if stream is None else stream
    as_json = not out.isatty() if json is None else json
    shared: list[structlog.typing.Processor] = [
        _call_context,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    ending: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if as_json
        # Tracebacks without the values of variables: a bearer token is one of them.
        else [
            structlog.dev.ConsoleRenderer(
                colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
    )
    handler = _Handler(out)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


class _Handler(logging.StreamHandler[TextIO]):
    """The handler that `configure` put in place, so that a second call finds it."""


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """Returns the logger of a part of Gridlane, for example "workload.reconciler"."""
    bound: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(f"gridlane.{name}")
    return bound


def _call_context(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    caller = CURRENT.get()
    if caller is not None:
        event.setdefault("trace_id", caller.trace.trace_id_hex)
        if isinstance(caller, Call):
            event.setdefault("rpc", caller.method)
            if caller.request_id:
                event.setdefault("request_id", caller.request_id)
    return event
