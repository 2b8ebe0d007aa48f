"""Traces of OpenTelemetry, where the site has it: a raise is a producer's span, and its trace goes on in the handler.

Nothing here is imported for it, and nothing of it is loaded by us: who traces has loaded ``opentelemetry.trace`` already, and who
has not pays a look into a dictionary. Where no span is active, a raise is what it always was.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from ..logs import headline, printable

log = logging.getLogger("flagsweep")

SYSTEM = "flagsweep"
"""What spans name as the messaging system."""


_SILENT = ("ProxyTracerProvider", "NoOpTracerProvider")
"""Providers of spans that nobody records."""


def api() -> Any:
    """Return the module ``opentelemetry.trace`` where the site has loaded it, else None."""
    return sys.modules.get("opentelemetry.trace")


def records() -> bool:
    """Return whether anybody records spans: where only the interface is loaded, as some libraries do, each costs for nothing."""
    trace = api()
    return trace is not None and type(trace.get_tracer_provider()).__name__ not in _SILENT


def is_traced() -> bool:
    """Return whether a span is active, which a raise is to be a part of."""
    trace = api()
    return trace is not None and bool(trace.get_current_span().get_span_context().is_valid)


@contextmanager
def raising(kind: str, lane: str) -> Iterator[str | None]:
    """Be within the span of a raise, and return its context as ``traceparent``, for the handler's span to continue; None where
    the tracer fails: the flag is raised all the same."""
    trace, what = api(), _about(kind, lane, "raise", "send")
    with ExitStack() as stack:
        context = None
        try:
            started = _tracer(trace).start_as_current_span(f"raise {kind}", kind=trace.SpanKind.PRODUCER, attributes=what)
            context = traceparent(stack.enter_context(started).get_span_context())
        except Exception as error:
            log.debug("a raise of %s has no span: %s", kind, printable(str(error)))
        yield context


def traceparent(context: Any) -> str:
    """Return the context of a span as W3C writes it."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


class Processing:
    """Be the span of one run of a handler. Whatever goes wrong with it, the handler runs.

    The trace of a raise goes on in it. A run that covers several raises belongs to none of their traces alone: it begins one of
    its own, with a link to the last.

    :param parent: the ``traceparent`` of the raise, if it had one.
    :param raises: how many raises the run covers.
    """

    def __init__(self, kind: str, lane: str, flag: int, attempt: int, parent: Any, raises: int):
        self._span: Any = None
        self._token: Any = None
        try:
            self._begin(api(), kind, lane, flag, attempt, parent, raises)
        except Exception as error:
            log.debug("a run of %s has no span: %s", kind, printable(str(error)))

    def _begin(self, trace: Any, kind: str, lane: str, flag: int, attempt: int, parent: Any, raises: int) -> None:
        from opentelemetry import context

        raised = _remote(trace, parent)
        links = [trace.Link(raised)] if raised is not None and raises > 1 else None
        within = trace.set_span_in_context(trace.NonRecordingSpan(raised)) if raised is not None and not links else None
        what = {**_about(kind, lane, "process", "process"), "messaging.message.id": str(flag), "flagsweep.attempt": attempt}
        span = _tracer(trace).start_span(
            f"process {kind}", within or context.Context(), trace.SpanKind.CONSUMER, {**what, "flagsweep.raises": raises}, links
        )
        self._token = context.attach(trace.set_span_in_context(span))
        self._span = span

    def end(self, outcome: str, error: BaseException | None, text: str | None) -> None:
        """End the span.

        :param outcome: what it counts as.
        :param error: the exception of a run that failed; ``text``: what is told of it.
        """
        if self._span is None:
            return
        try:
            from opentelemetry import context

            context.detach(self._token)
            self._span.set_attribute("flagsweep.outcome", outcome)
            if text is not None:
                trace = api()
                if error is not None:
                    self._span.record_exception(error)
                    self._span.set_attribute("error.type", type(error).__qualname__)
                self._span.set_status(trace.Status(trace.StatusCode.ERROR, headline(text)))
            self._span.end()
        except Exception as trouble:
            log.debug("a span did not end well: %s", printable(str(trouble)))


def _remote(trace: Any, parent: Any) -> Any:
    """Return the context of a raise's span, or None where there is none, or a hand has damaged it."""
    if not isinstance(parent, str):
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    found = trace.get_current_span(TraceContextTextMapPropagator().extract({"traceparent": parent})).get_span_context()
    return found if found.is_valid and found.is_remote else None


def _tracer(trace: Any) -> Any:
    return trace.get_tracer(SYSTEM)


def _about(kind: str, lane: str, name: str, sort: str) -> dict[str, Any]:
    """Return what OpenTelemetry's conventions for messaging say of a span."""
    return {
        "messaging.system": SYSTEM,
        "messaging.destination.name": lane,
        "messaging.operation.name": name,
        "messaging.operation.type": sort,
        "flagsweep.kind": kind,
    }
