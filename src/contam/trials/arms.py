"""One arm of a trial: a network that is trained, tested and audited for one seed."""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from contam.auditing.api import audit
from contam.auditing.records import AuditRecord
from contam.batch import Domain
from contam.experiment import Stage
from contam.models.find_network import FoundNetwork
from contam.models.preserve import evaluating
from contam.run import Run
from contam.training.changed_loss import changed_risk
from contam.training.changes import TrainingChange, balanced_recipe
from contam.training.checkpointed import checkpointed
from contam.training.minibatches import TrainingExamples
from contam.training.optimize import Recipe, TrainingState, optimize
from contam.trials.data import TrialData
from contam.trials.networks import InitialNetwork

BASELINE = "baseline"
"""Name of the arm without a change."""
REPORTS = 40
"""Reports of a training, about."""
BATCH = 64
"""Test examples in a forward pass."""
TRAINED = 0.75
"""Share of the work of an arm after its training."""


def part_of(arm: str, seed: int) -> str:
    """Return the end of the names of an arm's parts in the run of a trial.

    Args:
        arm: name of the arm.
        seed: its seed.

    >>> part_of("instance norm", 2)
    'seed2/instance_norm'
    """
    return f"seed{seed}/{arm.replace(' ', '_')}"


@dataclass(frozen=True, eq=False)
class Arm:
    """A training with one change, or with none, for one seed."""

    change: TrainingChange | None
    seed: int

    @property
    def name(self) -> str:
        """The name in tables."""
        return BASELINE if self.change is None else self.change.name

    @property
    def part(self) -> str:
        """The end of the names of its parts in the run."""
        return part_of(self.name, self.seed)

    def network(self, initial: InitialNetwork, classes: int) -> nn.Module:
        """Build the network with its initial weights, which all arms of a seed share."""
        model = initial.make(classes, self.seed)
        return model if self.change is None else self.change.network(model)


@dataclass(frozen=True, eq=False)
class ArmInputs:
    """What all arms of a trial share."""

    initial: InitialNetwork
    data: TrialData
    masks: Float[Tensor, "n 1 height width"] | None
    """Masks of all training images."""
    recipe: Recipe
    audited: Callable[..., Any]
    """`audit` with the data of the trial."""
    audits: str
    """Kind of the audits, for the names of parts."""
    device: torch.device


def compute_arm(store: Run, arm: Arm, inputs: ArmInputs) -> Generator[Stage, None, None]:
    """Train, test and audit one arm; parts that the run has are not computed again.

    Args:
        store: the run of the trial.
        arm: the arm.
        inputs: what all arms share.

    Yields:
        Progress of this arm.
    """
    doing = f"seed {arm.seed}, {arm.name}"
    yield Stage(0.0, doing)
    if not store.has(f"train/{arm.part}"):
        yield from _train(store, arm, inputs, doing)
    answers, audited = f"answers/{arm.part}", f"{inputs.audits}/{arm.part}"
    if store.has(answers) and store.has(audited):
        return
    model = arm.network(inputs.initial, len(inputs.data.classes))
    model.load_state_dict(store.arrays(f"train/{arm.part}"))
    model.to(inputs.device).eval()
    if not store.has(answers):
        yield Stage(TRAINED, f"{doing}: tests")
        tests = inputs.data.tests.items()
        correct = {name: answered_correctly(model, domain) for name, domain in tests}
        rows = [
            {"arm": arm.name, "seed": arm.seed, "set": name, "role": "ood" if place else "id",
             "n": len(right), "accuracy": float(right.double().mean())}
            for place, (name, right) in enumerate(correct.items())
        ]  # fmt: skip
        store.write(answers, rows, {name: right.byte() for name, right in correct.items()})
    yield Stage(0.9, f"{doing}: audit")
    if not store.has(audited):
        title = f"{inputs.initial.name}, {arm.name}, seed {arm.seed}"
        network = FoundNetwork(title, model, inputs.data.transform)
        try:
            audit = inputs.audited(network, name=title)
        except ValueError as error:
            rows = [{"arm": arm.name, "seed": arm.seed, "left_out": str(error)}]
            store.write(audited, rows)
            return
        folder = store.folder / "audits" / arm.part
        audit.save(folder)
        audit.report(folder / "audit.html")
        store.write(audited, _ledger(arm, audit.evidence))


def _train(
    store: Run, arm: Arm, inputs: ArmInputs, doing: str
) -> Generator[Stage, None, None]:  # fmt: skip
    model = arm.network(inputs.initial, len(inputs.data.classes)).to(inputs.device)
    wrap = None if arm.change is None else arm.change.wrap
    learner = model if wrap is None else wrap(model).to(inputs.device)
    examples, recipe = TrainingExamples(inputs.data.train), inputs.recipe
    if arm.change is not None and arm.change.balances_domains:
        groups = inputs.data.domain
        examples = TrainingExamples(inputs.data.train, groups)
        recipe = balanced_recipe(recipe, examples=len(examples), domains=len(groups.unique()))
    steps = recipe.length(len(examples))
    every = max(1, steps // REPORTS)
    # Every arm has the purpose "trial", so all of a seed see the same images in the same order.
    loss = changed_risk(
        learner, arm.change, masks=inputs.masks, pixels=inputs.data.pixel_range, purpose="trial",
        seed=arm.seed,
    )  # fmt: skip
    training = partial(
        optimize, learner, examples, loss, recipe, purpose="trial", seed=arm.seed,
        report_every=every,
    )  # fmt: skip

    def measure(state: TrainingState) -> list[dict[str, Any]]:
        return [{"step": state.step, "loss": state.losses["risk"]}]

    work = checkpointed(store, f"train/{arm.part}", training, measure=measure)
    # Processor time does not depend on what else runs; work on other devices has only wall time.
    clock = time.process_time if inputs.device.type == "cpu" else time.monotonic
    # From the first report on, since the first steps also load libraries.
    times, shares = [clock()], []
    while True:
        try:
            done = next(work)
        except StopIteration as end:
            _, records = end.value
            break
        times.append(clock())
        shares += [done] if shares else [max(0.0, done - every / steps), done]
        yield Stage(TRAINED * done, doing)
    first = 1 if len(times) > 2 else 0
    seconds = (times[-1] - times[first]) / (shares[-1] - shares[first])
    result = model if wrap is None else learner.network
    assert isinstance(result, nn.Module)
    cost = {"arm": arm.name, "seed": arm.seed, "seconds": seconds, "steps": steps}
    store.write(f"cost/{arm.part}", [cost])
    store.write(f"train/{arm.part}", records, result.state_dict())


def answered_correctly(model: nn.Module, domain: Domain) -> Bool[Tensor, " n"]:
    """Return which examples of a domain a network classifies correctly, in their order.

    Args:
        model: the network.
        domain: the examples.

    Source: ours, answers of each example, for paired comparisons of arms.

    >>> from contam.batch import Batch
    >>> domain = Domain("data", Batch(torch.eye(2), torch.tensor([0, 0]), torch.zeros(2).long()))
    >>> answered_correctly(nn.Identity(), domain).tolist()
    [True, False]
    """
    place = next((p.device for p in model.parameters()), torch.device("cpu"))
    with evaluating(model):
        right = [
            model(batch.x.to(place)).argmax(1).cpu() == batch.y for batch in domain.batches(BATCH)
        ]
    return torch.cat(right)


def _ledger(arm: Arm, record: AuditRecord) -> list[dict[str, Any]]:
    """The verdict and the entries of all ledgers as rows."""
    one = {"arm": arm.name, "seed": arm.seed}
    rows: list[dict[str, Any]] = [{**one, "verdict": record.verdict.cause}]
    for ledger in record.ledgers:
        rows += [
            {**one, "set": ledger.on, "cause": entry.cause, "what": entry.what,
             "points": entry.points.value}
            for entry in ledger.entries
        ]  # fmt: skip
    return rows


def audit_of(id: Any, ood: Any, *, classes: tuple[str, ...], quick: bool, seed: int) -> Any:
    """Return `audit` with the test data of a trial.

    Args:
        id: ID test data.
        ood: OOD test data by name.
        classes: names of the classes in the order of the logits.
        quick: whether the audits leave out everything but the pass over the data.
        seed: random seed of the audits.

    Returns:
        A function from a network, and the other arguments of `audit`, to an `Audit`.

    Source: ours, an audit of each arm, so that a remedy's effect on each cause is known.

    >>> y = torch.arange(40) % 2
    >>> data = torch.eye(2)[y], y
    >>> audited = audit_of(data, {"beach": data}, classes=("cow", "camel"), quick=True, seed=0)
    >>> audited(nn.Identity(), name="identity").verdict.cause
    'healthy'
    """
    return partial(
        audit, id=id, ood=ood, classes=classes, quick=quick, untrained=not quick,
        reference=None if quick else "auto", remedies=False, progress=False, seed=seed,
    )  # fmt: skip
