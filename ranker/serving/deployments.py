"""The three deployments. How they scale stands in serve_configs/, not here.

Gateway (HTTP, keys, dialects) -> Retriever (query encoder and vector index) -> Reranker (scoring engine).
"""

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from prometheus_client.core import Metric
from ray import serve
from ray.serve.handle import DeploymentHandle

from ranker.config import ScoringConfig, ServeConfig
from ranker.serving.artefacts import ServeArgs
from ranker.serving.autoscaling import ARRIVING_TOKENS, PENDING_TOKENS, REQUESTS, TOKENS_PER_S
from ranker.serving.batching import GreedyBatcher, QueueFullError
from ranker.serving.calls import Backend, Neighbour, Scored
from ranker.serving.deployment_rules import MAX_ONGOING
from ranker.serving.documents import read_texts
from ranker.serving.engine import ModelEngine
from ranker.serving.errors import EngineError, log_failure
from ranker.serving.metrics import EngineMetrics, GatewayMetrics, families
from ranker.serving.observation import gather
from ranker.serving.routes import Limits, Service, create_app
from ranker.serving.security import load_keys, require_keys, running_host
from ranker.serving.spans import mark


class RerankerReplica:
    """Scores documents; all requests of a replica share its batcher, and inference has a thread of its own.

    Args:
        model: folder or hub id. scoring: fields of ScoringConfig.
    """

    def __init__(self, model: str, scoring: dict[str, Any]) -> None:
        self._metrics = EngineMetrics()
        self._engine = ModelEngine(model, ScoringConfig.model_validate(scoring), self._metrics)

    async def score(self, query: str, documents: list[str], within_s: float | None = None) -> Scored:
        """Logits of the documents, in order.

        Args:
            within_s: seconds that the caller waits. None: for ever.

        Raises:
            QueueFullError: at once, where the answer would come too late.
            EngineError: where the model fails on them; the log has the reason.
        """
        try:
            scored = await self._engine.score(query, documents, within_s)
        except QueueFullError:
            raise
        except Exception as error:
            log_failure("scoring", "", error)
            raise EngineError(f"scoring failed with {type(error).__name__}") from None
        mark({
            "num_documents": len(documents), "tokens": scored.tokens, "truncated": scored.truncated,
            "queue_s": scored.queued, "tokenise_s": scored.tokenised, "inference_s": scored.inferred,
        })  # fmt: skip
        return scored

    async def describe(self) -> dict[str, Any]:
        """Engine, precision, device and limits."""
        return self._engine.describe()

    async def check_health(self) -> None:
        """Score one pair, in turn with the requests; a replica that cannot is replaced by Ray Serve."""
        await self._engine.check()

    async def metrics(self) -> list[Metric]:
        """What this replica has counted, for ``/metrics``."""
        return families(self._metrics.registry, "Reranker", replica_name())

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What :mod:`ranker.serving.autoscaling` scales on; Ray Serve asks for it every few seconds."""
        return {
            PENDING_TOKENS: float(self._engine.pending_tokens),
            ARRIVING_TOKENS: self._engine.arriving_tokens_per_s(),
            TOKENS_PER_S: self._engine.tokens_per_s,
            REQUESTS: float(self._engine.depth),
        }


class RetrieverReplica:
    """Finds the nearest documents of a query; concurrent queries are encoded together.

    Args:
        index: folder of the index. corpus: data folder that the index was built from.
    """

    def __init__(self, index: str, corpus: str) -> None:
        from ranker.retrieval.retriever import Retriever as InProcessRetriever

        self._retriever = InProcessRetriever(Path(index))
        self._texts = read_texts(Path(corpus), Path(index))
        self._batcher: GreedyBatcher[tuple[str, int], list[tuple[str, float]]] = GreedyBatcher(
            self._search, lambda item: 1, budget=32, max_items=32
        )

    async def retrieve(self, query: str, num_candidates: int) -> list[Neighbour]:
        """The nearest documents with their texts, best first.

        Raises:
            EngineError: where the encoder or the index fails; the log has the reason.
        """
        try:
            [found] = await self._batcher.submit([(query, num_candidates)])
            return [Neighbour(doc_id, score, self._texts[doc_id]) for doc_id, score in found]
        except Exception as error:
            log_failure("retrieval", "", error)
            raise EngineError(f"retrieval failed with {type(error).__name__}") from None

    async def describe(self) -> dict[str, Any]:
        """Size of the index."""
        return {"documents": len(self._texts)}

    async def check_health(self) -> None:
        """Search once; a replica that cannot is replaced by Ray Serve."""
        await self._batcher.submit([("healthy", 1)])

    def _search(self, items: list[tuple[str, int]]) -> list[list[tuple[str, float]]]:
        deepest = max(k for _, k in items)
        found = self._retriever.retrieve([query for query, _ in items], deepest)
        return [
            [(doc_id, float(score)) for doc_id, score in neighbours[:k]]
            for neighbours, (_, k) in zip(found, items, strict=True)
        ]


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
        keys = load_keys(given.api_keys_file)
        require_keys([running_host()], keys, given.allow_open)
        self._metrics = GatewayMetrics()
        self._behind = [reranker] if retriever is None else [reranker, retriever]
        self._service = Service(
            backend=Backend(
                reranker, retriever, given.deadline_s, lambda name: self._metrics.retries.labels(name).inc()
            ),
            model=model_name,
            limits=Limits(
                max_documents=config.max_documents,
                max_body_bytes=given.max_body_bytes,
                num_candidates=min(config.top_k, config.max_documents),
            ),
            keys=keys,
            interpolation=config.scoring.interpolation,
            metrics=self._metrics,
            gather=self._gather,
        )

    async def metrics(self) -> list[Metric]:
        """What this replica has counted, for ``/metrics``."""
        return families(self._metrics.registry, "Gateway", replica_name())

    async def _gather(self) -> list[list[Metric]]:
        context = serve.get_replica_context()
        others = serve.get_deployment_handle(context.deployment, context.app_name)
        return await gather([others, *self._behind])

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The app; Ray Serve calls this after the constructor."""
        return create_app(self._service)


def replica_name() -> str:
    """The unique name of the replica that this runs in."""
    return str(serve.get_replica_context().replica_id.unique_id)


# Without a config file (`serve.run(build(args))`) the three fit on two cores; a config file overrides all of this.
Reranker = serve.deployment(
    name="Reranker",
    max_ongoing_requests=MAX_ONGOING["Reranker"],
    max_queued_requests=128,
    ray_actor_options={"num_cpus": 0.8},
)(RerankerReplica)
Retriever = serve.deployment(
    name="Retriever",
    max_ongoing_requests=MAX_ONGOING["Retriever"],
    max_queued_requests=256,
    ray_actor_options={"num_cpus": 0.2},
)(RetrieverReplica)
Gateway = serve.deployment(
    name="Gateway", max_ongoing_requests=MAX_ONGOING["Gateway"], ray_actor_options={"num_cpus": 0.2}
)(serve.ingress()(GatewayReplica))
