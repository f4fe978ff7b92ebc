"""Error of accuracy estimates without labels, on the embedded benchmark.

Small networks learn objects on four families of backgrounds. Their accuracy on other families and
on blurred and darkened images is estimated from confidences, as an audit does, and compared with
the true accuracy. Prints a Markdown table of means over seeds. The ratio is that of estimated to
true accuracy without a shift, where the estimates are unbiased.

    python benchmarks/unlabeled.py --seeds 5
"""

import argparse
import math
from collections import defaultdict

import torch
from outcome import conclude, machine
from torch import Tensor, nn

from contam.auditing.image_edits import blurred
from contam.batch import Batch
from contam.data.shapes import mild, shapes
from contam.measures.unlabeled import (
    average_thresholded_confidence,
    difference_of_confidences,
    log_odds,
)
from contam.models.small import small_cnn
from contam.remedies.prior_correction import fit_temperature
from contam.training.supervised import fit

WITHOUT_SHIFT = "ID, other half"
METHODS = ("average thresholded confidence", "difference of confidences",
           "difference of confidences, not calibrated")  # fmt: skip


def estimates(id: tuple[Tensor, Tensor], new: Tensor) -> tuple[float, ...]:
    """Estimates by each method from ID logits and labels, and logits without labels."""
    logits, y = id
    correct = logits.argmax(1) == y
    temperature = fit_temperature(logits.double(), y)
    own, other = log_odds(logits, temperature), log_odds(new, temperature)
    plain, plain_other = log_odds(logits).sigmoid(), log_odds(new).sigmoid()
    return (
        average_thresholded_confidence(own, correct, other).item(),
        difference_of_confidences(own.sigmoid(), correct, other.sigmoid()).item(),
        difference_of_confidences(plain, correct, plain_other).item(),
    )


def answers(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits and labels."""
    with torch.no_grad():
        return torch.cat([model(x) for x in batch.x.split(200)]), batch.y


def measure(seed: int, epochs: int, train: int) -> dict[str, tuple[float, ...]]:
    """The true accuracy on each set, and the estimates by each method."""
    shift = shapes(seed, train=train)
    model = small_cnn(seed=seed)
    for _ in fit(model, shift, step_size=3e-3, weight_decay=1e-4, batch_size=64, epochs=epochs,
                 seed=seed, report_every=10_000):  # fmt: skip
        pass
    model.eval()
    test = shift.id_test.data
    half = test.pick(slice(1, None, 2))
    sets = {
        WITHOUT_SHIFT: half,
        "ID, blurred by 0.6 pixels": half._replace(x=blurred(half.x, 0.6)),
        "ID, 40 % of the light": half._replace(x=0.4 * half.x),
        **{f"backgrounds {domain.name}": domain.data for domain in mild(seed)},
        **{f"backgrounds {domain.name}": domain.data for domain in shift.ood_tests},
    }
    own = answers(model, test.pick(slice(0, None, 2)))
    rows = {}
    for name, batch in sets.items():
        logits, y = answers(model, batch)
        truth = (logits.argmax(1) == y).double().mean().item()
        rows[name] = (truth, *estimates(own, logits))
    return rows


def main() -> int:
    """Measure all seeds, print the table, and check the estimates without a shift."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--train", type=int, default=4000)
    given = parser.parse_args()
    rows: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for seed in range(given.seeds):
        for name, values in measure(seed, given.epochs, given.train).items():
            rows[name].append(values)
    print(f"{machine()}, {given.seeds} seeds")
    print("| set | true accuracy | " + " | ".join(METHODS) + " |")
    print("|---|---|" + "---|" * len(METHODS))
    for name, values in rows.items():
        means = torch.tensor(values).mean(dim=0).tolist()
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in means) + " |")
    truth, estimate, *_ = torch.tensor(rows[WITHOUT_SHIFT]).mean(dim=0).tolist()
    return conclude(estimate / truth if truth else math.nan, at_least=0.97, at_most=1.03)


if __name__ == "__main__":
    raise SystemExit(main())
