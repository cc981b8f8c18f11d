import pytest

from ranker.config import TrainConfig
from ranker.tuning.plan import Plan, ResourceError, plan_trials, taken_by_others


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


@pytest.mark.parametrize(
    ("share", "gpus", "expected"),
    [(0.4, [2], 4), (0.5, [1, 1], 4), (0.3, [1], 3), (1 / 3, [1], 3), (0.6, [4], 4), (1.0, [3], 3), (2.0, [5], 2)],
)
def test_a_worker_has_its_share_of_one_gpu(share, gpus, expected) -> None:
    train = TrainConfig(num_workers=1, gpus_per_worker=share, batch_size=8)
    nodes = [{"CPU": 64.0, "GPU": float(each)} for each in gpus]
    assert plan_trials(train, nodes, 8).concurrent == expected


@pytest.mark.parametrize(
    ("placement", "nodes", "expected"),
    [
        ("SPREAD", [3, 3], 2),  # 2 + 2 places
        ("STRICT_SPREAD", [3, 3], 2),
        ("STRICT_SPREAD", [9, 2], 1),  # each trial needs one of the second node's places
        ("STRICT_SPREAD", [3, 2, 2], 1),  # two would do on A with B and A with C; Ray may take B with C
        ("STRICT_PACK", [9, 2], 4),
        ("STRICT_PACK", [4, 4], 2),  # the third place of each node is half a trial
    ],
)
def test_strict_placements_count(placement, nodes, expected) -> None:
    train = TrainConfig(num_workers=2, placement=placement)
    assert plan_trials(train, [{"CPU": float(each)} for each in nodes], 8).concurrent == expected


@pytest.mark.parametrize(
    ("placement", "nodes", "says"),
    [("STRICT_SPREAD", [64.0], "no two on one node"), ("STRICT_PACK", [1.0] * 8, "all on one node")],
)
def test_a_placement_that_no_node_allows_is_refused(placement, nodes, says) -> None:
    with pytest.raises(ResourceError, match=says):
        plan_trials(TrainConfig(num_workers=2, placement=placement), [{"CPU": each} for each in nodes], 8)


def test_cores_that_another_program_holds_are_told() -> None:
    train, plan = TrainConfig(num_workers=2), Plan(3, 1.0)
    assert taken_by_others(train, plan, {"CPU": 8.0}, {"CPU": 8.0}) is None
    told = taken_by_others(train, plan, {"CPU": 8.0}, {"CPU": 4.0})
    assert told is not None and told.startswith("3 trials at once need 6 CPU of which 4 of 8 are free")
    assert "GPU" not in told


def test_what_can_never_fit_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(ResourceError, match=r"2 workers x 4 CPU \+ 0.001 for its driver = 8.001 CPU.*2 CPU, 0 GPU"):
        plan_trials(TrainConfig(cpus_per_worker=4), [{"CPU": 2.0}], 8)
    # Eight cores in all, but none of the nodes holds a worker of four and the driver's share.
    with pytest.raises(ResourceError, match="each worker on one node"):
        plan_trials(TrainConfig(num_workers=1, cpus_per_worker=4), [{"CPU": 2.0}] * 4, 8)
    with pytest.raises(ResourceError, match="2 x 1 = 2 GPU"):
        plan_trials(TrainConfig(gpus_per_worker=1), [{"CPU": 8.0, "GPU": 1.0}], 8)
