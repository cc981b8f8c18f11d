"""Mine hard negatives from the index: ``python jobs/mine.py jobs/quickstart.yaml --set seed=7``.

Stages that it reads and that are not done yet run first. The result goes to standard output as JSON.
"""

from ranker.cli.stages import main

if __name__ == "__main__":
    main("mine", __doc__)
