"""Rerank the test queries and measure: ``python jobs/evaluate.py jobs/quickstart.yaml --set seed=7``.

Stages that it reads and that are not done yet run first. The result goes to standard output as JSON.
"""

from ranker.cli.stages import main

if __name__ == "__main__":
    main("evaluate", __doc__)
