"""Search hyper-parameters with Ray Tune: ``python jobs/tune.py jobs/quickstart.yaml --space tune_spaces/lora.yaml``.

Stages that it reads and that are not done yet run first. The result goes to standard output as JSON.
"""

from ranker.cli.stages import main

if __name__ == "__main__":
    main("tune", __doc__)
