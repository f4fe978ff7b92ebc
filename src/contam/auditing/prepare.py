"""A network and its data, whatever they came as, made the `Subject` of an audit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from contam.auditing.annotations import with_backgrounds, with_masks
from contam.auditing.audit_inputs import AuditInputs, Sample
from contam.batch import Batch, Domain, Shift
from contam.inputs.forms import Options, named_sets, read_raw
from contam.inputs.labels import class_names, labeled, origins, shared_pixel_range
from contam.inputs.pixel_range import PixelRange, Transform, pixel_range_of
from contam.inputs.tables import RawSet
from contam.models.find_network import FoundNetwork, find_network
from contam.models.hooks import forward_once
from contam.models.logits_adapter import LogitsAdapter, PixelEncoder
from contam.models.observe import find_layers
from contam.models.preparation import Preparation
from contam.models.sources import load
from contam.models.untrained import untrained
from contam.rng import generator_for
from contam.training.probe import fit_probe

AT_HAND = ("resnet50", "resnet18")
"""torchvision's networks that serve as a reference when their weights lie in torch's cache."""
SMALL_INPUT = 3 * 64 * 64
"""Numbers of an input up to which it is small."""
SMALL, LARGE = 256, 64
"""How many small inputs go through the network at a time, and how many large ones."""


@dataclass(frozen=True)
class Prepared:
    """What is audited, and where it came from."""

    subject: AuditInputs
    preparation_notes: tuple[str, ...]
    provenance: dict[str, str]

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, in sentences; complete once all examples were shown."""
        sets = (self.subject.id, *self.subject.ood)
        return tuple(
            dict.fromkeys([*self.preparation_notes, *(note for s in sets for note in s.notes)])
        )


def prepare(
    model: Any,
    *,
    id: Any,
    ood: Any = None,
    layers: str | Sequence[str] = "auto",
    background: Any = None,
    masks: Any = None,
    budget: int | None = None,
    reference: Any = "auto",
    control: Any = True,
    weights: str | Path | None = None,
    transform: Transform | None = None,
    classes: Sequence[str] | None = None,
    keys: Mapping[str, str] | None = None,
    device: str | torch.device | None = None,
    seed: int = 0,
) -> Prepared:
    """Read the data, try the network on them, and put both into one form.

    `model` may be a network that `find_network` has found.

    Raises:
        ValueError: something does not fit; in one line with what to try.
    """
    if budget is not None and (isinstance(budget, bool) or budget < 1):
        raise ValueError(f"budget is the maximum number of examples per set; got {budget}")
    found = model
    if model is not None and not isinstance(model, FoundNetwork):
        found = find_network(model, weights, transform)
    if found is not None and device is not None:
        if isinstance(model, nn.Module):
            raise ValueError("device= is for models by name; move yours with model.to(...)")
        found.model.to(_device(device))
    if classes is None and isinstance(id, Shift):
        classes = id.classes
    options = Options(
        found.transform if found is not None else transform,
        None if classes is None else tuple(map(str, classes)), keys or {}, budget, seed,
    )  # fmt: skip
    tables = _tables(id, ood, options)
    span = shared_pixel_range(tables)
    notes: list[str] = []
    samples = _samples(tables, span)
    if found is None:
        network, samples, tables = _from_features(tables, samples, classes, seed, notes)
        name = "a linear head on given features"
    else:
        network = LogitsAdapter(found.model, None if span is None or span.is_unit else span)
        name = found.name
    with torch.no_grad():
        x = next(samples[0].domain.batches(2)).x.to(_place(network))
        logits, _ = _tried(network, x)
    names = class_names(tables, classes, logits.shape[1])
    marked = [
        replace(
            sample,
            domain=_relabeled(sample.domain, labeled(table, names, renamed=classes is not None)),
        )
        for sample, table in zip(samples, tables, strict=True)
    ]
    chosen = _by_set(masks, tables, "masks")
    marked = [with_masks(s, t, chosen.get(t.name)) for s, t in zip(marked, tables, strict=True)]
    marked = with_backgrounds(marked, tables, _by_set(background, tables, "background"))
    observed = find_layers(network, x, layers)
    if not observed:
        notes.append("No layer was looked at: the network has neither activations nor weights.")
    plain, said = _control(control, network, seed)
    if found is None:
        plain, said = None, "No control by an untrained network: there are only features."
    notes += [said] if said else []
    encoder, encoder_name, said = _reference(reference, x, span, _place(network))
    notes += [said] if said else []
    _, domains = origins(tables)
    subject = AuditInputs(
        name, network, tuple(names), marked[0], tuple(marked[1:]), observed, encoder, encoder_name,
        plain, seed, domains, SMALL if x[0].numel() <= SMALL_INPUT else LARGE,
    )  # fmt: skip
    told = {"model": name, "id": _told(tables[0])}
    told |= {f"ood: {table.name}": _told(table) for table in tables[1:]}
    told |= {"weights": Path(weights).name} if weights is not None else {}
    return Prepared(subject, tuple(dict.fromkeys(notes)), told)


def _tables(id: Any, ood: Any, options: Options) -> list[RawSet]:
    """The ID set and the OOD sets, under names of their own."""
    pairs = named_sets(ood)
    if isinstance(id, Shift):
        pairs = named_sets(id) + pairs
    tables = [read_raw(None, id, "ID", options)]
    taken = {tables[0].name}
    if tables[0].classes is not None and options.classes is None and tables[0].root is not None:
        options = replace(options, classes=tables[0].classes)
    for place, (name, data) in enumerate(pairs, start=1):
        role = "OOD" if len(pairs) == 1 else f"OOD {place}"
        table = read_raw(name, data, role, options)
        if table.name in taken:
            plain = f"{role}: {table.name}"
            table = replace(table, name=plain if plain not in taken else f"{plain} ({place})")
        taken.add(table.name)
        tables.append(table)
    first = tables[0]
    for table in tables[1:]:
        if table.shape != first.shape:
            raise ValueError(
                f"inputs of {table.name!r} have the shape {table.shape}, those of {first.name!r} "
                f"{first.shape}; want one shape, so resize them in the transform"
            )
    return tables


def _samples(tables: Sequence[RawSet], span: PixelRange | None) -> list[Sample]:
    """The sets as samples whose labels are not looked at yet."""
    places, _ = origins(tables)
    shown = None if span is None or span.is_unit else span
    return [
        Sample(
            table.name,
            table.make_domain(torch.zeros(len(table)).long(), place.long(), shown),
            read_notes=(*table.notes, *([table.budget_note] if table.budget_note else [])),
        )
        for table, place in zip(tables, places, strict=True)
    ]


def _relabeled(domain: Domain, y: Tensor) -> Domain:
    """The same examples with these labels."""
    if type(domain) is Domain:
        return Domain(domain.name, domain.data._replace(y=y))
    vars(domain).update(labels=y)
    return domain


def _place(network: nn.Module) -> torch.device:
    return next((value.device for value in network.parameters()), torch.device("cpu"))


def _device(name: str | torch.device) -> torch.device:
    try:
        found = torch.device(name)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError) as error:
        told = str(error).splitlines()[0]
        raise ValueError(
            f"no device {str(name)!r} here ({told}); leave it out, or say cpu"
        ) from None
    return found


def _tried(network: nn.Module, x: Tensor) -> tuple[Tensor, Any]:
    """What the network returns for two examples."""
    try:
        return forward_once(network, x, (), "moments")
    except torch.OutOfMemoryError:
        raise ValueError("memory runs out on two examples; use a machine with more") from None


def _control(control: Any, network: LogitsAdapter, seed: int) -> tuple[nn.Module | None, str]:
    """The same network with drawn weights, and what has to be said about it."""
    if isinstance(control, nn.Module):
        return LogitsAdapter(control, network.pixel_range), ""
    if control is not True:
        return None, "No control by an untrained network: none was wanted."
    return untrained(network, seed)


def _reference(
    reference: Any, x: Float[Tensor, "two ..."], span: PixelRange | None, device: torch.device
) -> tuple[nn.Module | None, str, str]:
    """A reference encoder of the pictures that the network sees, its name, or why there is none."""
    if reference is None:
        return None, "", "No reference encoder: none was wanted."
    if isinstance(reference, nn.Module):
        plain = None if span is None or span.is_unit else span
        return PixelEncoder(reference, plain, None).eval(), type(reference).__name__, ""
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        return None, "", "No reference encoder: the inputs are no pictures."
    if isinstance(reference, tuple):
        source = load(reference[0], weights=reference[1])
    elif reference != "auto":
        source = load(str(reference), seed=None)
    else:
        place = _cached()
        if place is None:
            return (
                None,
                "",
                (
                    "No reference encoder, so missing information is judged by the network's own "
                    "features; give one as reference=, such as "
                    "('torchvision:resnet50', 'weights.pth')."
                ),
            )
        source = load(place[0], weights=place[1])
    side = source.transform.crop if isinstance(source.transform, Preparation) else None
    encoder = PixelEncoder(source.encoder, pixel_range_of(source.transform), side).eval().to(device)
    return encoder, source.name, ""


def _cached() -> tuple[str, Path] | None:
    """Weights of a pretrained network in torch's own cache."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    for name in AT_HAND:
        files = sorted(folder.glob(f"{name}-*.pth")) if folder.is_dir() else []
        if files:
            return f"torchvision:{name}", files[-1]
    return None


def _by_set(given: Any, tables: Sequence[RawSet], what: str) -> dict[str, Any]:
    """Something for each set by name; what comes alone belongs to the ID set."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        return {tables[0].name: given}
    names = [table.name for table in tables]
    named = {tables[0].name if name == "id" else name: value for name, value in given.items()}
    strange = sorted(set(map(str, named)) - set(names))
    if strange:
        raise ValueError(f"{what} for {strange[0]!r}, which is none of the sets {names}")
    return named


def _from_features(
    tables: list[RawSet], samples: list[Sample], classes: Sequence[str] | None, seed: int,
    notes: list[str],
) -> tuple[LogitsAdapter, list[Sample], list[RawSet]]:  # fmt: skip
    """A linear head fitted on half of the ID features; the other half is what is audited."""
    first = tables[0]
    if len(first.shape) != 1:
        raise ValueError(
            f"without a network, inputs are features (n, width), not of shape {first.shape}; give "
            "the network, or features"
        )
    count = len(classes or first.classes or ()) or None
    if count is None:
        count = int(first.y.max()) + 1 if isinstance(first.y, Tensor) else len(set(first.y))
    names = class_names(tables, classes, count)
    y = labeled(first, names)
    # Classes in turn, so that both halves have as many of each as can be.
    order = torch.randperm(len(y), generator=generator_for(seed, "audit/half for the head"))
    order = order[y[order].argsort(stable=True)]
    fitted, judged = order[::2].sort().values, order[1::2].sort().values
    if len(set(y[fitted].tolist())) < 2 or not len(judged):
        raise ValueError(
            f"{first.name!r} has {len(y)} examples of features, too few to fit a head to one half; "
            "bring more, or give the network"
        )
    data = samples[0].domain.data
    probe = fit_probe(data.x[fitted], y[fitted], classes=count)
    head = nn.Linear(data.x.shape[1], count)
    weight = probe.weight / probe.scale
    head.weight = nn.Parameter(weight, requires_grad=False)
    head.bias = nn.Parameter(probe.bias - weight @ probe.mean, requires_grad=False)
    network = nn.Sequential()
    network.add_module("features", nn.Identity())
    network.add_module("head", head)
    half = replace(
        first, y=y[judged], numbers=first.numbers[judged], classes=None,
        origin=None if first.origin is None else _at(first.origin, judged),
        background=None if first.background is None else _at(first.background, judged),
    )  # fmt: skip
    domain = Domain(first.name, Batch(*(part[judged] for part in data)))
    notes.append(
        f"There is no network, only features: a linear head was fitted on {len(fitted)} examples "
        f"of {first.name!r}, and the other {len(judged)} are what is judged."
    )
    return (
        LogitsAdapter(network.eval()),
        [replace(samples[0], domain=domain), *samples[1:]],
        [half, *tables[1:]],
    )


def _at(column: Any, which: Tensor) -> Any:
    return column[which] if isinstance(column, Tensor) else [column[i] for i in which.tolist()]


def _told(table: RawSet) -> str:
    """Where a set came from, in words."""
    place = f" from {table.root.name}" if table.root is not None else ""
    return f"{len(table)} examples{place}"
