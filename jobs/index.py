"""Embed the corpus with Ray Data into a vector index: ``python jobs/index.py jobs/quickstart.yaml --set seed=7``.

Stages that it reads and that are not done yet run first. The result goes to standard output as JSON.
"""

from ranker.cli.stages import main

if __name__ == "__main__":
    main("index", __doc__)
