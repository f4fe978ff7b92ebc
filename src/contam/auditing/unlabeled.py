"""What an audit can say about a data set without labels.

The accuracy is estimated from confidences, and the estimates are also made for labeled data, where
their errors are known. Features and pixels are compared with those of the ID set, changes of the
input are judged by confidence, and examples to label are drawn.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from contam.auditing.causes.cause import PLUMBING_SHARE, other_rows
from contam.auditing.causes.input_mismatch import input_variants, matches
from contam.auditing.causes.label_noise import domain_auc_interval
from contam.auditing.comparison import interval_of, mean_interval, network_range_edit, outputs_of
from contam.auditing.image_edits import channel_statistics, noise_level, sharpness
from contam.auditing.passes import Passes
from contam.auditing.records import (
    AccuracyEstimate,
    ExampleToLabel,
    Interval,
    PixelDifference,
    UnlabeledScores,
    VariantConfidence,
)
from contam.auditing.scores import share_correct
from contam.auditing.single_pass import PassResult
from contam.data.object_removal import has_border
from contam.measures.accuracy import clopper_pearson
from contam.measures.unlabeled import (
    average_thresholded_confidence,
    difference_of_confidences,
    log_odds,
    sample_to_label,
)
from contam.remedies.prior_correction import fit_temperature
from contam.rng import generator_for

THRESHOLDED, DIFFERENCE = "average thresholded confidence", "difference of confidences"
TO_LABEL = 50
"""Examples that are proposed for labeling."""
FEWEST = 20
"""ID examples from which the accuracy of other sets is estimated."""
FEWEST_COMPARED = 8
"""Examples of each set from which a domain classifier is fitted."""
LEAST_GAP = 0.05
"""Difference of the mean confidences on ID and unlabeled images from which variants are tried."""
TIE = 0.01
"""Difference of mean confidences up to which the earlier, more frequent variant is taken, since 255
and 257 can't be told apart by a few images."""
CHOSEN = 60
"""Images on which a variant is chosen."""
CHANNELS = {1: ("gray",), 3: ("red", "green", "blue")}
"""Names of the channels; those of other numbers of channels are numbered from 0."""


@dataclass(frozen=True)
class UnlabeledEvidence:
    """What was found about the sets without labels."""

    scores: tuple[UnlabeledScores, ...] = ()
    findings: tuple[str, ...] = ()
    """Input variants that raise the confidence, one sentence each."""
    left_out: tuple[str, ...] = ()


def unlabeled_evidence(passes: Passes) -> UnlabeledEvidence:
    """Estimate the accuracy on each set without labels, and compare it with the ID set.

    Args:
        passes: results of `run_passes`.

    Returns:
        The scores of each set without labels; accuracies are shares in [0, 1].

    Source: ours; Garg et al. (2022) and Guillory et al. (2021) for the estimates.
    """
    if not passes.unlabeled:
        return UnlabeledEvidence()
    estimator = Estimator.fitted(passes.id, seed=passes.inputs.seed)
    checks = () if estimator is None else _checks(passes, estimator)
    scores, findings, left_out = [], [], []
    if estimator is None:
        left_out.append(
            f"Accuracies without labels are not estimated, since this takes {FEWEST} ID examples."
        )
    for sample in passes.inputs.unlabeled:
        result = passes.unlabeled[sample.name]
        estimates = () if estimator is None else estimator.estimates(sample.name, result)
        area, reason = _domain_area(passes, result)
        left_out += [f"{sample.name}: {reason}"] if reason else []
        pixels, variant, reason = _images(passes, sample.name)
        left_out += [f"{sample.name}: {reason}"] if reason else []
        findings += [] if variant is None else [f"On {sample.name}: {variant.sentence}"]
        rows = sample_to_label(result.predicted, TO_LABEL, seed=passes.inputs.seed)
        names = passes.inputs.classes
        scores.append(
            UnlabeledScores(
                name=sample.name, count=len(result.y), estimates=estimates, checks=checks,
                confidence=_mean_confidence(result, passes.inputs.seed),
                id_confidence=_mean_confidence(passes.id, passes.inputs.seed),
                domain_auc=area, pixels=pixels, variant=variant,
                with_labels=_with_labels(
                    estimates[0].estimate.value if estimates else 0.5, len(rows)
                ),
                widest=_with_labels(0.5, len(rows)),
                to_label=tuple(
                    ExampleToLabel(index=index, path=path, predicted=names[k])
                    for (index, path), k in zip(
                        sample.sources(rows), result.predicted[rows].tolist(), strict=True
                    )
                ),
            )
        )  # fmt: skip
    return UnlabeledEvidence(tuple(scores), tuple(findings), tuple(left_out))


@dataclass(frozen=True, eq=False)
class Estimator:
    """Both estimates of the accuracy, fitted to one half of the ID set."""

    temperature: float
    """Calibrates the logits."""
    score: Float[Tensor, " n"]
    """Calibrated log odds of the fitted half."""
    correct: Bool[Tensor, " n"]
    held: Float[Tensor, "m classes"]
    """Logits of the other half."""
    held_correct: Bool[Tensor, " m"]
    seed: int = 0

    @classmethod
    def fitted(cls, own: PassResult, *, seed: int = 0) -> "Estimator | None":
        """Fit the temperature and the threshold; None with too few ID examples.

        Args:
            own: the pass over the ID set.
            seed: random seed of the halves.
        """
        logits, y = _finite(own)
        if len(y) < FEWEST:
            return None
        correct = logits.argmax(1) == y
        order = torch.randperm(len(y), generator=generator_for(seed, "audit/halves without labels"))
        fitted, held = order[::2], order[1::2]
        temperature = fit_temperature(logits[fitted].double(), y[fitted])
        return cls(
            temperature, log_odds(logits[fitted], temperature), correct[fitted], logits[held],
            correct[held], seed,
        )  # fmt: skip

    def estimates(self, name: str, result: PassResult) -> tuple[AccuracyEstimate, ...]:
        """Estimate the accuracy on a set without labels.

        Args:
            name: its name.
            result: the pass over it.
        """
        return self._both(name, _finite(result)[0], None)

    def checks(self, name: str, result: PassResult) -> tuple[AccuracyEstimate, ...]:
        """Estimate the accuracy on a labeled set, and give the true one.

        Args:
            name: its name.
            result: the pass over it.
        """
        logits, y = _finite(result)
        return self._both(name, logits, logits.argmax(1) == y)

    def on_held_out(self, name: str) -> tuple[AccuracyEstimate, ...]:
        """Estimate the accuracy on the half of the ID set that was not fitted to.

        Args:
            name: name of the ID set.
        """
        return self._both(name, self.held, self.held_correct)

    def _both(
        self, name: str, logits: Tensor, correct: Tensor | None
    ) -> tuple[AccuracyEstimate, ...]:
        if not len(logits):
            return ()
        new = log_odds(logits, self.temperature)
        known, right = self.score, self.correct
        share, other = known.sigmoid(), new.sigmoid()
        units, accuracy = (len(known), len(new)), None
        if correct is not None:
            accuracy = share_correct(correct).accuracy
        estimates = {
            THRESHOLDED: interval_of(
                lambda a, b: average_thresholded_confidence(known[a], right[a], new[b]), units,
                seed=self.seed,
            ),
            DIFFERENCE: interval_of(
                lambda a, b: difference_of_confidences(share[a], right[a], other[b]), units,
                seed=self.seed,
            ),
        }  # fmt: skip
        return tuple(
            AccuracyEstimate(method=method, on=name, estimate=value, accuracy=accuracy, n=len(new))
            for method, value in estimates.items()
        )


def _finite(result: PassResult) -> tuple[Tensor, Tensor]:
    """The logits that are kept of a set, where they are finite, and the class indices."""
    finite = result.scored_logits.isfinite().all(1)
    return result.scored_logits[finite], result.y[result.scored][finite]


def _checks(passes: Passes, estimator: Estimator) -> tuple[AccuracyEstimate, ...]:
    """The estimates on labeled data, with their true accuracies."""
    own, others = passes.inputs.id.name, passes.inputs.ood
    return (
        *estimator.on_held_out(own),
        *(e for s in others for e in estimator.checks(s.name, passes.sets[s.name])),
    )


def _mean_confidence(result: PassResult, seed: int) -> Interval | None:
    """The mean of the largest probabilities; None without finite logits."""
    confidence = log_odds(_finite(result)[0]).sigmoid()
    return mean_interval(confidence, seed) if len(confidence) else None


def _domain_area(passes: Passes, result: PassResult) -> tuple[Interval | None, str]:
    """The area under the ROC curve of a domain classifier, or why there is none."""
    own, other = passes.id.head, result.head
    if own is None or other is None:
        return None, "no domain classifier, since the network has no linear head to read."
    own, other = (x[x.isfinite().all(1)] for x in (own, other))
    if min(len(own), len(other)) < FEWEST_COMPARED:
        return None, f"no domain classifier, which takes {FEWEST_COMPARED} examples of each set."
    return domain_auc_interval(own, other, seed=passes.inputs.seed), ""


def _images(
    passes: Passes, name: str
) -> tuple[tuple[PixelDifference, ...], VariantConfidence | None, str]:
    """The comparison of pixels, the variant that raises the confidence, or why there is neither."""
    own, other = passes.images.get(passes.inputs.id.name), passes.images.get(name)
    if own is None or other is None or not (has_border(own.x) and has_border(other.x)):
        return (), None, (
            "pixels are not compared and other inputs not tried, since the inputs are not images "
            "of at least 8 pixels, or the tests that edit them are off."
        )  # fmt: skip
    return pixel_differences(own.x, other.x), _variant(passes, own.x, other.x), ""


def pixel_differences(
    own: Float[Tensor, "n channels height width"], other: Float[Tensor, "m channels height width"]
) -> tuple[PixelDifference, ...]:
    """Compare the mean, spread, noise and sharpness of images with those of the ID images.

    Args:
        own: ID images.
        other: other images.

    Returns:
        For each statistic and channel, the mean over the other images minus that over the ID
        images, in standard deviations over the ID images.

    Source: ours, a shift that pixels show needs no labels.

    >>> images = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> [row.difference for row in pixel_differences(images, images)]
    [0.0, 0.0, 0.0, 0.0]
    """
    rows = []
    numbered = tuple(f"channel {k}" for k in range(own.shape[1]))
    for k, channel in enumerate(CHANNELS.get(own.shape[1], numbered)):
        known, new = (_statistics(x[:, k : k + 1]) for x in (own, other))
        for what, values in known.items():
            spread = float(values.std(correction=0).clamp(min=1e-6))
            difference = float(new[what].mean() - values.mean()) / spread
            rows.append(PixelDifference(statistic=what, channel=channel, difference=difference))
    return tuple(rows)


def _statistics(x: Tensor) -> dict[Literal["mean", "spread", "noise", "sharpness"], Tensor]:
    mean, spread = (values[:, 0] for values in channel_statistics(x))
    return {"mean": mean, "spread": spread, "noise": noise_level(x), "sharpness": sharpness(x)}


def _variant(passes: Passes, own: Tensor, other: Tensor) -> VariantConfidence | None:
    """The change of the input after which the mean confidence is near the ID level, if any.

    A change of scale counts if it gives the images the pixel statistics of the ID images; among
    several, the one with the nearest confidence. Without one, other changes are tried where the
    confidence is below the ID level: the best is chosen on some images and judged on others.
    """
    inputs, level = passes.inputs, _mean_confidence(passes.id, passes.inputs.seed)
    # Neighbors in a set are often of one class or one hour.
    draws = generator_for(inputs.seed, "audit/variants without labels")
    chosen = torch.randperm(len(other), generator=draws)[: min(CHOSEN, len(other) // 3)]
    judged = other_rows(len(other), chosen)
    if level is None or not len(chosen):
        return None

    def confidence(x: Tensor) -> Tensor:
        outputs, _ = outputs_of(inputs.model, x, inputs.batch_size)
        return outputs.confidence.double()

    def distance(values: Tensor) -> float:
        return abs(level.value - float(values.mean()))

    variants = input_variants(own, lambda edit: network_range_edit(inputs.model, edit))
    fitting = [v for v in variants if v.scale and matches(v.edit(other), own)]
    rescaled = bool(fitting) and not matches(other, own)
    before = confidence(other)
    if not rescaled:
        if level.value - float(before.mean()) < LEAST_GAP:
            return None
        fitting = [variant for variant in variants if not variant.scale]
    tried = [distance(confidence(variant.edit(other[chosen]))) for variant in fitting]
    best = fitting[next(k for k, value in enumerate(tried) if value <= min(tried) + TIE)]
    start, end = before[judged], confidence(best.edit(other[judged]))
    gain = mean_interval(end - start, inputs.seed)
    near = distance(end) <= max(LEAST_GAP, (1 - PLUMBING_SHARE) * distance(start))
    if not near or not (rescaled or (gain.low is not None and gain.low > 0)):
        return None
    return VariantConfidence(
        what=best.what, fix=best.fix, before=mean_interval(start, inputs.seed),
        after=mean_interval(end, inputs.seed), id_level=level.value, n=len(judged),
    )  # fmt: skip


def _with_labels(value: float, count: int) -> Interval:
    """The exact binomial interval of so many labels around an accuracy."""
    low, high = clopper_pearson(round(value * count), count)
    return Interval(value=value, low=low, high=high)
