import pytest

from ranker.config import TrainConfig
from ranker.tuning.plan import Plan, ResourceError, plan_trials


@pytest.mark.parametrize(
    ("workers", "nodes", "wanted", "expected"),
    [
        (1, [2], None, Plan(1, 1.0)),  # two trials would need two cores and their drivers
        (1, [4], None, Plan(3, 1.0)),
        (2, [4.5], None, Plan(2, 1.0)),
        (2, [4, 4], None, Plan(3, 1.0)),
        (1, [64], None, Plan(8, 1.0)),  # no more than there are trials
        (1, [64], 2, Plan(2, 1.0)),
        (2, [2], None, Plan(1, 0.99)),  # each worker gives up a hundredth for the driver
        ((1, 2), [2], None, Plan(1, 0.99)),  # elastic workers: as many as there may be
    ],
)
def test_as_many_trials_as_fit_whole(workers, nodes, wanted, expected) -> None:
    found = plan_trials(TrainConfig(num_workers=workers), [{"CPU": float(n)} for n in nodes], 8, wanted)
    assert found == expected


def test_drivers_of_a_population_are_all_there_at_once() -> None:
    train = TrainConfig(num_workers=2)
    assert plan_trials(train, [{"CPU": 2.0}], 8, drivers=8) == Plan(1, 0.99)
    assert plan_trials(train, [{"CPU": 2.0}], 50, drivers=50) == Plan(1, 0.97)  # 2 x 0.97 + 50 x 0.001 = 1.99
    assert plan_trials(train, [{"CPU": 4.0}], 8, drivers=8) == Plan(1, 1.0)


def test_gpus_count_too() -> None:
    train = TrainConfig(num_workers=2, gpus_per_worker=0.5)
    assert plan_trials(train, [{"CPU": 16.0, "GPU": 2.0}], 8).concurrent == 2


def test_what_can_never_fit_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(ResourceError, match=r"2 workers x 4 CPU \+ 0.001 for its driver = 8.001 CPU.*2 CPU, 0 GPU"):
        plan_trials(TrainConfig(cpus_per_worker=4), [{"CPU": 2.0}], 8)
    # Eight cores in all, but none of the nodes holds a worker of four and the driver's share.
    with pytest.raises(ResourceError, match="each worker on one node"):
        plan_trials(TrainConfig(num_workers=1, cpus_per_worker=4), [{"CPU": 2.0}] * 4, 8)
    with pytest.raises(ResourceError, match="2 x 1 = 2 GPU"):
        plan_trials(TrainConfig(gpus_per_worker=1), [{"CPU": 8.0, "GPU": 1.0}], 8)
