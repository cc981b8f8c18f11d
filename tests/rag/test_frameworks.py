"""The adapters inside small real pipelines of LangChain, LlamaIndex and Haystack, sync and async."""

import asyncio
from typing import Any

import pytest

from ranker.rag import RAGPipeline
from ranker.rag.filters import FilterError
from ranker.rag.reranker import Reranker

QUERY = "how long does a cat sleep"


@pytest.fixture(scope="module")
def reranker(tiny_reranker: str) -> Reranker:
    return Reranker(tiny_reranker, device="cpu")


def order(pipeline: RAGPipeline, **options: Any) -> list[str]:
    return [one.id for one in pipeline.retrieve_and_rerank(QUERY, **options)]


def test_langchain_retriever_in_a_chain(pet_pipeline) -> None:
    pytest.importorskip("langchain_core")
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_core.runnables import RunnableLambda, RunnablePassthrough

    from ranker.rag.langchain import RankerRetriever

    retriever = RankerRetriever(pipeline=pet_pipeline, top_k=2)
    found = retriever.invoke(QUERY)
    assert [one.id for one in found] == order(pet_pipeline, top_k=2)
    first = pet_pipeline.retrieve_and_rerank(QUERY)[0]
    assert found[0].metadata["relevance_score"] == pytest.approx(first.score)
    assert found[0].metadata["retrieval_rank"] == first.retrieval_rank and found[0].page_content == first.text
    assert [one.id for one in asyncio.run(retriever.ainvoke(QUERY))] == [one.id for one in found]
    assert [one.id for one in retriever.invoke(QUERY, where={"kind": "fish"})] == ["fish"]
    joined = retriever | (lambda documents: "\n".join(one.page_content for one in documents))
    prompt = ChatPromptTemplate.from_template("{context}\n\n{question}")
    echo = RunnableLambda(lambda value: value.to_messages()[0].content)
    chain = {"context": joined, "question": RunnablePassthrough()} | prompt | echo | StrOutputParser()
    assert chain.invoke(QUERY) == "\n".join(one.page_content for one in found) + f"\n\n{QUERY}"
    answers = asyncio.run(chain.abatch([QUERY, "water"]))
    assert answers[0] == chain.invoke(QUERY) and answers[1].endswith("water")


def test_langchain_compressor_behind_a_vector_store(reranker, pet_documents) -> None:
    pytest.importorskip("langchain_core")
    retrievers = pytest.importorskip("langchain_classic.retrievers")
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever

    from ranker.rag.langchain import RankerCompressor

    class All(BaseRetriever):
        def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
            return [Document(page_content=one["text"], metadata={"id": one["id"]}) for one in pet_documents]

    compressor = RankerCompressor(reranker=reranker, top_n=3)
    both = retrievers.ContextualCompressionRetriever(base_compressor=compressor, base_retriever=All())
    expected = reranker.rank(QUERY, [one["text"] for one in pet_documents], 3)
    for found in (both.invoke(QUERY), asyncio.run(both.ainvoke(QUERY))):
        assert [one.metadata["id"] for one in found] == [pet_documents[place]["id"] for place, _ in expected]
        assert [one.metadata["relevance_score"] for one in found] == pytest.approx([score for _, score in expected])
    strict = RankerCompressor(reranker=reranker, score_threshold=1.0)
    assert strict.compress_documents(All().invoke(QUERY), QUERY) == []


def test_llama_index_retriever_and_postprocessor_in_a_query_engine(pet_pipeline, reranker) -> None:
    pytest.importorskip("llama_index.core")
    from llama_index.core.base.response.schema import Response
    from llama_index.core.llms import MockLLM
    from llama_index.core.query_engine import RetrieverQueryEngine
    from llama_index.core.response_synthesizers import get_response_synthesizer

    from ranker.rag.llama_index import RankerPostprocessor, RankerRetriever

    retriever = RankerRetriever(pet_pipeline, top_k=3)
    nodes = retriever.retrieve(QUERY)
    assert [node.metadata["doc_id"] for node in nodes] == order(pet_pipeline)
    assert [node.score for node in nodes] == pytest.approx([r.score for r in pet_pipeline.retrieve_and_rerank(QUERY)])
    assert [n.node_id for n in asyncio.run(retriever.aretrieve(QUERY))] == [node.node_id for node in nodes]
    last = RankerPostprocessor(reranker=reranker, top_n=2)
    texts = [node.node.get_content() for node in nodes]
    expected = [nodes[place].node_id for place, _ in reranker.rank(QUERY, texts, 2)]
    assert [node.node_id for node in last.postprocess_nodes(nodes, query_str=QUERY)] == expected
    engine = RetrieverQueryEngine(
        retriever, get_response_synthesizer(llm=MockLLM(), response_mode="compact"), node_postprocessors=[last]
    )
    answer = engine.query(QUERY)
    assert isinstance(answer, Response) and [node.node_id for node in answer.source_nodes] == expected
    assert answer.source_nodes[0].node.get_content() in str(answer)  # the mock repeats what it is asked
    assert [node.node_id for node in asyncio.run(engine.aquery(QUERY)).source_nodes] == expected
    with pytest.raises(ValueError, match="needs the query"):
        last.postprocess_nodes(nodes)


def test_haystack_components_in_a_pipeline(pet_pipeline, reranker, tiny_reranker, tmp_path) -> None:
    pytest.importorskip("haystack")
    from haystack import Pipeline

    from ranker.rag.haystack import RankerReranker, RankerRetriever

    folder = str(pet_pipeline.save(tmp_path / "saved"))
    whole = Pipeline()
    whole.add_component("retriever", RankerRetriever(folder, top_k=3, settings={"device": "cpu"}))
    whole.add_component("reranker", RankerReranker(tiny_reranker, top_k=2, device="cpu"))
    whole.connect("retriever.documents", "reranker.documents")
    asked = {"retriever": {"query": QUERY}, "reranker": {"query": QUERY}}
    found = whole.run(asked)["reranker"]["documents"]
    texts = [one.text for one in pet_pipeline.retrieve_and_rerank(QUERY)]
    expected = [texts[place] for place, _ in reranker.rank(QUERY, texts, 2)]
    assert [one.content for one in found] == expected and found[0].score >= found[1].score
    # As a file that others run; Haystack asks which modules may be loaded from it.
    again = Pipeline.loads(whole.dumps(), allowed_modules=["ranker.rag.haystack"])
    later = asyncio.run(again.run_async(asked))
    assert [one.content for one in later["reranker"]["documents"]] == expected
    conditions = [
        {"field": "meta.legs", "operator": ">=", "value": 4}, {"field": "meta.kind", "operator": "!=", "value": "fish"},
    ]  # fmt: skip
    filters = {"operator": "AND", "conditions": conditions}
    only = RankerRetriever(pet_pipeline)
    assert {one.meta["doc_id"] for one in only.run(QUERY, filters=filters)["documents"]} == {"cat", "dog"}
    refused = {"operator": "NOT", "conditions": [filters]}
    assert {one.meta["doc_id"] for one in asyncio.run(only.run_async(QUERY, filters=refused))["documents"]} == {
        "fish", "bird",
    }  # fmt: skip
    with pytest.raises(FilterError, match="give field, operator"):
        only.run(QUERY, filters={"field": "meta.x", "operator": "~", "value": 1})
    with pytest.raises(ValueError, match="cannot be serialised"):
        only.to_dict()
