"""Traces: a raise within a span goes on in the handler, on every database, and costs nothing where there is no span."""

import json
import logging
import subprocess
import sys

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from rig import plain

from flagsweep import Snooze


@pytest.fixture
def spans(monkeypatch):
    """Give `spans()`: the spans that have ended, by name, within a provider of the test's own."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield lambda: {span.name: span for span in exporter.get_finished_spans()}
    provider.shutdown()


@pytest.fixture
def request_span():
    """Give `request_span()`: the span of a request of the site's."""
    return lambda: trace.get_tracer("site").start_as_current_span("request")


@pytest.fixture
def flags(flags_anywhere):
    return flags_anywhere


def test_the_trace_of_a_raise_goes_on_in_its_handler(flags, spans, request_span):
    seen = []
    send = flags.handler("send", lane="mail")(lambda n: seen.append(trace.get_current_span().get_span_context().trace_id))
    with request_span():
        raised = send.raise_flag(1)
    flags.sweep()
    found = spans()
    request, put, done = found["request"], found["raise send"], found["process send"]
    assert put.parent.span_id == request.context.span_id
    assert done.parent.span_id == put.context.span_id and done.parent.is_remote
    assert {each.context.trace_id for each in (request, put, done)} == set(seen)
    assert (put.kind, done.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    told = dict(done.attributes)
    assert told["messaging.system"] == "flagsweep" and told["messaging.destination.name"] == "mail"
    assert (told["messaging.message.id"], told["flagsweep.attempt"], told["flagsweep.outcome"]) == (
        str(raised.id),
        1,
        "succeeded",
    )
    assert "n" not in json.dumps({name: str(value) for name, value in told.items()}).split('"'), "no payload"


def test_raise_many_gives_all_its_flags_one_trace(flags, spans, request_span):
    send = flags.handler("send")(lambda n: None)
    with request_span():
        send.raise_many([(n,) for n in range(3)])
    flags.sweep()
    found = spans()
    assert found["process send"].parent.span_id == found["raise send"].context.span_id


def test_each_attempt_is_a_span_of_the_same_trace_and_an_error_is_recorded(flags, spans, request_span):
    send = flags.handler("send", backoff=10)(lambda n: 1 / n)
    with request_span():
        send.raise_flag(0)
    flags.sweep()
    first = spans()["process send"]
    flags.clock.advance(11)
    flags.sweep()
    second = spans()["process send"]
    assert first.parent.span_id == second.parent.span_id and first is not second
    assert [span.attributes["flagsweep.attempt"] for span in (first, second)] == [1, 2]
    assert (first.status.status_code, first.status.description) == (StatusCode.ERROR, "ZeroDivisionError: division by zero")
    (event,) = first.events
    assert event.attributes["exception.type"] == "ZeroDivisionError"
    assert first.attributes["flagsweep.outcome"] == "failed"


def test_a_run_that_covers_several_raises_begins_its_own_trace_with_a_link_to_the_last(flags, spans, request_span):
    send = flags.handler("send")(lambda n: None)
    with request_span():
        send.raise_flag(1)
    with request_span():
        send.raise_flag(1)
    flags.sweep()
    found = spans()
    assert found["process send"].parent is None
    (link,) = found["process send"].links
    assert link.context.span_id == found["raise send"].context.span_id


def test_a_flag_without_a_trace_begins_one_where_the_consumer_traces(flags, spans):
    send = flags.handler("send")(lambda n: None)
    send.raise_flag(1)
    flags.sweep()
    found = spans()
    assert list(found) == ["process send"] and found["process send"].parent is None


def test_what_a_handler_raises_is_a_part_of_its_trace(flags, spans, request_span):
    other = flags.handler("other")(lambda: None)
    first = flags.handler("first")(lambda: other.raise_flag() and None)
    with request_span():
        first.raise_flag()
    flags.sweep()
    found = spans()
    assert found["raise other"].parent.span_id == found["process first"].context.span_id
    assert found["process other"].context.trace_id == found["request"].context.trace_id


def test_an_async_handler_goes_on_with_its_own_trace_beside_others(flags, spans, request_span):
    import asyncio

    seen = {}

    async def send(n):
        before = trace.get_current_span().get_span_context().trace_id
        await asyncio.sleep(0)
        seen[n] = (before, trace.get_current_span().get_span_context().trace_id)

    send = flags.handler("send")(send)
    wanted = {}
    for n in range(3):
        with request_span() as span:
            send.raise_flag(n)
            wanted[n] = (span.get_span_context().trace_id,) * 2
    flags.sweep()
    assert seen == wanted and len(set(wanted.values())) == 3


def test_an_atomic_handler_and_one_that_asks_for_later_are_told_as_what_they_did(flags, spans):
    def later():
        raise Snooze("1h")

    flags.handler("written", atomic=True)(lambda: None).raise_flag()
    flags.handler("later")(later).raise_flag()
    flags.sweep()
    found = spans()
    outcomes = {name: span.attributes["flagsweep.outcome"] for name, span in found.items()}
    assert outcomes == {"process written": "succeeded", "process later": "snoozed"}
    assert {span.status.status_code for span in found.values()} == {StatusCode.UNSET}


def test_an_unsampled_trace_goes_on_unsampled(flags, spans, monkeypatch):
    send = flags.handler("send")(lambda n: None)
    unsampled = trace.SpanContext(1, 2, is_remote=False, trace_flags=trace.TraceFlags(0))
    with trace.use_span(trace.NonRecordingSpan(unsampled)):
        send.raise_flag(1)
    flags.sweep()
    assert spans() == {}


def test_outside_of_a_span_a_raise_is_the_statement_that_it_always_was(flags, spans, request_span, caplog):
    send = flags.handler("send")(lambda n: None)
    caplog.set_level(logging.DEBUG, "peewee")
    send.raise_flag(1), send.raise_many([(2,)])
    quiet = [record.getMessage() for record in caplog.records if "INSERT" in record.getMessage()]
    caplog.clear()
    with request_span():
        send.raise_flag(1), send.raise_many([(2,)])
    traced = [record.getMessage() for record in caplog.records if "INSERT" in record.getMessage()]
    assert quiet and not [text for text in quiet if "trace" in text]
    assert len(traced) == len(quiet) and all("trace" in text for text in traced)


def test_the_trace_that_a_hand_has_damaged_is_none(make, db_path, spans):
    flags = make()
    send = flags.handler("send")(lambda n: None)
    for n, text in enumerate([b"\xff", "00-zz-1-01", "", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"]):
        plain(db_path, "UPDATE flagsweep_flag SET trace = ? WHERE id = ?", text, send.raise_flag(n).id)
    counts = flags.sweep()
    assert counts["lowered"] >= 3 and counts.total() == 4
    assert spans()["process send"].parent is None


def test_a_tracer_that_fails_keeps_no_flag_from_being_raised_and_no_handler_from_its_work(
    flags, spans, monkeypatch, request_span
):
    send = flags.handler("send")(lambda n: None)

    def trouble(*_, **__):
        raise RuntimeError("no tracer today")

    with request_span():
        monkeypatch.setattr(trace, "get_tracer", trouble)
        assert send.raise_flag(1).how == "new"
    assert flags.sweep() == {"lowered": 1}


WITHOUT = """
import sys
from flagsweep import FlagSweep
flags = FlagSweep(sys.argv[1]); flags.init()
work = flags.handler("work")(lambda: None)
work.raise_flag(); flags.sweep()
print([name for name in sys.modules if name.startswith(("opentelemetry", "prometheus_client"))])
"""


@pytest.mark.long
def test_a_site_that_traces_nothing_loads_nothing_for_it(db_path, env):
    done = subprocess.run([sys.executable, "-c", WITHOUT, str(db_path)], env=env, capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
