"""The claims: a student is as good as its teacher on ID data, worse on OOD data, above ERM."""

from collections.abc import Callable, Sequence
from statistics import fmean

from scipy.stats import ttest_1samp

from contam.experiment import Claim, NotJudged, Pooled, Statement, judge_all
from contam.experiments.fig01_distillation.results import DistillationResults, read_results
from contam.experiments.support.networks import CENTERED, ERM, INSTANCE, STUDENT, TEACHER
from contam.experiments.support.per_network import by_network
from contam.measures.published import Pair, imagenet_robustness
from contam.plots import over_seeds
from contam.run import DataFrame, Run

LEARNED = 0.5
"""ID accuracy from which on a network has learned the embedded benchmark, which has ten classes."""
HALF = (0.45, 0.55)
"""What "about half" means in every claim."""


def _difference(one: str, other: str, column: str) -> Callable[[DistillationResults], list[float]]:
    """A column of one network minus another's, by seed."""

    def measure(results: DistillationResults) -> list[float]:
        values = by_network(_judgeable(results, column), column)
        return (values[one] - values[other]).tolist()

    return measure


def _decided(
    measure: Callable[[DistillationResults], list[float]],
) -> Callable[[DistillationResults], list[float]]:
    """A measure that is not judged where its 95 % interval over the seeds contains 0.

    Which side of 0 a single seed falls on can depend on the roundings of a processor.
    """

    def decided(results: DistillationResults) -> list[float]:
        values = measure(results)
        if len(values) < 2:
            raise NotJudged("one seed has no interval")
        low, high = ttest_1samp(values, 0).confidence_interval()
        if not (low > 0 or high < 0):
            raise NotJudged(
                f"the mean over {len(values)} seeds, {fmean(values):.1f}, has a 95 % interval that "
                f"contains 0 ({low:.1f} to {high:.1f})"
            )
        return values

    return decided


def _judgeable(results: DistillationResults, column: str) -> DataFrame:
    if column == "robustness" and results.points.robustness.isna().any():
        raise NotJudged("too few standard networks were trained to draw their line")
    return results.points


def _learned(results: DistillationResults) -> None:
    """Require that the networks of the embedded benchmark recognize half of its ID test or more.

    Published benchmarks have scores on other scales, and weights from files.
    """
    if results.config.networks.data != "shapes":
        return
    networks = results.points[results.points.network.isin([TEACHER.name, STUDENT.name, ERM.name])]
    score = float(networks.id.min())
    if score < LEARNED:
        raise NotJudged(f"a network did not learn: ID accuracy {score:.2f}")


def _distance_ratio(results: DistillationResults) -> list[float]:
    distances = results.rows[results.rows.what == "distance"]
    means = {
        (row["seed"], row["role"]): row["distance"]
        for row in over_seeds(distances, ["seed", "role"], "distance")
    }
    return [means[seed, "ood"] / means[seed, "id"] for seed in range(results.config.seeds)]


def _kept(results: DistillationResults) -> list[float]:
    """The share of the teacher's effective robustness that its student keeps."""
    values = by_network(_judgeable(results, "robustness"), "robustness")
    if (values.teacher <= 0).any():
        raise NotJudged("a teacher is not above the line of standard networks")
    return (values.student / values.teacher).tolist()


def _regained(results: DistillationResults) -> list[float]:
    """The share of a standard network's loss that one with centered maps does not have."""
    ids, oods = (by_network(results.points, key) for key in ("id", "ood"))
    losses = ids[ERM.name] - oods[ERM.name]
    if losses.min() <= 0:
        raise NotJudged("the standard network loses nothing")
    return ((oods[CENTERED.name] - oods[ERM.name]) / losses).tolist()


def _published_losses(_: object) -> Pooled:
    pairs = imagenet_robustness()
    return Pooled(min(pair.teacher_mean - pair.student_mean for pair in pairs), len(pairs), "pair")


def _published_robustness(_: object) -> Pooled:
    pairs = imagenet_robustness()
    return Pooled(min(pair.student_mean for pair in pairs), len(pairs), "pair")


def _published_share(_: object) -> Pooled:
    return _share(imagenet_robustness())


def _published_share_of_classes(_: object) -> Pooled:
    return _share(imagenet_robustness("same_classes"))


def _share(pairs: Sequence[Pair]) -> Pooled:
    return Pooled(fmean(pair.kept for pair in pairs), len(pairs), "pair")


PUBLISHED = (
    Statement("Published: every CLIP teacher loses effective robustness when it is distilled",
              "Tab. 1", "least loss over {pairs} pairs on ImageNet's shifts, points",
              _published_losses, low=0.0, about_learning=False),
    Statement("Published: students keep some of it, more than standard networks have",
              "Tab. 1", "least effective robustness of {pairs} students, points",
              _published_robustness, low=0.0, about_learning=False),
    Statement("Published: students keep about half of it", "Sec. 2",
              "share kept, mean over {pairs} pairs", _published_share, low=HALF[0], high=HALF[1],
              published="about half", about_learning=False),
    Statement("Published: students keep about half of it by the testbed's convention, too", "ours",
              "share kept, mean over {pairs} pairs, ID accuracy on the classes of each shift",
              _published_share_of_classes, low=HALF[0], high=HALF[1],
              published="about half", about_learning=False),
)  # fmt: skip
ROBUSTNESS = {
    TEACHER: Statement(
        "The teacher is more robust than its student at the same ID accuracy", "Fig. 1",
        "effective robustness, teacher minus student, points",
        _difference("teacher", "student", "robustness"), low=0.0, every_seed=True,
        given=_learned),
    ERM: Statement(
        "The student is more robust than a standard network at the same ID accuracy", "Fig. 1",
        "effective robustness, student minus ERM, points",
        _decided(_difference("student", "ERM", "robustness")), low=0.0, every_seed=True,
        given=_learned),
    STUDENT: Statement(
        "Distillation keeps about half of the teacher's effective robustness", "Sec. 2",
        "share of the teacher's effective robustness that the student keeps", _kept,
        low=HALF[0], high=HALF[1], published="about half"),
}  # fmt: skip
REMEDIES = (
    *(Statement(f"A standard network is more robust when trained with {change}", "ours",
                f"mean OOD accuracy, {spec.name} minus ERM", _difference(spec.name, "ERM", "ood"),
                low=0.05, every_seed=True)
      for spec, change in ((CENTERED, "every map centered"), (INSTANCE, "instance norm"))),
    Statement("Unseen images are not the only reason why a standard network fails", "ours",
              "share of ERM's loss under shift that centering removes, with the same images",
              _regained, low=0.2, every_seed=True),
)  # fmt: skip
TABLES = {"shapes": "Sec. 2", "imagenet": "Tab. 1", "iwildcam": "Tab. 2", "camelyon17": "Tab. 3",
          "domainnet": "Tab. 4"}  # fmt: skip
"""Where the paper compares teacher and student on each data set."""


def _distilled(source: str) -> tuple[Statement, ...]:
    return (
        Statement("On ID data the student is about as good as its teacher", source,
                  "ID score, student minus teacher", _difference("student", "teacher", "id"),
                  low=-0.05, given=_learned),
        Statement("On shifted data the student is far worse than its teacher", source,
                  "mean OOD score, student minus teacher",
                  _difference("student", "teacher", "ood"), high=-0.02, every_seed=True,
                  given=_learned),
        Statement("The student has its teacher's features on ID data, and others on shifted data",
                  "ours", "relative distance of the features, OOD over ID", _distance_ratio,
                  low=2.0, every_seed=True, given=_learned),
    )  # fmt: skip


def claims(run: Run) -> Sequence[Claim]:
    """The student is as good as its teacher on ID data, worse on OOD data, and better than ERM."""
    results = read_results(run)
    config = results.config
    statements = list(PUBLISHED)
    if config.distill:
        statements += [*_distilled(TABLES[config.networks.data]), ROBUSTNESS[TEACHER]]
        if config.networks.standard is not None:
            statements.append(ROBUSTNESS[ERM])
        statements.append(ROBUSTNESS[STUDENT])
    if config.remedies:
        statements += REMEDIES
    return judge_all(statements, results, pairs=len(imagenet_robustness()))
