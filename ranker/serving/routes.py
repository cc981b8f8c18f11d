"""The gateway's HTTP interface as a FastAPI app: validation, dialects and errors, without a model and without Ray.

What a route needs of the rest stands in a :class:`Service`, so the whole interface is tested with stub handles.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Body, FastAPI, Request
from pydantic import Discriminator, Tag

import ranker
from ranker.scoring.scorer import probabilities
from ranker.serving import errors
from ranker.serving.calls import Backend
from ranker.serving.dialects import Ranking, cohere, jina, rank, tei
from ranker.serving.door import Door
from ranker.serving.errors import ApiError, request_id_of
from ranker.serving.metrics import GatewayMetrics
from ranker.serving.observation import Gather
from ranker.serving.observation import router as observation
from ranker.serving.search import SearchRequest, SearchResponse, merge
from ranker.serving.security import KeyRing
from ranker.serving.trace import current


@dataclass(frozen=True)
class Limits:
    """What one request may ask for.

    Args:
        max_documents: documents of a request; 422 above. max_query_chars: characters of a query; 422 above.
        max_body_bytes: bytes of a body; 413 above. num_candidates: neighbours that /search reranks unless told.
    """

    max_documents: int = 1000
    max_query_chars: int = 20_000
    max_body_bytes: int = 16 * 1024 * 1024
    num_candidates: int = 50


@dataclass(frozen=True)
class Service:
    """What stands behind the routes.

    Args:
        model: name of the reranker in answers. interpolation: the retriever's weight in /search.
    """

    backend: Backend
    model: str
    limits: Limits = Limits()
    keys: KeyRing = field(default_factory=KeyRing)
    interpolation: float = 0.0
    metrics: GatewayMetrics = field(default_factory=GatewayMetrics)
    gather: Gather | None = None


router = APIRouter()


def create_app(service: Service) -> FastAPI:
    """The app: every route, one error body, and the door in front."""
    app = FastAPI(title="ranker", version=ranker.__version__, summary="Rerank documents, or search and rerank.")
    app.state.service = service
    app.include_router(router)
    errors.install(app)
    app.include_router(observation)
    app.add_middleware(
        Door,
        keys=service.keys,
        max_body_bytes=service.limits.max_body_bytes,
        metrics=service.metrics,
        overload=service.backend.overload,
    )
    return app


def _dialect(body: Any) -> str:
    """``/rerank`` is shared: a body with ``texts`` comes from a TEI client, any other is read as Jina's."""
    if isinstance(body, dict):
        return "tei" if "texts" in body else "jina"
    return "tei" if isinstance(body, tei.RerankRequest) else "jina"


def _spoken(body: tei.RerankRequest | jina.RerankRequest) -> str:
    if isinstance(body, tei.RerankRequest):
        return "tei"
    return "infinity" if body.from_infinity else "jina"


EitherRequest = Annotated[
    Annotated[tei.RerankRequest, Tag("tei")] | Annotated[jina.RerankRequest, Tag("jina")],
    Discriminator(_dialect),
    Body(),
]


@router.post("/rerank", tags=["rerank"], response_model=None)
async def rerank(body: EitherRequest, request: Request) -> list[dict[str, Any]] | dict[str, Any]:
    """Rerank as text-embeddings-inference does (``texts``) or as Infinity and Jina do (``documents``)."""
    current().dialect = _spoken(body)
    ranking = await _rank(request, body.query, body.documents)
    return tei.answer(body, ranking) if isinstance(body, tei.RerankRequest) else jina.answer(body, ranking)


@router.post("/v1/rerank", tags=["rerank"], response_model=None)
async def rerank_v1(body: jina.RerankRequest, request: Request) -> dict[str, Any]:
    """Rerank as Jina, vLLM and version 1 of Cohere do."""
    current().dialect = "jina"
    return jina.answer(body, await _rank(request, body.query, body.documents))


@router.post("/v2/rerank", tags=["rerank"], response_model=None)
async def rerank_v2(body: cohere.RerankRequest, request: Request) -> dict[str, Any]:
    """Rerank as version 2 of Cohere does."""
    current().dialect = "cohere"
    return cohere.answer(body, await _rank(request, body.query, body.documents))


@router.post("/search", tags=["search"])
async def search(body: SearchRequest, request: Request) -> SearchResponse:
    """Retrieve the nearest documents of the index and rerank them; both ranks and scores come back."""
    service = _service(request)
    current().dialect, current().model = "search", service.model
    num_candidates = body.num_candidates or max(service.limits.num_candidates, body.top_k)
    _check(service.limits, body.query, num_candidates, "num_candidates")
    begin = time.perf_counter()
    found = await service.backend.retrieve(body.query, num_candidates)
    retrieved = time.perf_counter()
    scored = await service.backend.score(body.query, [neighbour.text for neighbour in found])
    reranked = time.perf_counter()
    results = merge(found, scored.logits, service.interpolation)[: body.top_k]
    return SearchResponse(
        id=request_id_of(request.scope),
        model=service.model,
        results=results if body.return_documents else [result.without_text() for result in results],
        times={"retrieve": retrieved - begin, "rerank": reranked - retrieved},
    )


@router.get("/health", tags=["service"])
async def health() -> dict[str, str]:
    """The gateway is alive."""
    return {"status": "ok"}


@router.get("/ready", tags=["service"])
async def ready(request: Request) -> dict[str, str]:
    """Every deployment has a replica that answers; 503 until then."""
    try:
        await _service(request).backend.prove()
    except ApiError as error:
        raise ApiError(503, f"not ready: {error.detail}", error.headers) from None
    return {"status": "ready"}


@router.get("/info", tags=["service"])
async def info(request: Request) -> dict[str, Any]:
    """The model, the index and the limits; the first keys are those of text-embeddings-inference."""
    service = _service(request)
    told = await service.backend.describe()
    return {
        "model_id": service.model,
        "model_type": {"reranker": {}},
        "max_input_length": told["reranker"].get("max_length"),
        "max_batch_tokens": told["reranker"].get("batch_tokens"),
        "max_client_batch_size": service.limits.max_documents,
        "auto_truncate": True,
        "version": ranker.__version__,
        **told,
    }


@router.get("/v1/models", tags=["service"])
async def models(request: Request) -> dict[str, Any]:
    """The models by name, as OpenAI lists them."""
    entry = {"id": _service(request).model, "object": "model", "created": 0, "owned_by": "ranker"}
    return {"object": "list", "data": [entry]}


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _check(limits: Limits, query: str, num_documents: int, noun: str) -> None:
    if num_documents > limits.max_documents:
        raise ApiError(422, f"{noun}: {num_documents} is above the limit of {limits.max_documents} a request; split it")
    if len(query) > limits.max_query_chars:
        raise ApiError(422, f"query: {len(query)} characters, the limit is {limits.max_query_chars}; shorten it")


async def _rank(request: Request, query: str, documents: Sequence[str]) -> Ranking:
    service = _service(request)
    current().model = service.model
    _check(service.limits, query, len(documents), "documents")
    scored = await service.backend.score(query, list(documents))
    items = rank(scored.logits, probabilities(scored.logits).tolist(), documents)
    return Ranking(request_id_of(request.scope), service.model, items, scored.tokens)
