"""The clients that people use already, unchanged, against a running service: the packages of the extra ``clients``.

``pip install -e ".[clients]"``, then ``pytest -m clients``; a client that is not installed is skipped.
"""

from collections.abc import Callable, Sequence

import pytest

pytestmark = pytest.mark.clients

QUERY = "which animal guards a house"
DOCUMENTS = ["A dog barks at strangers.", "A cat purrs.", "A goldfish lives in cold fresh water and eats flakes."]
KEY = "not-a-secret"

# Client -> (index, score) of each result, best first, asked for the best two where it can ask.
CLIENTS: dict[str, Callable[[str], list[tuple[int, float]]]] = {}


def client(function: Callable[[str], list[tuple[int, float]]]) -> Callable[[str], list[tuple[int, float]]]:
    CLIENTS[function.__name__] = function
    return function


def by_text(texts: Sequence[str], scores: Sequence[float]) -> list[tuple[int, float]]:
    return [(DOCUMENTS.index(text), score) for text, score in zip(texts, scores, strict=True)]


@client
def cohere_v1(url: str) -> list[tuple[int, float]]:
    cohere = pytest.importorskip("cohere")
    asked = cohere.Client(KEY, base_url=url).rerank(
        model="rerank-v3.5", query=QUERY, documents=DOCUMENTS, top_n=2, return_documents=True
    )
    assert [result.document.text for result in asked.results] == [DOCUMENTS[result.index] for result in asked.results]
    return [(result.index, result.relevance_score) for result in asked.results]


@client
def cohere_v2(url: str) -> list[tuple[int, float]]:
    cohere = pytest.importorskip("cohere")
    asked = cohere.ClientV2(KEY, base_url=url).rerank(model="rerank-v3.5", query=QUERY, documents=DOCUMENTS, top_n=2)
    return [(result.index, result.relevance_score) for result in asked.results]


@client
def langchain_cohere(url: str) -> list[tuple[int, float]]:
    found = pytest.importorskip("langchain_cohere")
    asked = found.CohereRerank(cohere_api_key=KEY, base_url=url, model="rerank-v3.5", top_n=2)
    return [(result["index"], result["relevance_score"]) for result in asked.rerank(DOCUMENTS, QUERY)]


def llama_index(postprocessor) -> list[tuple[int, float]]:
    from llama_index.core.schema import NodeWithScore, TextNode

    nodes = [NodeWithScore(node=TextNode(text=text), score=0.1) for text in DOCUMENTS]
    found = postprocessor.postprocess_nodes(nodes, query_str=QUERY)
    return by_text([node.node.get_content() for node in found], [node.score for node in found])


@client
def llama_index_cohere(url: str) -> list[tuple[int, float]]:
    found = pytest.importorskip("llama_index.postprocessor.cohere_rerank")
    return llama_index(found.CohereRerank(api_key=KEY, base_url=url, model="rerank-v3.5", top_n=2))


@client
def llama_index_tei(url: str) -> list[tuple[int, float]]:
    found = pytest.importorskip("llama_index.postprocessor.tei_rerank")
    return llama_index(found.TextEmbeddingInference(base_url=url, top_n=2, auth_token=KEY))


@client
def llama_index_jina(url: str) -> list[tuple[int, float]]:
    found = pytest.importorskip("llama_index.postprocessor.jinaai_rerank")
    return llama_index(found.JinaRerank(api_key=KEY, base_url=f"{url}/v1", top_n=2))


def haystack(ranker) -> list[tuple[int, float]]:
    from haystack import Document

    if hasattr(ranker, "warm_up"):
        ranker.warm_up()
    found = ranker.run(query=QUERY, documents=[Document(content=text) for text in DOCUMENTS])["documents"]
    return by_text([document.content for document in found], [document.score for document in found])


@client
def haystack_cohere(url: str) -> list[tuple[int, float]]:
    found = pytest.importorskip("haystack_integrations.components.rankers.cohere")
    from haystack.utils import Secret

    return haystack(found.CohereRanker(api_key=Secret.from_token(KEY), api_base_url=url, top_k=2))


@client
def haystack_jina(url: str) -> list[tuple[int, float]]:
    found = pytest.importorskip("haystack_integrations.components.rankers.jina")
    from haystack.utils import Secret

    return haystack(found.JinaRanker(api_key=Secret.from_token(KEY), base_url=f"{url}/v1/rerank", top_k=2))


@client
def haystack_tei(url: str) -> list[tuple[int, float]]:
    found = pytest.importorskip("haystack_integrations.components.rankers.huggingface_api")
    from haystack.utils import Secret

    return haystack(found.HuggingFaceTEIRanker(url=url, top_k=2, token=Secret.from_token(KEY)))


@client
def voyageai(url: str) -> list[tuple[int, float]]:
    found = pytest.importorskip("voyageai")
    asked = found.Client(api_key=KEY, base_url=f"{url}/voyage/v1").rerank(QUERY, DOCUMENTS, model="rerank-2", top_k=2)
    assert asked.total_tokens > 0
    return [(result.index, result.relevance_score) for result in asked.results]


@client
def infinity(url: str) -> list[tuple[int, float]]:
    found = pytest.importorskip("infinity_client")
    from infinity_client.api.default import rerank
    from infinity_client.models import RerankInput

    body = RerankInput(query=QUERY, documents=DOCUMENTS, return_documents=True)
    with found.AuthenticatedClient(base_url=url, token=KEY) as asking:
        asked = rerank.sync(client=asking, body=body)
    assert [result.document for result in asked.results] == [DOCUMENTS[result.index] for result in asked.results]
    assert asked.usage.total_tokens > 0
    return [(result.index, result.relevance_score) for result in asked.results]


def rerankers(provider: str, url: str) -> list[tuple[int, float]]:
    found = pytest.importorskip("rerankers")
    ranker = found.Reranker("any", model_type="APIRanker", api_provider=provider, api_key=KEY, url=url)
    asked = ranker.rank(query=QUERY, docs=DOCUMENTS)
    return [(result.document.doc_id, result.score) for result in asked.results]


@client
def rerankers_cohere(url: str) -> list[tuple[int, float]]:
    return rerankers("cohere", f"{url}/v1/rerank")


@client
def rerankers_jina(url: str) -> list[tuple[int, float]]:
    return rerankers("jina", f"{url}/v1/rerank")


@client
def rerankers_voyage(url: str) -> list[tuple[int, float]]:
    return rerankers("voyage", f"{url}/voyage/v1/rerank")


@client
def rerankers_tei(url: str) -> list[tuple[int, float]]:
    return rerankers("text-embeddings-inference", f"{url}/rerank")


def litellm(model: str, base: str) -> list[tuple[int, float]]:
    found = pytest.importorskip("litellm")
    asked = found.rerank(model=model, query=QUERY, documents=DOCUMENTS, top_n=2, api_base=base, api_key=KEY)
    return [(result["index"], result["relevance_score"]) for result in asked.results]


@client
def litellm_cohere(url: str) -> list[tuple[int, float]]:
    return litellm("cohere/rerank-v3.5", url)


@client
def litellm_jina(url: str) -> list[tuple[int, float]]:
    return litellm("jina_ai/any", url)


@client
def litellm_infinity(url: str) -> list[tuple[int, float]]:
    return litellm("infinity/any", f"{url}/infinity")


@client
def litellm_vllm(url: str) -> list[tuple[int, float]]:
    return litellm("hosted_vllm/any", url)


@client
def litellm_tei(url: str) -> list[tuple[int, float]]:
    return litellm("huggingface/any", url)


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_gets_the_scores_of_the_engine_best_first(name: str, open_service: str, expected: list[float]):
    best_first = sorted(range(len(DOCUMENTS)), key=lambda place: -expected[place])
    found = CLIENTS[name](open_service)
    places = best_first[: len(found)]
    assert len(found) >= 2
    assert [place for place, _ in found] == places
    assert [score for _, score in found] == pytest.approx([expected[place] for place in places], abs=1e-4)


@pytest.mark.parametrize("name", ["cohere_v2", "llama_index_jina", "voyageai", "haystack_tei"])
def test_a_client_with_a_wrong_key_says_why(name: str, locked_service: str):
    with pytest.raises(Exception, match=r"no valid API key|401|Unauthorized"):
        CLIENTS[name](locked_service)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"top_n": 0}, "top_n: Input should be greater"), ({"documents": ["d"] * 1001}, "1001 is above the limit")],
)
def test_infinitys_client_can_read_what_is_wrong(open_service: str, wrong: dict, said: str):
    found = pytest.importorskip("infinity_client")
    from infinity_client.api.default import rerank
    from infinity_client.models import HTTPValidationError, RerankInput

    body = RerankInput(query=QUERY, **{"documents": DOCUMENTS, **wrong})
    with found.AuthenticatedClient(base_url=open_service, token=KEY) as asking:
        asked = rerank.sync(client=asking, body=body)
    assert isinstance(asked, HTTPValidationError) and asked.detail == []
    assert said in asked.additional_properties["message"]


@pytest.fixture(scope="module")
def expected(tiny_reranker: str) -> list[float]:
    from ranker.config import ScoringConfig
    from ranker.scoring.scorer import load_scorer, probabilities

    scorer = load_scorer(tiny_reranker, ScoringConfig(precision="fp32"))
    return probabilities(scorer.score([(QUERY, document) for document in DOCUMENTS])).tolist()


@pytest.fixture(scope="module")
def open_service(http_service: Callable[[str], str]) -> str:
    return http_service(KEY)


@pytest.fixture(scope="module")
def locked_service(http_service: Callable[[str], str]) -> str:
    return http_service("another-key")
