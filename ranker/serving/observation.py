"""``GET /metrics``: what all replicas of the service have counted, in Prometheus' text format."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.core import Metric
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from ranker.serving.calls import GONE
from ranker.serving.metrics import exposition, families

# The families of every process but this one.
Gather = Callable[[], Awaitable[Sequence[Sequence[Metric]]]]
# Prometheus itself gives up after 10 s.
TIMEOUT_S = 4.0

router = APIRouter()


@router.get("/metrics", tags=["service"], response_class=Response)
async def metrics(request: Request) -> Response:
    """Counters, gauges and histograms of every replica, for Prometheus."""
    service = request.app.state.service
    if service.gather is None:
        parts: Sequence[Sequence[Metric]] = [families(service.metrics.registry, "Gateway", "local")]
    else:
        parts = await service.gather()
    return Response(exposition(parts), media_type=CONTENT_TYPE_LATEST)


async def gather(handles: Sequence[DeploymentHandle]) -> list[list[Metric]]:
    """What each replica of each deployment counts; a deployment that does not answer in time is left out."""
    answers = await asyncio.gather(*(_of(handle) for handle in handles))
    return [part for parts in answers for part in parts]


async def _of(handle: DeploymentHandle) -> list[list[Metric]]:
    try:
        found = await handle.broadcast("metrics").results_async(timeout_s=TIMEOUT_S, return_exceptions=True)
    except (TimeoutError, DeploymentUnavailableError, *GONE):
        return []  # while replicas die, the others' series are worth more than an error
    return [part for part in found if not isinstance(part, BaseException)]
