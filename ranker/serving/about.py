"""Routes that say what the service is: probes, its models and limits, the playground, the documentation."""

from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse

import ranker
from ranker.serving.errors import ApiError, ErrorBody
from ranker.serving.service import service_of

router = APIRouter()
# Pages load nothing from elsewhere and talk to this service only; a page inside another site could steal a click.
PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


@cache
def read_page(name: str) -> str:
    """A page of this package: one file that loads nothing else."""
    return files("ranker.serving").joinpath("pages", name).read_text("utf-8")


@router.get("/", tags=["service"], response_class=HTMLResponse)
async def playground() -> HTMLResponse:
    """A page to try the service: the retriever's order and the reranked one, side by side."""
    return HTMLResponse(read_page("playground.html"), headers=PAGE_HEADERS)


@router.get("/docs", tags=["service"], response_class=HTMLResponse)
async def documentation() -> HTMLResponse:
    """Every route with its fields, read from /openapi.json."""
    return HTMLResponse(read_page("docs.html"), headers=PAGE_HEADERS)


@router.get("/health", tags=["service"])
async def health() -> dict[str, str]:
    """The gateway is alive."""
    return {"status": "ok"}


@router.get("/ready", tags=["service"])
async def ready(request: Request) -> dict[str, str]:
    """Every deployment has a replica that answers; 503 until then."""
    try:
        await service_of(request).backend.prove()
    except ApiError as error:
        raise ApiError(503, f"not ready: {error.detail}", error.headers) from None
    return {"status": "ready"}


@router.get("/info", tags=["service"])
async def info(request: Request) -> dict[str, Any]:
    """The models, the index and the limits; the first keys are those of text-embeddings-inference."""
    service = service_of(request)
    told = await service.backend.describe()
    return {
        "model_id": _names(told, service.model)[0],
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
    """The models by name, as OpenAI lists them; the first is the one that answers where none is named."""
    service = service_of(request)
    names = _names(await service.backend.describe(), service.model)
    entries = [{"id": name, "object": "model", "created": 0, "owned_by": "ranker"} for name in names]
    return {"object": "list", "data": entries}


def describe(app: FastAPI) -> None:
    """Complete the OpenAPI document: keys are bearer tokens, and every error is the one JSON body, also of a page."""
    make = app.openapi

    def complete() -> dict[str, Any]:
        document: dict[str, Any] = make()
        schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes["key"] = {"type": "http", "scheme": "bearer", "description": "Where the service has keys."}
        document["security"] = [{}, {"key": []}]
        body = {"application/json": {"schema": {"$ref": f"#/components/schemas/{ErrorBody.__name__}"}}}
        for methods in document["paths"].values():
            for about in methods.values():
                for status, response in about["responses"].items():
                    if not status.startswith("2"):
                        response["content"] = body
        return document

    app.openapi = complete  # type: ignore[method-assign]


def _names(told: dict[str, Any], first: str) -> list[str]:
    return list(told["reranker"].get("models") or [first])
