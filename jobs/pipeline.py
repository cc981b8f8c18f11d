"""Every stage of an experiment, from the data to the exported model: ``python jobs/pipeline.py jobs/quickstart.yaml``.

What is already done is skipped. The results go to standard output as a JSON list.
"""

from ranker.cli.stages import main

if __name__ == "__main__":
    main(None, __doc__)
