"""The results of an audit as frozen records, from which the page and the files are written.

Records are JSON; `AuditRecord.model_json_schema()` is the published schema. Accuracies are shares
in [0, 1]. A number that could not be measured is absent, and `left_out` gives the reason.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt

FORMAT = 4
"""Version of the saved form. Older audits are refused: their causes have other fields."""

HEALTHY, UNEXPLAINED, UNDECIDED = "healthy", "unexplained shift", "undecided"
"""The verdicts without a cause: no loss, a loss that no test explains, too little evidence."""

Answer = Literal["yes", "no", "undecided", "not asked"]


def set_title(role: str, name: str) -> str:
    """Return the name of a data set after its role, which is not repeated.

    >>> set_title("ood", "night"), set_title("id", "ID")
    ('OOD night', 'ID')
    """
    return name if name == role.upper() else f"{role.upper()} {name}"


class Record(BaseModel):
    """Base of all records: frozen, without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Interval(Record):
    """A number with the ends of its 95 % interval; absent ends are unknown."""

    value: float
    low: float | None = None
    high: float | None = None


class Score(Record):
    """The number of correct predictions among `count` examples."""

    correct: NonNegativeInt
    count: PositiveInt
    accuracy: Interval


class ConfusedPair(Record):
    """The examples of one class that the network takes for another."""

    label: str
    predicted: str
    count: PositiveInt


class CorrectExamples(Record):
    """Which examples of a data set were classified correctly, so that audits can be paired."""

    bits: str
    """One bit for each example in their order, in base64; 1 if it is correct."""
    labels: str
    """Digest of the labels in their order, which examples of another order do not have."""


class SetScores(Record):
    """Accuracy of the network on one data set, overall and by class and domain."""

    name: str
    role: Literal["id", "ood"]
    overall: Score
    by_class: dict[str, Score]
    by_domain: dict[str, Score] = {}
    worst_domain: str | None = None
    domain_column: str = ""
    """Name of the metadata column that is the domain; empty if it has none."""
    by_group: dict[str, dict[str, Score]] = {}
    """By value of each other metadata column that groups the examples."""
    effective_robustness: Interval | None = None
    """Percentage points above the line of standard models."""
    confused: tuple[ConfusedPair, ...] = ()
    """The most frequent confusions first: all pairs for up to 20 classes, otherwise 400 at most."""
    correct: CorrectExamples | None = None

    def groups(self) -> list[tuple[str, str, Score]]:
        """Return column, value and accuracy of each group of examples, the domains first."""
        columns = {self.domain_column or "domain": self.by_domain, **self.by_group}
        return [
            (column, value, score)
            for column, scores in columns.items()
            for value, score in scores.items()
        ]


class Number(Record):
    """One number of a cause's evidence."""

    what: str
    """The quantity, such as `accuracy with a fresh head`."""
    value: Interval
    on: str = ""
    """Name of the data set."""
    part: str = ""
    """The variant that was measured, such as the name of an encoder."""


class CauseEvidence(Record):
    """The measurements about one cause, in a form that is the same for every cause."""

    cause: str
    title: str
    """Heading on the page, a question."""
    method: str
    """One or two sentences that say how the numbers were measured."""
    effect: Interval | None = None
    """The main number; absent if it could not be measured."""
    measured: str = ""
    """What `effect` is."""
    n: NonNegativeInt = 0
    """Examples behind `effect`."""
    numbers: tuple[Number, ...] = ()
    left_out: tuple[str, ...] = ()
    """What could not be measured and why, one sentence each."""

    def find(self, what: str, *, on: str | None = None) -> Number | None:
        """The first number with this name, on this data set if one is given."""
        return next(
            (n for n in self.numbers if n.what == what and (on is None or n.on == on)), None
        )

    def table(self, what: str) -> dict[str, Interval]:
        """The numbers with this name, keyed by data set."""
        return {number.on: number.value for number in self.numbers if number.what == what}


class LayerRecord(Record):
    """One layer. Tables are keyed by data set; the key `untrained` is the control."""

    name: str
    neurons: PositiveInt
    selectivity: dict[str, float] = {}
    """Mean over neurons of the class selectivity (Eq. 61) of the positive class means."""
    asymmetry: dict[str, float] = {}
    """Mean over neurons of the largest minus the mean activation rate over classes."""
    rate: dict[str, float] = {}
    """Share of positive activations."""
    class_rates: dict[str, tuple[float | None, ...]] = {}
    """Share of positive activations for each class; absent for more than 100 classes."""
    density: dict[str, float] = {}
    """Mean activation, in the network's units."""
    attenuation: dict[str, Interval] = {}
    """Class-profile attenuation from ID to each OOD set."""
    across_domains: Interval | None = None
    """Class-profile attenuation from one ID domain to the others, mean over domains."""
    counterfactual: dict[str, Interval] = {}
    """Class-profile attenuation under changes of the ID images, by change."""
    untrained_attenuation: dict[str, Interval] = {}
    """The three above for the untrained network, with the same keys; `across domains` is the key of
    the second."""
    probe: dict[str, Interval] = {}
    """Accuracy of a linear probe of this layer, fitted on ID data."""
    decided: dict[str, float] = {}
    """Share of the predictions with a depth that are decided by this layer (prediction depth)."""
    undefined: dict[str, float] = {}
    """Share of predictions without a depth, because the nearest neighbors at the output disagree
    with the network; the same for all layers."""
    information: dict[str, Interval] = {}
    """Usable information about the label, in bits."""
    domain_error: Interval | None = None
    """Error rate of a linear probe of the domain."""
    untrained_domain_error: Interval | None = None
    domain_chance: float | None = None
    """Error rate of always predicting the most frequent domain."""


class NeuronTable(Record):
    """All neurons as columns of equal length; those with the largest loss come first."""

    layer: tuple[str, ...]
    index: tuple[int, ...]
    favorite: tuple[str, ...]
    """Class with the highest mean activation on ID data."""
    selectivity_id: tuple[float, ...]
    selectivity_ood: tuple[float | None, ...]
    rate_id: tuple[float, ...]
    rate_ood: tuple[float | None, ...]
    attenuation: tuple[float | None, ...]
    """From ID to OOD, or to changed ID images without an OOD set; absent for silent neurons and
    for those whose ID class means differ by little more than noise."""


class Projection(Record):
    """Examples in the first two principal directions of a layer, as columns of equal length."""

    layer: str
    shares: tuple[float, float]
    """Share of the layer's variance along each axis."""
    x: tuple[float, ...]
    y: tuple[float, ...]
    data: tuple[str, ...]
    """Name of the data set."""
    domain: tuple[str, ...]
    label: tuple[str, ...]


class Example(Record):
    """An image shown on the page; images are WebP in base64."""

    data: str
    """Name of the data set."""
    index: NonNegativeInt
    label: str
    predicted: str
    picture: str
    heat: str | None = None
    """The same image under its Grad-CAM heat map."""
    heat_on_object: float | None = None
    """Mean heat on the object, in units of the heat map, which all images of an audit share."""
    heat_share: float | None = None
    """Share of the heat that lies on the object."""
    group: str = ""
    """Title of the group of images that are shown side by side."""
    note: str = ""


class Step(Record):
    """One question of the verdict and its answer."""

    question: str
    evidence: str
    """What was measured, in words."""
    observed: Interval | None
    threshold: float
    answer: Answer
    leads_to: str
    """Name of the cause that `yes` means."""
    why: str
    """The answer as a sentence with its numbers."""


class Remedy(Record):
    """A change to try, with its effect as measured on the embedded benchmark."""

    what: str
    effect: str
    caveat: str


class MeasuredRemedy(Record):
    """A repair of the audited network with its effect, measured on examples it was not fitted to.

    Intervals are 95 %, and accuracies are shares in [0, 1].
    """

    name: str
    """Name of the repair in `contam.remedies.REPAIRS`."""
    on: str
    """Name of the OOD set."""
    cause: str = ""
    """Name of the cause that the repair treats; empty if it treats no single one."""
    id_before: Interval
    id_after: Interval
    ood_before: Interval
    ood_after: Interval
    gain: Interval
    """OOD accuracy after the repair minus before, on the same examples."""
    labels: NonNegativeInt
    """Labels of OOD examples that one fit uses."""
    n: PositiveInt
    """OOD examples that are judged."""
    code: str
    """Lines of Python that repair the network."""
    note: str = ""


class LostPoints(Record):
    """The accuracy that one cause accounts for."""

    cause: str
    """Name of a cause in `contam.auditing.causes.CAUSES`, or `unexplained shift`."""
    what: str
    """The finding in a few words."""
    points: Interval
    """Accuracy, as a share of all examples; the entries of a ledger add up to the loss."""
    alone: Interval | None = None
    """Accuracy that comes back if this cause alone is treated; absent for imitated losses."""
    how: Literal["given back", "imitated", "rest"]
    """Whether a treatment of OOD images measured it, an imitation or a statistic, or neither."""
    fix: str = ""
    """A line of code, or an instruction."""


class Ledger(Record):
    """The lost accuracy of one OOD set, split among causes."""

    on: str
    """Name of the OOD set."""
    loss: Interval
    """ID accuracy minus OOD accuracy."""
    entries: tuple[LostPoints, ...] = ()
    """Causes with the largest first, and the unexplained rest last; their values add up to the
    loss."""
    steps: tuple["Step", ...] = ()
    """The tests on this set."""
    n: NonNegativeInt = 0
    """OOD images on which treatments were judged."""
    shown: NonNegativeInt = 0
    """Images that the tests showed to the network."""

    @property
    def unexplained(self) -> float:
        """Accuracy that no cause accounts for."""
        return sum(entry.points.value for entry in self.entries if entry.how == "rest")


class AccuracyEstimate(Record):
    """An accuracy that was estimated from confidences, without labels."""

    method: str
    """`average thresholded confidence` or `difference of confidences`."""
    on: str
    """Name of the data set."""
    estimate: Interval
    """The interval is that of sampling; it does not contain the error of the method."""
    accuracy: Interval | None = None
    """The true accuracy on the same examples; absent without labels."""
    n: PositiveInt


class PixelDifference(Record):
    """A statistic of the pixels of one channel, compared with the ID images."""

    statistic: Literal["mean", "spread", "noise", "sharpness"]
    channel: str
    difference: float
    """Mean over images minus that over ID images, in standard deviations over ID images."""


class VariantConfidence(Record):
    """A change of the input that takes the confidence on unlabeled images near the ID level."""

    what: str
    fix: str
    """A line of code."""
    before: Interval
    """Mean confidence."""
    after: Interval
    id_level: float
    """Mean confidence on the ID set."""
    n: PositiveInt

    @property
    def sentence(self) -> str:
        """The finding with its numbers and the fix."""
        return (
            f"With {self.what}, the mean confidence goes from {self.before.value:.2f} to "
            f"{self.after.value:.2f} ({self.id_level:.2f} on the ID set, n = {self.n}), so these "
            "images probably reach the network in another form than the ID images. To change "
            f"them: {self.fix}"
        )


class ExampleToLabel(Record):
    """An unlabeled example that was drawn for labeling."""

    index: NonNegativeInt
    """Position in the user's data."""
    path: str = ""
    """Path of the file, relative to the folder of the set if it has one; empty without a file."""
    predicted: str


class UnlabeledScores(Record):
    """What was measured on a data set without labels."""

    name: str
    count: PositiveInt
    estimates: tuple[AccuracyEstimate, ...] = ()
    """Estimated accuracy by each method."""
    checks: tuple[AccuracyEstimate, ...] = ()
    """The same estimates on labeled data, with the true accuracies: the half of the ID set that
    they were not fitted to, and each labeled OOD set."""
    confidence: Interval | None = None
    """Mean confidence, the largest softmax probability."""
    id_confidence: Interval | None = None
    """The same on the ID set."""
    domain_auc: Interval | None = None
    """Area under the ROC curve of a classifier that tells this set's features from those of the ID
    set, judged on examples that it was not fitted to; 0.5 if they are alike."""
    pixels: tuple[PixelDifference, ...] = ()
    variant: VariantConfidence | None = None
    with_labels: Interval
    """The interval that the accuracy would have with the labels of `to_label` if it is as estimated
    (by the first method; 0.5 without an estimate)."""
    widest: Interval
    """The widest such interval, around an accuracy of 0.5."""
    to_label: tuple[ExampleToLabel, ...] = ()
    """Examples to label first, in random order. Each predicted class has its share of the set, and
    all examples had the same chance, so the plain accuracy on them is unbiased."""

    @property
    def labels_would_show(self) -> str:
        """How well labels of `to_label` measure the accuracy, as the end of a sentence."""
        assert self.widest.low is not None and self.widest.high is not None
        points = 50 * (self.widest.high - self.widest.low)
        return f"measure its accuracy to within {points:.0f} percentage points"


class Verdict(Record):
    """The cause of the largest share of the lost accuracy, the reasons, and side findings."""

    cause: str
    """Name of a cause in `contam.auditing.causes.CAUSES`, `healthy`, `unexplained shift` or
    `undecided`."""
    heading: str
    """The verdict in a few words."""
    sentence: str
    reasons: tuple[str, ...]
    """The most important first."""
    steps: tuple[Step, ...]
    behind: tuple[str, ...] = ()
    """Further causes with a smaller share of the loss, the largest first."""
    findings: tuple[str, ...] = ()
    """What was found beside the cause and does not explain the loss, one sentence each."""
    missing: tuple[str, ...] = ()
    """Evidence to provide for the questions that are open."""
    remedies: tuple[Remedy, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether no failure was found."""
        return self.cause == "healthy"


class AuditRecord(Record):
    """All results of an audit."""

    format: int = FORMAT
    contam: str
    """Version of contam."""
    model: str
    classes: tuple[str, ...]
    verdict: Verdict
    ledgers: tuple[Ledger, ...] = ()
    """One for each OOD set that loses accuracy, the largest loss first."""
    sets: tuple[SetScores, ...]
    """The ID set first."""
    unlabeled: tuple[UnlabeledScores, ...] = ()
    """The data sets without labels."""
    evidence: tuple[CauseEvidence, ...] = ()
    """One record for each cause that was measured, in the order of the questions."""
    layers: tuple[LayerRecord, ...] = ()
    neurons: NeuronTable | None = None
    projection: Projection | None = None
    examples: tuple[Example, ...] = ()
    helps: tuple[MeasuredRemedy, ...] = ()
    """Repairs with their measured effects, those with the largest gain first in each OOD set."""
    left_out: tuple[str, ...] = ()
    """What was not measured and why, one sentence each."""
    provenance: dict[str, str] = {}
    """Versions, seed, hardware, seconds, and where model and data came from."""
