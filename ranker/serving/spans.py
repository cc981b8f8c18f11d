"""What this project adds to the spans that Ray Serve traces; nothing where tracing is off."""

from collections.abc import Mapping

from opentelemetry import trace


def mark(attributes: Mapping[str, str | int | float]) -> None:
    """Attributes of the span that is open here, each below ``ranker.``; never text of a request."""
    span = trace.get_current_span()
    if span.is_recording():
        span.set_attributes({f"ranker.{name}": value for name, value in attributes.items()})
