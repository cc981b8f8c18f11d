"""Calls that a replica answers without waiting for a receipt.

``handle.method.remote()`` has the replica answer as a stream, so that it may say first whether it takes the call. Ray
ends a stream by waiting on the replica's only event loop until the caller has confirmed every piece. A caller that fell
silent (a cable, a frozen machine) confirms nothing, so the replica that was answering it answers nobody for minutes,
however alive it is. Here the place in the replica is taken first, and the answer is the reply to the call itself.
"""

import asyncio
from typing import Any

from opentelemetry.propagate import inject


class PlainReplies:
    """A Ray Serve DeploymentHandle whose methods are answered by a plain reply.

    Args:
        handle: chooses the replica, counts what waits and notices a replica that dies, as it always does.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def __getattr__(self, name: str) -> "_Method":
        return _Method(getattr(self._handle, name))


class _Method:
    def __init__(self, method: Any) -> None:
        self._method = method

    async def remote(self, *args: Any, **kwargs: Any) -> Any:
        # The router does not choose by the arguments, so they travel once.
        async with self._method.choose_replica() as place:
            _carry_trace(place)
            response = self._method.dispatch(place, *args, **kwargs)
            try:
                return await response
            except asyncio.CancelledError:
                response.cancel()
                raise


def _carry_trace(place: Any) -> None:
    """Go on with the trace in the replica; ``dispatch`` does not do this yet, where ``remote`` does."""
    carrier: dict[str, str] = {}
    inject(carrier)
    if carrier:
        place._request_metadata.tracing_context = carrier
