"""The door of serving: arguments of a Serve config in, a Ray Serve application out.

``serve run serve_configs/local.yaml``, or in Python ``serve.run(build(ServeArgs(...)))``. Ray reads the
annotation of ``build`` to make the typed arguments, so this module must not postpone its annotations.
"""

from ray.serve import Application

from ranker.serving.artefacts import RerankerSettings, RetrieverSettings, ServeArgs, documents_folder, find_artefacts
from ranker.serving.deployments import Gateway, Reranker, Retriever
from ranker.serving.security import load_keys, require_keys, running_host

__all__ = ["ServeArgs", "build"]


def build(args: ServeArgs) -> Application:
    """Gateway -> Retriever -> Reranker over the artefacts that ``args`` name.

    Raises:
        StageError: naming every folder that is missing and the command that makes it.
        SecurityError: where Serve listens beyond loopback and no API key is set. The gateway checks again when it
            starts, for a builder that is called before Serve runs.
    """
    require_keys([running_host()], load_keys(args.api_keys_file), args.allow_open)
    artefacts = find_artefacts(args)
    models = RerankerSettings(models=artefacts.models)
    reranker = Reranker.options(user_config=models.model_dump()).bind(artefacts.scoring.model_dump())
    retriever = None
    if artefacts.index is not None and artefacts.corpus is not None:
        index = RetrieverSettings(index=str(artefacts.index), corpus=str(artefacts.corpus))
        documents = documents_folder(args, artefacts.index)
        retriever = Retriever.options(user_config=index.model_dump()).bind(str(documents), args.writable)
    application: Application = Gateway.bind(
        reranker, retriever, artefacts.model_name, artefacts.config.model_dump(), args.model_dump()
    )
    return application
