import numpy as np
import pytest
from scipy import stats

from ranker.evaluation.significance import adjust, corrected, holm, paired_test


def test_four_queries_by_hand() -> None:
    # All four rise: of 16 sign patterns two are as extreme (all up, all down), so p = 2/16 exactly.
    test = paired_test(np.array([0.0, 0.1, 0.2, 0.3]), np.array([0.5, 0.4, 0.6, 0.5]))
    assert test.p_randomisation == pytest.approx(2 / 16)
    assert test.difference == pytest.approx(0.35)
    assert (test.wins, test.ties, test.losses) == (4, 0, 0)
    assert test.low < 0.35 < test.high
    assert not test.significant()


def test_the_t_test_is_scipys() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.random(30), rng.random(30)
    assert paired_test(before, after).p_ttest == pytest.approx(stats.ttest_rel(after, before).pvalue)


def test_a_clear_gain_is_found_and_noise_is_not() -> None:
    rng = np.random.default_rng(1)
    before = rng.random(200)
    gain, noise = before + 0.1 + rng.normal(0, 0.2, 200), before + rng.normal(0, 0.2, 200)
    assert paired_test(before, gain).significant()
    assert paired_test(before, gain).low > 0
    assert paired_test(before, noise).p_randomisation > 0.05


def test_both_directions_give_the_same_p() -> None:
    rng = np.random.default_rng(2)
    one, two = rng.random(12), rng.random(12)
    there, back = paired_test(one, two), paired_test(two, one)
    assert there.p_randomisation == pytest.approx(back.p_randomisation)
    assert there.difference == -back.difference
    assert (there.wins, there.losses) == (back.losses, back.wins)


def test_the_same_seed_gives_the_same_numbers() -> None:
    rng = np.random.default_rng(3)
    before, after = rng.random(60), rng.random(60)
    assert paired_test(before, after, 500, seed=1) == paired_test(before, after, 500, seed=1)
    assert paired_test(before, after, 500, seed=1) != paired_test(before, after, 500, seed=2)


def test_no_change_is_no_evidence_and_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    same = paired_test(np.array([0.5, 0.7]), np.array([0.5, 0.7 + 1e-15]))
    assert (same.p_randomisation, same.p_ttest, same.ties, same.difference) == (1.0, 1.0, 2, 0.0)
    single = paired_test(np.array([0.0]), np.array([1.0]))
    assert (single.p_randomisation, single.p_ttest) == (1.0, 1.0)
    assert not recwarn.list


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(3,\)"):
        paired_test(np.zeros(2), np.zeros(3))


def test_holm_by_hand() -> None:
    # Sorted: 0.01 x 3, 0.03 x 2, 0.04 x 1; the last may not fall below the one before it.
    assert holm({"b": 0.04, "a": 0.01, "c": 0.03}) == pytest.approx({"b": 0.06, "a": 0.03, "c": 0.06})
    assert holm({"only": 0.7}) == {"only": 0.7}
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}


def test_corrections_by_hand() -> None:
    raw = {"a": 0.01, "b": 0.04, "c": 0.6}
    assert adjust(raw, "bonferroni") == pytest.approx({"a": 0.03, "b": 0.12, "c": 1.0})
    assert adjust(raw, "none") == raw
    with pytest.raises(ValueError, match="'fdr' is not one of holm, bonferroni, none"):
        adjust(raw, "fdr")


def test_the_t_test_is_corrected_too() -> None:
    rng = np.random.default_rng(5)
    base = rng.random(20)
    tests = corrected({name: paired_test(base, base + rng.normal(0.1, 0.2, 20), 200) for name in "xy"}, "bonferroni")
    for test in tests.values():
        assert test.p_ttest_corrected == pytest.approx(min(1.0, 2 * test.p_ttest))


def test_the_interval_is_scipys_percentile_bootstrap_and_holds_the_mean() -> None:
    rng = np.random.default_rng(6)
    before, after = rng.random(300), rng.random(300) + 0.05
    test = paired_test(before, after, 2000, seed=1)
    spread = 1.96 * (after - before).std(ddof=1) / np.sqrt(300)  # the normal interval, which 300 queries come close to
    assert test.low == pytest.approx(test.difference - spread, abs=0.01)
    assert test.high == pytest.approx(test.difference + spread, abs=0.01)


def test_correction_never_helps() -> None:
    rng = np.random.default_rng(4)
    base = rng.random(25)
    tests = {name: paired_test(base, base + rng.normal(0.1, 0.2, 25), 500) for name in "xyz"}
    for name, test in corrected(tests).items():
        assert test.p_corrected >= tests[name].p_randomisation
        assert test.p_randomisation == tests[name].p_randomisation
