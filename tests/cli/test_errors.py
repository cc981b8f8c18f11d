"""What a user can mend is one message; what is our fault keeps its traceback."""

import pytest

from ranker.cli.errors import explain
from ranker.manifest import StageError
from ranker.training.progress import TrainingError
from ranker.tuning.trials import SweepError


@pytest.mark.parametrize("error", [ValueError, StageError, TrainingError, SweepError])
def test_an_error_that_names_its_remedy_is_one_message(error, capsys) -> None:
    with pytest.raises(SystemExit) as ended, explain():
        raise error("none of 3 trials finished; lower train.learning_rate")
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: none of 3 trials finished; lower train.learning_rate\n"


def test_an_error_of_a_library_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="CUDA"), explain():
        raise RuntimeError("CUDA error: device-side assert triggered")
