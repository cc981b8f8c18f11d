"""Calls answered by a plain reply: the place is taken first, given back, and the call cancelled with its caller."""

import asyncio
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span

from ranker.serving.handles import PlainReplies


class Handle:
    """Notes what happens to its one method, and answers after some seconds."""

    def __init__(self, seconds: float = 0.0, error: Exception | None = None):
        self.seconds, self.error, self.story, self.place = seconds, error, [], None
        self.score = self

    @asynccontextmanager
    async def choose_replica(self):
        self.place = SimpleNamespace(_request_metadata=SimpleNamespace(tracing_context=None))
        self.story.append("taken")
        try:
            yield self.place
        finally:
            self.story.append("given back")

    def dispatch(self, place, *args, **kwargs):
        assert place is self.place
        self.story.append((args, kwargs))
        return self

    def cancel(self):
        self.story.append("cancelled")

    async def _answer(self):
        await asyncio.sleep(self.seconds)
        if self.error:
            raise self.error
        return "answer"

    def __await__(self):
        return self._answer().__await__()


def test_the_place_is_taken_before_the_call_and_given_back_after_it():
    handle = Handle()
    assert asyncio.run(PlainReplies(handle).score.remote("q", ["d"], within_s=3)) == "answer"
    assert handle.story == ["taken", (("q", ["d"]), {"within_s": 3}), "given back"]
    assert handle.place._request_metadata.tracing_context is None


def test_what_the_replica_raises_reaches_the_caller():
    with pytest.raises(LookupError):
        asyncio.run(PlainReplies(Handle(error=LookupError("none"))).score.remote())


def test_a_caller_that_gives_up_takes_the_call_along():
    async def story(handle: Handle):
        with suppress(TimeoutError):
            await asyncio.wait_for(PlainReplies(handle).score.remote(), 0.05)
        return handle.story

    assert asyncio.run(story(Handle(5.0))) == ["taken", ((), {}), "cancelled", "given back"]


def test_the_trace_goes_on_in_the_replica():
    handle, sampled = Handle(), TraceFlags(TraceFlags.SAMPLED)
    with use_span(NonRecordingSpan(SpanContext(7, 9, is_remote=False, trace_flags=sampled))):
        asyncio.run(PlainReplies(handle).score.remote())
    assert handle.place._request_metadata.tracing_context == {"traceparent": f"00-{7:032x}-{9:016x}-01"}
    assert not trace.get_current_span().get_span_context().is_valid
