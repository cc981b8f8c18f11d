"""Prometheus metrics of the service: what each replica counts, and how the gateway shows those of all.

Every process has a registry of its own. ``/metrics`` asks every replica of every deployment, and tells the series
apart by the labels ``deployment`` and ``replica``, so one scrape of any gateway is complete.
"""

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from ranker.serving.batching import BatchRecord

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0)
PAIRS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
DOCUMENTS = (1, 5, 10, 20, 50, 100, 200, 500, 1000)
TOKENS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


class GatewayMetrics:
    """What the HTTP side counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "ranker_requests",
            "HTTP requests answered. Empty labels: not known, as when the body could not be read.",
            ("route", "dialect", "code", "model"),
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "ranker_request_seconds",
            "Seconds from a request's arrival at the gateway to the start of its answer.",
            ("route",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.documents = Histogram(
            "ranker_request_documents", "Documents of an answered request.", buckets=DOCUMENTS, registry=self.registry
        )
        self.in_flight = Gauge("ranker_requests_in_flight", "Requests being answered.", registry=self.registry)
        self.retries = Counter(
            "ranker_retries", "Calls repeated because a replica went away.", ("deployment",), registry=self.registry
        )
        self.shed = Counter(
            "ranker_shed_requests", "Requests refused before their body was read.", registry=self.registry
        )


class RetrieverMetrics:
    """What a replica of the retriever counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.retrievals = Counter("ranker_retrievals", "Queries to look up.", registry=self.registry)
        self.encode_seconds = Histogram(
            "ranker_encode_seconds", "Seconds of encoding the queries of a batch.", buckets=SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.search_seconds = Histogram(
            "ranker_search_seconds", "Seconds of searching the index, and the added documents, for a batch.",
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip


class EngineMetrics:
    """What a replica of the reranker counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.queue_seconds = self._seconds("queue", "Seconds that a request waited for the engine.")
        self.tokenise_seconds = self._seconds("tokenise", "Seconds that a request was tokenised and waited for it.")
        self.inference_seconds = self._seconds("inference", "Seconds of the batches in which a request took part.")
        self.batch_seconds = self._seconds("batch", "Seconds of a batch.")
        self.batch_pairs = Histogram("ranker_batch_pairs", "Pairs of a batch.", buckets=PAIRS, registry=self.registry)
        self.batch_tokens = Histogram(
            "ranker_batch_tokens", "Tokens of a batch, padding not counted.", buckets=TOKENS, registry=self.registry
        )
        self.pairs = Counter("ranker_pairs", "Pairs scored.", registry=self.registry)
        self.tokens = Counter("ranker_tokens", "Tokens read, padding not counted.", registry=self.registry)
        self.padded_tokens = Counter("ranker_padded_tokens", "Tokens read, padding counted.", registry=self.registry)
        self.truncated = Counter(
            "ranker_truncated_pairs", "Pairs cut to the length of the model.", registry=self.registry
        )
        self.queue_requests = Gauge("ranker_queue_requests", "Requests queued or running.", registry=self.registry)
        self.pending_tokens = Gauge("ranker_pending_tokens", "Tokens queued or running.", registry=self.registry)
        self.refused = Counter("ranker_refused_requests", "Requests that the queue refused.", registry=self.registry)
        self.failed = Counter("ranker_failed_requests", "Requests that the engine failed on.", registry=self.registry)

    def note_batch(self, record: BatchRecord) -> None:
        """One batch ran."""
        self.batch_seconds.observe(record.seconds)
        self.batch_pairs.observe(record.items)
        self.batch_tokens.observe(record.tokens)
        self.pairs.inc(record.items)
        self.tokens.inc(record.tokens)
        self.padded_tokens.inc(record.padded)

    def _seconds(self, part: str, documentation: str) -> Histogram:
        return Histogram(f"ranker_{part}_seconds", documentation, buckets=SECONDS, registry=self.registry)


class _Gathered(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def families(registry: CollectorRegistry, deployment: str, replica: str) -> list[Metric]:
    """The registry's families, each sample labelled with where it comes from."""
    found = []
    for family in registry.collect():
        labelled = Metric(family.name, family.documentation, family.type)
        for sample in family.samples:
            if sample.name.endswith("_created"):
                continue  # doubles the number of series and says nothing that a dashboard asks
            labels = {**sample.labels, "deployment": deployment, "replica": replica}
            labelled.add_sample(sample.name, labels, sample.value)
        found.append(labelled)
    return found


def exposition(parts: Sequence[Sequence[Metric]]) -> bytes:
    """The families of several processes in Prometheus' text format, each family once."""
    merged: dict[str, Metric] = {}
    for part in parts:
        for family in part:
            into = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            into.samples.extend(family.samples)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Gathered(list(merged.values())))
    return generate_latest(registry)
