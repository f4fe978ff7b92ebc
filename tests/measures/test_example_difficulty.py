"""Difficulty of examples: by hand, against whole histories, and inside a training."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score
from support.noise import noise, noise64
from torch import Tensor, nn

from contam.batch import Batch, Domain
from contam.data.dominoes import CORE, EASY, HARD, dominoes
from contam.measures.example_difficulty import DifficultyLog, auc, el2n, margin, probability
from contam.models.small import small_cnn
from contam.training.supervised import fit

SCORES = ["learn time", "early loss", "EL2N", "forgotten", "AUM", "confidence", "variability"]


def labels(n: int, classes: int, seed: int = 0) -> Tensor:
    return torch.randint(classes, (n,), generator=torch.Generator().manual_seed(seed))


def logits_of(right: str) -> Tensor:
    """One example of class 0 in a history such as "+-+", right or wrong: (evaluations, 1, 2)."""
    return torch.tensor([[[1.0, 0.0]] if sign == "+" else [[0.0, 1.0]] for sign in right])


def logged(history: Tensor, y: Tensor, **options) -> DifficultyLog:
    """A log of (evaluations, n, classes) logits at the times 0, 1, 2 and so on."""
    log = DifficultyLog(len(y), history.shape[2], **options)
    for time, logits in enumerate(history):
        log.update(time, logits, y, torch.arange(len(y)))
    return log


def test_formulas_by_hand():
    logits, y = torch.tensor([[3.0, 1.0, 0.0], [0.0, 0.0, 2.0]]), torch.tensor([0, 1])
    assert margin(logits, y).tolist() == [2, -2]
    two = torch.tensor([[math.log(3.0), 0.0]])
    assert probability(two, torch.tensor([0])).tolist() == pytest.approx([0.75])
    assert el2n(two, torch.tensor([1])).tolist() == pytest.approx([0.75 * math.sqrt(2)])


@given(st.integers(0, 99), st.integers(2, 6), st.floats(-9, 9))
def test_scores_are_invariant_to_logit_shifts_and_class_order(seed, classes, constant):
    logits, y = (3 * noise(20, classes, seed=seed)).double(), labels(20, classes, seed)
    renamed = torch.randperm(classes, generator=torch.Generator().manual_seed(seed))
    for formula in (probability, margin, el2n):
        scores = formula(logits, y)
        torch.testing.assert_close(formula(logits + constant, y), scores)
        torch.testing.assert_close(formula(logits[:, renamed.argsort()], renamed[y]), scores)


def test_formulas_agree_with_plain_loops():
    logits, y = (3 * noise(50, 4)).double(), labels(50, 4)
    for row, label, p, m, e in zip(
        logits.tolist(), y.tolist(), probability(logits, y), margin(logits, y), el2n(logits, y),
        strict=True,
    ):  # fmt: skip
        total = sum(map(math.exp, row))
        shares = [math.exp(z) / total for z in row]
        assert float(p) == pytest.approx(shares[label])
        assert float(m) == pytest.approx(row[label] - max(row[:label] + row[label + 1 :]))
        off = [share - (c == label) for c, share in enumerate(shares)]
        assert float(e) == pytest.approx(math.hypot(*off))
    assert torch.equal(margin(logits, y) > 0, logits.argmax(dim=1) == y)


def test_error_vectors_reach_the_ends_of_their_range():
    sure = torch.tensor([[800.0, 0.0, 0.0]])
    assert el2n(sure, torch.tensor([0])).item() == 0
    assert el2n(sure, torch.tensor([2])).item() == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize(
    ("right", "learn_time", "forgotten", "score"),
    [
        ("++++", 0, 0, 0),
        ("-+++", 1, 0, 0),
        ("+-++", 2, 1, 1),
        ("+-+-", math.inf, 2, 2),
        ("---+", 3, 0, 0),
        ("----", math.inf, 0, math.inf),
    ],
)
def test_histories_by_hand(right, learn_time, forgotten, score):
    difficulty = logged(logits_of(right), torch.tensor([0])).compute()
    assert difficulty.learn_time.tolist() == [learn_time]
    assert difficulty.forgotten.tolist() == [forgotten]
    assert difficulty.scores()["forgotten"].tolist() == [score]
    assert difficulty.evaluations.tolist() == [4]
    assert difficulty.aum.tolist() == [sum(1 if sign == "+" else -1 for sign in right) / 4]


def test_cartography_by_hand():
    odds = torch.tensor([1.0, 3.0, 1 / 3])  # probabilities 1/2, 3/4 and 1/4
    history = torch.stack([odds.log(), torch.zeros(3)], dim=1)[:, None]
    difficulty = logged(history, torch.tensor([0])).compute()
    assert difficulty.confidence.tolist() == pytest.approx([0.5])
    assert difficulty.variability.tolist() == pytest.approx([math.sqrt(1 / 24)])
    still = logged(history[:1].expand(9, -1, -1), torch.tensor([0])).compute()
    assert still.variability.tolist() == [0]


@given(st.integers(0, 999), st.integers(1, 12), st.integers(2, 4))
def test_running_sums_agree_with_the_full_history(seed, evaluations, classes):
    history, y = (
        (3 * noise(evaluations, 15, classes, seed=seed)).double(),
        labels(15, classes, seed),
    )
    early = seed % evaluations
    difficulty = logged(history, y, early=early).compute()
    p = torch.stack([probability(logits, y) for logits in history])
    torch.testing.assert_close(difficulty.confidence, p.mean(dim=0))
    torch.testing.assert_close(difficulty.variability, p.std(dim=0, correction=0))
    torch.testing.assert_close(
        difficulty.aum, torch.stack([margin(logits, y) for logits in history]).mean(dim=0)
    )
    right = history.argmax(dim=2) == y
    assert torch.equal(difficulty.forgotten, (right[:-1] & ~right[1:]).sum(dim=0))
    assert torch.equal(difficulty.ever_right, right.any(dim=0))
    for example, time in enumerate(difficulty.learn_time.tolist()):
        ever_after = [t for t in range(evaluations) if bool(right[t:, example].all())]
        assert time == (ever_after[0] if ever_after else math.inf)
    torch.testing.assert_close(difficulty.el2n, el2n(history[early], y))
    assert torch.equal(difficulty.early_error, ~right[early])
    expected = log_loss(y, history[early].softmax(dim=1), labels=range(classes))
    assert float(difficulty.early_loss.mean()) == pytest.approx(expected)


@given(st.integers(0, 999), st.integers(1, 14))
def test_results_do_not_depend_on_minibatches_or_processes(seed, split):
    history, y = 3 * noise(5, 15, 3, seed=seed), labels(15, 3, seed)
    whole = logged(history, y, early=2)
    order = torch.randperm(15, generator=torch.Generator().manual_seed(seed))
    parts = [DifficultyLog(15, 3, early=2) for _ in range(2)]
    for time, logits in enumerate(history):
        for part, mine in zip(parts, (order[:split], order[split:]), strict=True):
            for index in mine.split(4):
                part.update(time, logits[index], y[index], index)
    merged = parts[0].merge(parts[1]).compute()
    for name, value in vars(whole.compute()).items():
        assert torch.equal(getattr(merged, name), value), name


def test_the_early_record_of_an_example_is_its_first_after_the_early_step():
    log = DifficultyLog(2, 2, early=1.5)
    y, both = torch.tensor([0, 0]), torch.arange(2)
    log.update(1, torch.tensor([[1.0, 0.0], [1.0, 0.0]]), y, both)
    log.update(2, torch.tensor([[2.0, 0.0]]), y[:1], both[:1])
    log.update(3, torch.tensor([[3.0, 0.0], [4.0, 0.0]]), y, both)
    assert log.compute().early_logits[:, 0].tolist() == [2, 4]


def test_a_result_is_unchanged_by_later_updates():
    log = logged(3 * noise(3, 8, 2), labels(8, 2))
    difficulty = log.compute()
    before = {name: value.clone() for name, value in vars(difficulty).items()}
    log.update(3, 3 * noise(8, 2, seed=5), labels(8, 2), torch.arange(8))
    assert all(torch.equal(before[name], value) for name, value in vars(difficulty).items())


def test_scores_are_larger_for_harder_examples():
    """An example that is right and ever surer, one that is learned late, and one that never is."""
    sure = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0]])
    history = torch.stack([sure, sure - torch.tensor([2.5, 0.0]), -2 * sure], dim=1)
    scores = logged(history, torch.tensor([0, 0, 0])).compute().scores()
    assert list(scores) == SCORES
    for name in SCORES[:-1]:
        first, second, third = scores[name].tolist()
        assert first <= second <= third and first < third, name
    assert scores["variability"].argmax() == 1


def test_recording_a_domain_indexes_its_examples_and_preserves_the_model():
    # Minibatches of 4 are rounded otherwise than the 11 at once; in float64 that is negligible.
    x, y = noise64(11, 4), labels(11, 3)
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3)).double().train()
    log = DifficultyLog(11, 3)
    for time in range(2):
        log.evaluate(time, model, Domain("d", Batch(x, y, torch.zeros_like(y))), batch_size=4)
    assert model.training
    with torch.no_grad():
        expected = model.eval()(x)
    torch.testing.assert_close(log.compute().early_logits, expected)
    assert log.compute().evaluations.tolist() == [2] * 11


def test_mismatched_arguments_are_rejected():
    y, index, logits = torch.tensor([0, 1]), torch.arange(2), torch.zeros(2, 2)
    log = DifficultyLog(2, 2).update(5, logits, y, index)
    for line, given_ in {
        "an evaluation at time 5 follows one at 5": (5, logits, y, index),
        "an evaluation at time nan": (math.nan, logits, y, index),
        "a different label than before": (6, logits, 1 - y, index),
        "twice in one evaluation": (6, logits, y, torch.tensor([0, 0])),
        r"indices 1\.\.2 don't fit the 2": (6, logits, y, index + 1),
        "3 logits and labels": (6, torch.zeros(2, 3), y, index),
        r"labels 0\.\.2 don't fit": (6, logits, torch.tensor([0, 2]), index),
        "not finite": (6, torch.tensor([[math.inf, 0.0], [0.0, 0.0]]), y, index),
    }.items():
        with pytest.raises(ValueError, match=line):
            log.update(*given_)
    assert log.compute().evaluations.tolist() == [1, 1]
    assert log.update(9, logits[:0], y[:0], index[:0]) is log
    with pytest.raises(ValueError, match="same 2 examples"):
        log.merge(logged(logits[None], y))
    with pytest.raises(ValueError, match="cannot merge logs"):
        log.merge(DifficultyLog(2, 2, early=1))
    with pytest.raises(ValueError, match="1 of 3 examples have no evaluation at time 1 or later"):
        DifficultyLog(3, 2, early=1).update(2, logits, y, index).compute()
    for sizes in ((0, 2), (3, 1)):
        with pytest.raises(ValueError, match="at least 1 example and 2 classes"):
            DifficultyLog(*sizes)


@pytest.mark.parametrize(("top", "low", "high"), [(EASY, 0.95, 1.0), (HARD, 0.3, 0.7)])
def test_counterexamples_are_hard_early_only_for_an_easy_feature(top, low, high):
    shift = dominoes(top, CORE, agreement=0.95, validation=0)
    learned = shift.train[0]
    counter = learned.data.domain != learned.y
    log = DifficultyLog(len(learned), 2)
    for stage in fit(
        small_cnn(2, width=8), shift, epochs=1, batch_size=32, step_size=3e-3, weight_decay=0.05,
        seed=0, report_every=50,
    ):  # fmt: skip
        log.evaluate(stage.step, stage.model, learned)
    difficulty = log.compute()
    assert low <= auc(difficulty.early_loss, counter) <= high


def test_the_area_by_hand():
    score = torch.tensor([1.0, 2.0, 2.0, 3.0])
    assert auc(score, torch.tensor([False, False, False, True])) == 1
    assert auc(score, torch.tensor([True, False, False, False])) == 0
    assert auc(score, torch.tensor([False, True, False, False])) == 0.5
    assert auc(torch.tensor([0.0, math.inf, math.inf]), torch.tensor([False, True, False])) == 0.75


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40))
def test_the_area_agrees_with_scikit_learn(pairs):
    score = torch.tensor([float(s) for s, _ in pairs])
    positive = torch.tensor([f for _, f in pairs])
    if positive.all() or not positive.any():
        with pytest.raises(ValueError, match="expected numbers"):
            auc(score, positive)
        return
    assert auc(score, positive) == pytest.approx(roc_auc_score(positive, score))
    assert auc(-score, positive) == pytest.approx(1 - auc(score, positive))
    assert auc(score.exp(), positive) == pytest.approx(auc(score, positive))
    with pytest.raises(ValueError, match="1 scores that are nan"):
        auc(score.index_fill(0, torch.tensor([0]), torch.nan), positive)
