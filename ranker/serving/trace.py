"""What is known of the request that is being answered: for its log line, its metrics and its headers.

The door makes one; whoever answers the request writes into it. It holds nothing of the request's text.
"""

import time
from contextvars import ContextVar, Token
from dataclasses import dataclass, field

# How many seconds a request has already been tried with other gateways. A duration and no time of day: the clocks of
# two nodes differ.
AGE_HEADER = "x-ranker-age"


@dataclass
class Trace:
    """Notes about one request.

    Args:
        dialect: wire format of the client. model: that answered, by the service's own name.
        documents: how many were scored. times: seconds by part: queue, tokenise, inference, retrieve.
        retries: calls that were repeated because a replica went away.
        began: monotonic seconds when it arrived, at the first gateway where there were several.
        route, body_bytes: that it goes to, and that its body has (None: unsaid): what is known of its cost unread.
    """

    dialect: str = ""
    model: str = ""
    documents: int = 0
    times: dict[str, float] = field(default_factory=dict)
    retries: int = 0
    began: float = field(default_factory=time.monotonic)
    route: str = ""
    body_bytes: int | None = None

    def spent(self, part: str, seconds: float) -> None:
        """Add to the time of a part."""
        self.times[part] = self.times.get(part, 0.0) + seconds


_CURRENT: ContextVar[Trace | None] = ContextVar("ranker_trace", default=None)


def current() -> Trace:
    """The trace of this request; outside of one, a new one that nobody reads."""
    return _CURRENT.get() or Trace()


def begin(age: float = 0.0) -> tuple[Trace, Token[Trace | None]]:
    """A new trace for what runs from here on, and what :func:`end` takes; ``age`` as in ``AGE_HEADER``."""
    trace = Trace()
    trace.began -= age
    return trace, _CURRENT.set(trace)


def end(token: Token[Trace | None]) -> None:
    """Back to the trace before."""
    _CURRENT.reset(token)
