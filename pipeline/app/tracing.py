"""A provider of tracers for a service, where the standard variables of OpenTelemetry name one.

Only these variables are read, not settings of our own: a collector's users know them, and the SDK
reads the others of them by itself.
"""

import asyncio
import os
import threading
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import structlog

from pipeline.errors import InputError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
END_SECONDS = 3.0
"""Longest wait for a collector when a service stops; the exporter tries for ten and more."""

_log = structlog.get_logger(__name__)


def is_traced(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether the environment names a collector, and does not turn traces off."""
    return (
        any(environment.get(name) for name in _ENDPOINTS)
        and environment.get("OTEL_TRACES_EXPORTER", "otlp") != "none"
        and environment.get("OTEL_SDK_DISABLED", "").lower() != "true"
    )


def check_installed() -> None:
    """Check that traces can be reported, where a collector is named.

    Raises:
        InputError: The extra `otel` is not installed.
    """
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter  # noqa: F401, PLC0415
    except ImportError as error:
        raise InputError(
            f"{' or '.join(_ENDPOINTS)} names a collector of traces, and OpenTelemetry is not "
            "installed: install the extra otel, or set OTEL_SDK_DISABLED=true."
        ) from error


def tracer_provider(service: str, stack: AsyncExitStack) -> "TracerProvider | None":
    """Return what reports the spans of a service, or None; it ends with `stack`.

    Args:
        service: Its name, where OTEL_SERVICE_NAME gives none.
        stack: At its end, what is not reported yet is, or is dropped.

    Raises:
        InputError: A collector is named, and the extra `otel` is not installed.
    """
    if not is_traced():
        return None
    check_installed()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    resource = Resource.create({"service.name": service}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    stack.push_async_callback(_end, provider)
    _log.info("traces are reported", service=service)
    return provider


async def _end(provider: "TracerProvider") -> None:
    """Report what is left; a collector that does not take it in time loses it."""
    ending = threading.Thread(target=provider.shutdown, name="traces", daemon=True)
    ending.start()
    await asyncio.to_thread(ending.join, END_SECONDS)
