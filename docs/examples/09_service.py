"""09 Service: the reranker behind HTTP, and a pipeline that asks it. Run 02_training.py first."""

from ray import serve

from ranker.rag import RAGPipeline
from ranker.serving import ServeArgs, build

ADDRESS = "http://127.0.0.1:8000"


def main() -> None:
    """Serve, ask, stop. `serve run serve_configs/local.yaml` is the same from a file."""
    serve.start(http_options={"host": "127.0.0.1", "port": 8000})
    serve.run(build(ServeArgs(reranker="runs/examples/reranker", retrieval=False)))
    pipeline = RAGPipeline("all-MiniLM-L6-v2", reranker_model=ADDRESS, top_k_rerank=2)
    pipeline.index_documents(
        ["with open(path) closes the file.", "os.remove deletes a file.", "A list keeps an order."]
    )
    for result in pipeline.retrieve_and_rerank("close a file after an error"):
        print(result.rank, f"{result.score:.3f}", result.text)
    serve.shutdown()


if __name__ == "__main__":
    main()
