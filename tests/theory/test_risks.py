import pytest
import torch
import torch.nn.functional as F

from contam.theory.distribution import DataModel, Sample
from contam.theory.engines import hinge, logistic, squared
from contam.theory.features import FeatureModel
from contam.theory.risks import held_out, ood_risk, risk
from contam.theory.trajectory import Setting, simulate, training_set

H = torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SIGN = torch.tensor([1, -1]).repeat(20)
INDEX = torch.arange(40) % 3


def sample(y):
    return Sample(torch.zeros(40, 4), y, H.roll(1, dims=0))


def test_losses_of_one_output_by_hand():
    h, y = torch.tensor([0.5, 2.0, -1.0]), torch.tensor([1, 1, 1])
    few = Sample(torch.zeros(3, 1), y, torch.zeros(3, 1))
    assert hinge(h, few).tolist() == [0.5, 0.0, 2.0]
    assert hinge(-h, few._replace(y=-y)).tolist() == [0.5, 0.0, 2.0]
    torch.testing.assert_close(logistic(h, few), torch.log1p(torch.exp(-h)))


def test_losses_of_several_outputs_agree_with_torch():
    margins = torch.stack([1 - H[i, c] + H[i] for i, c in enumerate(INDEX)])
    margins[torch.arange(40), INDEX] = 0.0  # the largest wrong margin, or nothing
    torch.testing.assert_close(hinge(H, sample(INDEX)), margins.amax(dim=1))
    expected = F.cross_entropy(H, INDEX, reduction="none")
    torch.testing.assert_close(logistic(H, sample(INDEX)), expected)


def test_two_outputs_and_one_output_agree_on_the_margin():
    y = SIGN
    one = hinge(H[:, 1] - H[:, 0], sample(y))
    torch.testing.assert_close(hinge(H[:, :2], sample((y + 1) // 2)), one)
    one = logistic(H[:, 1] - H[:, 0], sample(y))
    torch.testing.assert_close(logistic(H[:, :2], sample((y + 1) // 2)), one)


def test_squared_loss_has_the_difference_as_its_gradient():
    h = H.clone().requires_grad_()
    squared(h, sample(SIGN)).sum().backward()
    torch.testing.assert_close(h.grad, H - sample(SIGN).target)


DATA = DataModel(FeatureModel(4, 4, 20))


@pytest.mark.parametrize("loss", ["hinge", "logistic"])
def test_risk_agrees_with_brute_force(loss):
    (state,) = simulate(Setting(data=DATA, width=16, loss=loss, steps=5), 0)
    sample = held_out(state, "ood", examples=500)
    h = state(sample.f)
    result = risk(state, sample)
    assert result.error == pytest.approx(sum(h.sign() != sample.y) / 500)
    margins = (sample.y * h).double()
    expected = {"hinge": (1 - margins).clamp(min=0), "logistic": torch.log1p((-margins).exp())}
    assert result.loss == pytest.approx(float(expected[loss].mean()), rel=1e-5)


def test_risk_of_several_classes_and_of_regression():
    three = DataModel(FeatureModel(6, 2, 20), classes=3)
    (state,) = simulate(Setting(data=three, width=16, steps=3), 0)
    sample = held_out(state, "id", examples=400)
    wrong = [int(h.argmax()) != int(y) for h, y in zip(state(sample.f), sample.y, strict=True)]
    assert risk(state, sample).error == pytest.approx(sum(wrong) / 400)
    regression = Setting(data=DATA, width=16, loss="squared", head="trained", step_size=0.1)
    (state,) = simulate(regression, 0)
    sample = held_out(state, "id")
    result = risk(state, sample)
    assert result.error is None
    assert result.loss == pytest.approx(float(F.mse_loss(state(sample.f), sample.target)), rel=1e-5)


def test_held_out_examples_are_fixed_and_not_trained_on():
    setting = Setting(data=DATA, width=16, steps=2, examples=64, batch_size=64)
    first, final = simulate(setting, 0, report_at=(0, 2))
    sample = held_out(first, "id", 64)
    assert torch.equal(sample.f, held_out(final, "id", 64).f)
    assert not torch.isin(sample.f, training_set(setting, 0).f).all()


def test_eq_1_is_the_worst_case_risk():
    assert ood_risk({"id": 0.1, "ood": 0.8, "worst": 1.0}) == 1.0
    assert ood_risk({"id": 0.9, "ood": 0.8}) == 0.9
