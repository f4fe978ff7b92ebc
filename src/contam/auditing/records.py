"""What an audit finds, as frozen records: the verdict, the page and the files are made from these.

They are JSON as they stand; `AuditRecord.model_json_schema()` is the published schema. Accuracies
are shares in [0, 1]. A number that could not be had is absent, and `left_out` says why.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt

FORMAT = 1

Cause = Literal[
    "healthy",
    "undertrained",
    "spurious correlation",
    "core information missing",
    "head",
    "contaminated",
    "undecided",
]
"""The verdicts; `contaminated` is the residual: the representation fails on new backgrounds, and it
is neither a spurious correlation, nor missing information, nor the head."""


class Record(BaseModel):
    """A part of what an audit finds."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Interval(Record):
    """A number with both ends of its 95 % interval; ends that are absent are not known."""

    value: float
    low: float | None = None
    high: float | None = None


class Score(Record):
    """How many of how many examples were right."""

    correct: NonNegativeInt
    count: PositiveInt
    accuracy: Interval


class SetScores(Record):
    """How the network does on one data set, in parts."""

    name: str
    role: Literal["id", "ood"]
    overall: Score
    by_class: dict[str, Score]
    by_domain: dict[str, Score] = {}
    worst_domain: str | None = None
    effective_robustness: Interval | None = None
    """Points above the line of standard models."""


class LayerRecord(Record):
    """One layer. Keys of the tables are names of data sets; `untrained` is the control."""

    name: str
    neurons: PositiveInt
    selectivity: dict[str, float] = {}
    """Mean over neurons (Eq. 61), of what is positive in the class means."""
    asymmetry: dict[str, float] = {}
    """Mean over neurons of the largest minus the mean activation rate of a class."""
    rate: dict[str, float] = {}
    """Share of positive activations."""
    class_rates: dict[str, tuple[float | None, ...]] = {}
    """The same for each class, in their order; absent for more than 100 classes."""
    density: dict[str, float] = {}
    """Mean activation, in the network's units."""
    attenuation: dict[str, Interval] = {}
    """Share of the ID class profile that is lost on each OOD set."""
    across_domains: Interval | None = None
    """The same from one ID domain to the others, the mean over domains."""
    counterfactual: dict[str, Interval] = {}
    """The same under changes of the ID images' backgrounds, by change and strength."""
    untrained_attenuation: dict[str, Interval] = {}
    """The control of the three above: the same network with drawn weights, by the same keys.

    `across domains` is the key of the second; of changes, those of full strength are there."""
    probe: dict[str, Interval] = {}
    """Accuracy of a linear probe of this layer that was fitted on ID data."""
    decided: dict[str, float] = {}
    """Share of examples whose prediction is decided by this layer (prediction depth)."""
    information: dict[str, Interval] = {}
    """Usable information about the label, in bits."""
    domain_error: Interval | None = None
    """Error of a linear reader of the domain; guessing the most frequent domain gives
    `domain_chance`."""
    untrained_domain_error: Interval | None = None
    domain_chance: float | None = None


class NeuronTable(Record):
    """Neurons as columns of equal length, the most coupled first within what is kept."""

    layer: tuple[str, ...]
    index: tuple[int, ...]
    favorite: tuple[str, ...]
    """The class of the highest ID mean."""
    selectivity_id: tuple[float, ...]
    selectivity_ood: tuple[float | None, ...]
    rate_id: tuple[float, ...]
    rate_ood: tuple[float | None, ...]
    attenuation: tuple[float | None, ...]
    """ID to OOD (or counterfactual where there is no OOD set); absent for silent neurons, and for
    those whose ID class means differ by little more than noise."""
    total: NonNegativeInt
    """How many neurons there are; the table may hold fewer."""


class Plane(Record):
    """Examples in the two directions in which a layer varies most, as columns of equal length."""

    layer: str
    shares: tuple[float, float]
    """Of the layer's variance that each axis shows."""
    x: tuple[float, ...]
    y: tuple[float, ...]
    data: tuple[str, ...]
    """Name of the data set."""
    domain: tuple[str, ...]
    label: tuple[str, ...]


class HeadRecord(Record):
    """The network's own head beside a fresh one on the same features, fitted on ID data."""

    own: dict[str, Interval]
    fresh: dict[str, Interval]
    gain: dict[str, Interval]
    """Fresh minus own accuracy on the same examples, by data set."""
    p_value: dict[str, float]
    """Of the paired test (McNemar) that there is no gain."""


class OracleRecord(Record):
    """A linear probe fitted on half of an OOD set and read on the other half."""

    encoder: str
    """`own`, or the name of the reference encoder."""
    accuracy: dict[str, Interval]


class BackgroundOnly(Record):
    """What the network answers when the object is not there."""

    made_from: Literal["masks", "inpainted", "border", "labels"]
    accuracy: Interval
    chance: float


class BackgroundLabel(Record):
    """Whether backgrounds go with labels in the ID data."""

    known_from: Literal["labels", "border"]
    """Declared background labels, or color and spread of the border pixels."""
    bits: Interval
    p_value: float
    """By permutation."""


class Example(Record):
    """A picture that shows something; pictures are WebP in base64."""

    data: str
    """Name of the data set."""
    index: NonNegativeInt
    label: str
    predicted: str
    picture: str
    heat: str | None = None
    """The same picture under its heat map."""
    heat_on_object: float | None = None
    heat_share: float | None = None
    group: str = ""
    """Examples of one group are shown beside each other."""
    note: str = ""


class Step(Record):
    """One question of the decision table, and how it was answered."""

    question: str
    evidence: str
    """What was measured, in words."""
    found: Interval | None
    threshold: float
    answer: Literal["yes", "no", "undecided", "not asked"]
    leads_to: Cause
    why: str
    """The sentence for people, with the numbers."""


class Remedy(Record):
    """What to try, with the effect that was measured on the embedded benchmark."""

    what: str
    effect: str
    caveat: str


class Verdict(Record):
    """The cause that comes first, why, and what else may stand behind it."""

    cause: Cause
    sentence: str
    reasons: tuple[str, ...]
    """The strongest first."""
    steps: tuple[Step, ...]
    behind: tuple[Cause, ...] = ()
    """Causes that the rule finds when it is asked again behind the first one, in order."""
    missing: tuple[str, ...] = ()
    """What evidence was absent, and what to bring."""
    remedies: tuple[Remedy, ...] = ()


class AuditRecord(Record):
    """Everything that an audit found."""

    format: int = FORMAT
    contam: str
    """Version."""
    model: str
    classes: tuple[str, ...]
    verdict: Verdict
    sets: tuple[SetScores, ...]
    layers: tuple[LayerRecord, ...] = ()
    neurons: NeuronTable | None = None
    plane: Plane | None = None
    head: HeadRecord | None = None
    oracles: tuple[OracleRecord, ...] = ()
    background_only: BackgroundOnly | None = None
    background_label: BackgroundLabel | None = None
    examples: tuple[Example, ...] = ()
    left_out: tuple[str, ...] = ()
    """What was not measured, and why, a sentence each."""
    provenance: dict[str, str] = {}
    """Versions, seed, hardware, seconds, where model and data came from."""
