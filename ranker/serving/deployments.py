"""The three deployments. How they scale stands in serve_configs/, not here.

Gateway (HTTP, keys, dialects) -> Retriever (query encoder and vector index) -> Reranker (scoring engine).
"""

import dataclasses
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from prometheus_client.core import Metric
from ray import serve
from ray.serve.handle import DeploymentHandle

from ranker.config import ScoringConfig, ServeConfig
from ranker.serving.artefacts import RerankerSettings, RetrieverSettings, ServeArgs, refuse_pickles
from ranker.serving.autoscaling import ARRIVING_TOKENS, PENDING_TOKENS, TOKENS_PER_S
from ranker.serving.batching import QueueFullError
from ranker.serving.calls import Backend, Neighbour, Scored
from ranker.serving.deployment_rules import BACKPRESSURE, GRACE_S, MAX_ONGOING, QUEUED
from ranker.serving.engine import ModelEngine
from ranker.serving.errors import EngineError, log_failure
from ranker.serving.handles import PlainReplies
from ranker.serving.index_worker import Changed, IndexWorker
from ranker.serving.journal import check_writable, warn_of_unread
from ranker.serving.keys import KeyWatch
from ranker.serving.live_index import Document, LiveIndex
from ranker.serving.metrics import EngineMetrics, GatewayMetrics, RetrieverMetrics, families
from ranker.serving.observation import gather
from ranker.serving.priority import let_others_first
from ranker.serving.routes import Limits, Service, create_app
from ranker.serving.security import require_keys, running_host
from ranker.serving.spans import mark
from ranker.serving.swap import Swapper, change_of


class RerankerReplica:
    """Scores documents. Each of its models has one batcher for all requests, and inference has a thread of its own.

    Ray Serve's ``user_config`` says which models.

    Args:
        scoring: fields of ScoringConfig. shares_cores: whether proxy and gateway may need the cores it computes on.
    """

    def __init__(self, scoring: dict[str, Any], shares_cores: bool = True) -> None:
        if shares_cores:
            let_others_first()
        config = ScoringConfig.model_validate(scoring)
        self._metrics = EngineMetrics()

        def load(model: str) -> ModelEngine:
            refuse_pickles(model)
            return ModelEngine(model, config, self._metrics)

        self._models: Swapper[ModelEngine] = Swapper(load, ModelEngine.close)
        self._watch()

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Serve the models that ``user_config`` names, without a pause."""
        await self._models.replace(RerankerSettings.model_validate(user_config).models)

    async def score(
        self,
        query: str,
        documents: list[str],
        within_s: float | None = None,
        model: str | None = None,
        max_tokens: int | None = None,
    ) -> Scored:
        """Logits of the documents, in order.

        Args:
            within_s: seconds that the caller waits. None: for ever.
            model: name; None: the first. max_tokens: a document's, at most.

        Raises:
            UnknownModelError: where there are several models, and none of this name.
            QueueFullError: at once, where the answer would come too late.
            EngineError: where the model fails on them; the log has the reason.
        """
        with self._models.use(model) as (name, engine):
            try:
                scored = await engine.score(query, await engine.cut(documents, max_tokens), within_s)
            except QueueFullError as error:
                # Another model has a queue of its own.
                raise QueueFullError(error.wait_s, for_all=len(self._models.everything()) == 1) from None
            except Exception as error:
                log_failure("scoring", "", error)
                raise EngineError(f"scoring failed with {type(error).__name__}") from None
        mark({
            "model": name, "num_documents": len(documents), "tokens": scored.tokens, "truncated": scored.truncated,
            "queue_s": scored.queued, "tokenise_s": scored.tokenised, "inference_s": scored.inferred,
        })  # fmt: skip
        return dataclasses.replace(scored, model=name)

    async def describe(self) -> dict[str, Any]:
        """Engine, precision, device and limits of the first model; the names of all, and what a change came to."""
        with self._models.use() as (_, engine):
            state = self._models.state()
            return {**engine.describe(), "models": [*state["in_use"]], "change": change_of(state)}

    async def check_health(self) -> None:
        """Score one pair, in turn with the requests; a replica that cannot is replaced by Ray Serve."""
        with self._models.use_all() as engines:
            for engine in engines:
                await engine.check()

    async def metrics(self) -> list[Metric]:
        """What this replica has counted, for ``/metrics``."""
        return families(self._metrics.registry, "Reranker", replica_name())

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What :mod:`ranker.serving.autoscaling` scales on; Ray Serve asks for it every few seconds."""
        engines = self._models.everything()
        return {
            PENDING_TOKENS: float(sum(engine.pending_tokens for engine in engines)),
            ARRIVING_TOKENS: sum(engine.arriving_tokens_per_s() for engine in engines),
            TOKENS_PER_S: max((engine.tokens_per_s for engine in engines), default=0.0),
        }

    def _watch(self) -> None:
        """Let the gauges count all models that there are when they are read."""
        engines = self._models.everything
        self._metrics.queue_requests.set_function(lambda: sum(engine.depth for engine in engines()))
        self._metrics.pending_tokens.set_function(lambda: sum(engine.pending_tokens for engine in engines()))


class RetrieverReplica:
    """Finds the nearest documents of a query, and takes new ones; concurrent queries are encoded together.

    Ray Serve's ``user_config`` says which index.

    Args:
        documents: folder of the log of documents. writable: whether any may come.

    Raises:
        JournalError: where documents may come and the log cannot be written.
    """

    def __init__(self, documents: str, writable: bool = True) -> None:
        self._documents, self._metrics = Path(documents), RetrieverMetrics()
        if writable:
            check_writable(self._documents)
        self._indexes: Swapper[IndexWorker] = Swapper(self._open, IndexWorker.close)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Serve the index that ``user_config`` names, without a pause."""
        settings = RetrieverSettings.model_validate(user_config)
        await self._indexes.replace({"index": settings.model_dump_json()})

    async def retrieve(self, query: str, num_candidates: int) -> list[Neighbour]:
        """The nearest documents with their texts, best first.

        Raises:
            EngineError: where the encoder or the index fails; the log has the reason.
        """
        self._metrics.retrievals.inc()
        with self._indexes.use() as (_, index):
            return await index.retrieve(query, num_candidates)

    async def change(self, put: list[Document], delete: list[str]) -> Changed:
        """Add, replace and delete documents: on disk, and found by every replica, when this returns.

        Raises:
            WriteError: where they could not be written; the log has the reason.
        """
        with self._indexes.use() as (_, index):
            return await index.change(put, delete)

    async def get(self, doc_id: str) -> Document | None:
        """The document with this id as it stands now."""
        with self._indexes.use() as (_, index):
            return await index.get(doc_id)

    async def describe(self) -> dict[str, Any]:
        """Size of the index, and what a change came to."""
        with self._indexes.use() as (_, index):
            return {**await index.describe(), "change": change_of(self._indexes.state())}

    async def check_health(self) -> None:
        """Search once; a replica that cannot is replaced by Ray Serve."""
        with self._indexes.use() as (_, index):
            await index.check()

    async def metrics(self) -> list[Metric]:
        """What this replica has counted, for ``/metrics``."""
        return families(self._metrics.registry, "Retriever", replica_name())

    def _open(self, source: str) -> IndexWorker:
        settings = RetrieverSettings.model_validate_json(source)
        warn_of_unread(self._documents, Path(settings.index))
        index = LiveIndex(Path(settings.index), Path(settings.corpus), self._documents, self._metrics)
        return IndexWorker(index)


class GatewayReplica:
    """The HTTP side.

    Args:
        reranker, retriever: handles; None for a service that does not search.
        model_name: name of the reranker in answers. serve_config: fields of ServeConfig. args: of ServeArgs.
    """

    def __init__(
        self,
        reranker: DeploymentHandle,
        retriever: DeploymentHandle | None,
        model_name: str,
        serve_config: dict[str, Any],
        args: dict[str, Any],
    ) -> None:
        given, config = ServeArgs.model_validate(args), ServeConfig.model_validate(serve_config)
        # Read here and not in the builder, so that no key travels through Ray.
        keys = KeyWatch(given.api_keys_file)
        require_keys([running_host()], keys, given.allow_open)
        self._metrics = GatewayMetrics()
        self._behind = [reranker] if retriever is None else [reranker, retriever]
        self._service = Service(
            backend=Backend(
                PlainReplies(reranker),
                None if retriever is None else PlainReplies(retriever),
                given.deadline_s,
                lambda name: self._metrics.retries.labels(name).inc(),
            ),
            model=model_name,
            limits=Limits(
                max_documents=config.max_documents,
                max_body_bytes=given.max_body_bytes,
                num_candidates=min(config.top_k, config.max_documents),
            ),
            keys=keys,
            interpolation=config.scoring.interpolation,
            writable=given.writable,
            metrics=self._metrics,
            gather=self._gather,
        )

    async def metrics(self) -> list[Metric]:
        """What this replica has counted, for ``/metrics``."""
        return families(self._metrics.registry, "Gateway", replica_name())

    async def _gather(self) -> list[list[Metric]]:
        context = serve.get_replica_context()
        others = serve.get_deployment_handle(context.deployment, context.app_name, _check_exists=False)
        return await gather([others, *self._behind])

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The app; Ray Serve calls this after the constructor."""
        return create_app(self._service)


def replica_name() -> str:
    """The unique name of the replica that this runs in."""
    return str(serve.get_replica_context().replica_id.unique_id)


# Without a config file (`serve.run(build(args))`) the three fit on two cores; a config file overrides what it names.
Reranker = serve.deployment(
    name="Reranker",
    max_ongoing_requests=MAX_ONGOING["Reranker"],
    max_queued_requests=128,
    graceful_shutdown_timeout_s=GRACE_S,
    ray_actor_options={"num_cpus": 0.8},
)(RerankerReplica)
Retriever = serve.deployment(
    name="Retriever",
    max_ongoing_requests=MAX_ONGOING["Retriever"],
    max_queued_requests=256,
    graceful_shutdown_timeout_s=GRACE_S,
    ray_actor_options={"num_cpus": 0.2},
)(RetrieverReplica)
Gateway = serve.deployment(
    name="Gateway",
    max_ongoing_requests=MAX_ONGOING["Gateway"],
    max_queued_requests=QUEUED,
    backpressure_config=BACKPRESSURE,
    graceful_shutdown_timeout_s=GRACE_S,
    ray_actor_options={"num_cpus": 0.2},
)(serve.ingress()(GatewayReplica))
