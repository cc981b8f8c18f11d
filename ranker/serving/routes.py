"""The gateway's HTTP interface as a FastAPI app: validation, dialects and errors, without a model and without Ray.

What a route needs of the rest stands in a :class:`Service`, so the whole interface is tested with stub handles.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Body, FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import Discriminator, Tag

import ranker
from ranker.scoring.scorer import probabilities
from ranker.serving import about, errors
from ranker.serving import documents as document_routes
from ranker.serving import search as search_routes
from ranker.serving.calls import Scored
from ranker.serving.dialects import Ranking, cohere, jina, rank, tei, voyage
from ranker.serving.dialects import score as scoring
from ranker.serving.door import Door
from ranker.serving.errors import request_id_of
from ranker.serving.observation import router as observation
from ranker.serving.service import Limits, Service, check_documents, check_query, score, service_of
from ranker.serving.trace import current

__all__ = ["Limits", "Service", "create_app"]

router = APIRouter()
# Of one request for scores of many queries.
CALLS_AT_ONCE = 8
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": errors.ErrorBody, "description": words}
    for status, words in {
        400: "The body is no text.", 401: "No valid key.", 403: "The key may not do this.",
        404: "No such model or document, or no index.", 413: "The body is too large.",
        422: "The body cannot be read, or asks for too much.", 429: "Too much at once; see Retry-After.",
        500: "A failure, named by its id in the log.", 503: "No replica can answer.", 504: "Not in time.",
    }.items()
}  # fmt: skip


def create_app(service: Service) -> FastAPI:
    """The app: every route, one error body, and the door in front."""
    app = FastAPI(
        title="ranker",
        version=ranker.__version__,
        summary="Rerank documents, or search and rerank.",
        responses=_ERRORS,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    for part in (router, search_routes.router, document_routes.router, about.router, observation):
        app.include_router(part)
    errors.install(app)
    about.describe(app)
    app.add_middleware(
        Door,
        keys=service.keys,
        max_body_bytes=service.limits.max_body_bytes,
        metrics=service.metrics,
        overload=service.backend.overload,
        rates=service.rates,
    )
    return app


def _dialect(body: Any) -> str:
    """``/rerank`` is shared: a body with ``texts`` comes from a TEI client, any other is read as Jina's."""
    if isinstance(body, dict):
        return "tei" if body.get("texts") is not None else "jina"
    return "tei" if isinstance(body, tei.TeiRequest) else "jina"


EitherRequest = Annotated[
    Annotated[tei.TeiRequest, Tag("tei")] | Annotated[jina.JinaRequest, Tag("jina")],
    Discriminator(_dialect),
    Body(),
]


def _answers(model: Any) -> dict[int | str, dict[str, Any]]:
    return {200: {"model": model, "description": "Best first."}}


@router.post(
    "/rerank", tags=["rerank"], response_class=JSONResponse, responses=_answers(list[tei.TeiRank] | jina.JinaAnswer)
)
async def rerank(body: EitherRequest, request: Request) -> JSONResponse:
    """Rerank as text-embeddings-inference does (``texts``) or as Infinity and Jina do (``documents``)."""
    if isinstance(body, tei.TeiRequest):
        current().dialect = "tei"
        ranking = await _rank(request, body.query, body.texts, body.model)
        return JSONResponse(tei.answer(body, ranking))
    return await rerank_v1(body, request)


@router.post("/v1/rerank", tags=["rerank"], response_class=JSONResponse, responses=_answers(jina.JinaAnswer))
async def rerank_v1(body: jina.JinaRequest, request: Request) -> JSONResponse:
    """Rerank as Jina, vLLM and version 1 of Cohere do."""
    current().dialect = "infinity" if body.from_infinity else "jina"
    ranking = await _rank(request, body.query, body.documents, body.model, body.max_tokens_per_doc)
    return JSONResponse(jina.answer(body, ranking, plain=body.from_infinity))


@router.post("/infinity/rerank", tags=["rerank"], response_class=JSONResponse, responses=_answers(jina.JinaAnswer))
async def rerank_infinity(body: jina.JinaRequest, request: Request) -> JSONResponse:
    """Rerank as Infinity does, for clients of it that cannot be told from others by their body, such as LiteLLM."""
    current().dialect = "infinity"
    ranking = await _rank(request, body.query, body.documents, body.model, body.max_tokens_per_doc)
    return JSONResponse(jina.answer(body, ranking, plain=True))


@router.post("/v2/rerank", tags=["rerank"], response_class=JSONResponse, responses=_answers(cohere.CohereAnswer))
async def rerank_v2(body: cohere.CohereRequest, request: Request) -> JSONResponse:
    """Rerank as version 2 of Cohere does."""
    current().dialect = "cohere"
    ranking = await _rank(request, body.query, body.documents, body.model, body.max_tokens_per_doc)
    return JSONResponse(cohere.answer(body, ranking))


@router.post("/voyage/v1/rerank", tags=["rerank"], response_class=JSONResponse, responses=_answers(voyage.VoyageAnswer))
async def rerank_voyage(body: voyage.VoyageRequest, request: Request) -> JSONResponse:
    """Rerank as Voyage does; its client's base address is this service's with ``/voyage/v1``."""
    current().dialect = "voyage"
    return JSONResponse(voyage.answer(body, await _rank(request, body.query, body.documents, body.model)))


@router.post("/score", tags=["rerank"], response_class=JSONResponse, responses=_answers(scoring.ScoreAnswer))
@router.post(
    "/v1/score",
    tags=["rerank"],
    response_class=JSONResponse,
    responses=_answers(scoring.ScoreAnswer),
    include_in_schema=False,
)
async def score_pairs(body: scoring.ScoreRequest, request: Request) -> JSONResponse:
    """Scores of pairs in the order sent, as vLLM gives them: one text against many, or as many against as many."""
    current().dialect, current().model = "vllm", service_of(request).model
    for query in body.text_1:
        check_query(request, query)
    check_documents(request, len(body.text_2), "text_2")
    backend = service_of(request).backend
    groups = body.by_query()
    texts = [[body.text_2[place] for place in places] for places in groups.values()]
    answers = await _several(
        [partial(backend.score, query, some, body.model) for query, some in zip(groups, texts, strict=True)]
    )
    scores = [0.0] * len(body.text_2)
    for places, scored in zip(groups.values(), answers, strict=True):
        for place, value in zip(places, probabilities(scored.logits).tolist(), strict=True):
            scores[place] = value
    model = next((scored.model for scored in answers if scored.model), service_of(request).model)
    tokens = sum(scored.tokens for scored in answers)
    return JSONResponse(scoring.answer(request_id_of(request.scope), int(time.time()), model, scores, tokens))


async def _several(calls: Sequence[Callable[[], Awaitable[Scored]]]) -> list[Scored]:
    """The answers of all calls, a few at a time: one request must not fill the queue; or the first error."""
    free = asyncio.Semaphore(CALLS_AT_ONCE)

    async def one(call: Callable[[], Awaitable[Scored]]) -> Scored:
        async with free:
            return await call()

    tasks = [asyncio.create_task(one(call)) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def _rank(
    request: Request, query: str, documents: list[str], model: str | None, max_tokens: int | None = None
) -> Ranking:
    scored = await score(request, query, documents, model, max_tokens)
    items = rank(scored.logits, probabilities(scored.logits).tolist(), documents)
    name = scored.model or service_of(request).model
    return Ranking(request_id_of(request.scope), name, items, scored.tokens, int(time.time()))
