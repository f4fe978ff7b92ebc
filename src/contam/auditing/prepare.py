"""Convert a network and data of any accepted form to `AuditInputs`."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from contam.auditing.annotations import with_backgrounds, with_masks
from contam.auditing.audit_inputs import AuditInputs
from contam.auditing.head_probes import probe_recipe
from contam.auditing.logit_columns import Columns, Labels, find_labels
from contam.batch import Batch, Domain, Shift
from contam.data.image_tree import ImageTree
from contam.inputs.duplicates import duplicate_notes
from contam.inputs.forms import Options, check_used, named_sets, read_raw, tree_of
from contam.inputs.image_sizes import one_size
from contam.inputs.input_set import InputSet
from contam.inputs.labels import (
    class_names,
    column_title,
    group_columns,
    labeled,
    origins,
    shared_pixel_range,
)
from contam.inputs.parts import pick
from contam.inputs.pixel_range import PixelRange, Transform, pixel_range_of
from contam.inputs.table_files import table_of
from contam.inputs.tables import RawSet
from contam.inputs.unlabeled import lacks_labels, unlabeled_sets
from contam.models import efficientnet_lite
from contam.models.black_box import NOTE, BlackBox
from contam.models.find_network import FoundNetwork, find_network
from contam.models.hooks import forward_once
from contam.models.logits_adapter import LogitsAdapter, PixelEncoder
from contam.models.observe import FoundLayers, find_layers
from contam.models.preparation import Preparation
from contam.models.sources import load
from contam.models.untrained import untrained
from contam.rng import generator_for
from contam.text_files import printable
from contam.training.probe import FullBatch, fit_probe

LOWEST_BIAS = -1e4
"""Bias of a class without examples in a head that is fitted to features."""
CACHED_REFERENCES = ("resnet50", "resnet18")
"""Torchvision networks used as the reference if the torch cache has their weights."""
SMALL_INPUT = 3 * 64 * 64
"""Largest number of values of a small input."""
REFERENCE_AT_ONCE = 10
"""Pictures that a reference encoder on a CPU takes at once."""
SIDE_OF_SMALL = 128
"""Side of small images for EfficientNet-Lite0. Enlarged from 32 pixels, they are classified as well
from its features as at 224 pixels, at a third of the cost."""
NamedData = tuple[str | None, str, Any]
"""Name, role and content of a data set."""
BATCH_OF_SMALL, BATCH_OF_LARGE, BATCH_ON_CPU = 256, 64, 16
"""Batch sizes for small inputs, and for large ones on a GPU and on a CPU. The maps of a few images
stay in a CPU's cache: ResNet-50 takes 0.8 of the time, EfficientNet-B0 0.6."""


@dataclass(frozen=True)
class Prepared:
    """The inputs of an audit, and their origin."""

    inputs: AuditInputs
    preparation_notes: tuple[str, ...]
    provenance: dict[str, str]

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about what was left out; complete after the first pass over all examples."""
        own, others = self.inputs.id, self.inputs.ood
        notes = [note for some in (own, *others) for note in some.notes]
        first = own.fingerprints if others else None
        notes += [note for some in self.inputs.unlabeled for note in some.notes]
        for other in others:
            second = None if first is None else other.fingerprints
            if first is not None and second is not None:
                notes += duplicate_notes(
                    (own.name, first, own.domain.y.cpu()),
                    (other.name, second, other.domain.y.cpu()),
                )
        return tuple(dict.fromkeys(map(printable, [*self.preparation_notes, *notes])))


def prepare(
    model: Any,
    *,
    id: Any,
    ood: Any = None,
    unlabeled: Any = None,
    layers: str | Sequence[str] = "auto",
    background: Any = None,
    masks: Any = None,
    budget: int | None = None,
    reference: Any = "auto",
    control: Any = True,
    weights: str | Path | None = None,
    transform: Transform | None = None,
    classes: Sequence[str] | None = None,
    columns: Columns | None = None,
    keys: Mapping[str, str] | None = None,
    domain: str | int | None = None,
    device: str | torch.device | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    seed: int = 0,
) -> Prepared:
    """Read the data, run the network on two examples, and check that network and data match.

    Args:
        model: a module, a name, a `FoundNetwork`, or None if the data are features.
        id: the ID data.
        ood: the OOD data: one set, a list of sets, or a dict by name.
        unlabeled: data without labels, in the same forms.
        layers: names of layers, or `auto`.
        background: background labels of the ID set, or a dict of labels by set.
        masks: object masks of the ID set or a folder of them, or a dict of these by set.
        budget: maximum number of examples per set.
        reference: an encoder by name, `(name, weights)` or module; `auto` takes the encoder of the
            extra `reference`, or else a network in the torch cache.
        control: the untrained control: True makes one, whose batch norms are calibrated, a module
            is used as it is, and there is no control otherwise.
        weights: file with the weights of a model given by name.
        transform: function from an image to the network's input.
        classes: names of the classes in the order of the logits.
        columns: the logits to compare, see `find_labels`.
        keys: names of the parts of dicts.
        domain: name or number of the metadata column that is the domain.
        device: device of a model given by name.
        batch_size: number of examples in a forward pass.
        workers: number of threads that decode image files, or of processes that read a dataset.
        seed: random seed of every draw.

    Returns:
        The inputs of the audit with notes and provenance.

    Raises:
        ValueError: an argument is invalid, or network and data do not match; the message suggests a
            fix in one line.

    >>> x, y = torch.rand(12, 5), torch.arange(12) % 3
    >>> prepared = prepare(nn.Linear(5, 3), id=(x, y), control=False)
    >>> prepared.inputs.classes, prepared.provenance["id"]
    (('0', '1', '2'), '12 examples')
    """
    _check_counts(budget, batch_size, workers)
    resolved = model
    if model is not None and not isinstance(model, FoundNetwork):
        resolved = find_network(model, weights, transform)
    if resolved is not None and device is not None:
        if isinstance(model, nn.Module):
            raise ValueError("device= is for models by name; move yours with model.to(...)")
        resolved.model.to(_device(device))
    if classes is None and isinstance(id, Shift):
        classes = id.classes
    options = Options(
        resolved.transform if resolved is not None else transform,
        None if classes is None else tuple(map(str, classes)), keys or {}, budget, seed,
        domain=domain, natural=resolved is not None and _is_of_timm(resolved),
        outputs=None if resolved is None or columns else _outputs(resolved.model),
        workers=workers,
    )  # fmt: skip
    without = unlabeled_sets(unlabeled, keys)
    check_used([id, *(data for _, data in [*named_sets(ood), *without])], transform, keys, domain)
    every = _tables(id, ood, without, options)
    pixel_range = _pixel_range(every)
    notes = [] if resolved is None else list(resolved.notes)
    count = len(every) - len(without)
    samples = _samples(every, pixel_range)
    tables, samples, unlabeled_samples = every[:count], samples[:count], samples[count:]
    if resolved is None:
        network, samples, tables = _from_features(tables, samples, classes, seed, notes)
        name = "a linear head on given features"
    else:
        network = LogitsAdapter(resolved.model, pixel_range, labels=_label_count(tables, classes))
        name = resolved.name
    with torch.no_grad():
        x = next(samples[0].domain.batches(2)).x.to(_device_of(network))
        width = _first_logits(network, x).shape[1]
    labels = find_labels(tables, classes, width, columns)
    notes += [*network.notes, *labels.notes]
    if labels.columns is not None:
        network.classes = torch.tensor(labels.columns)
    samples = [
        replace(sample, domain=_relabeled(sample.domain, y))
        for sample, y in zip(samples, labels.y, strict=True)
    ]
    chosen = _by_set(masks, tables, "masks")
    samples = [with_masks(s, t, chosen.get(t.name)) for s, t in zip(samples, tables, strict=True)]
    samples = with_backgrounds(samples, tables, _by_set(background, tables, "background"))
    samples = _of_classes(samples, labels)
    observed, missing = _observed(network, x[:1], layers)
    notes += missing
    random, note = _control(control, network, seed)
    if resolved is None:
        random, note = None, "No control by an untrained network: there are only features."
    notes += [note] if note else []
    encoder, encoder_name, note = _reference(reference, x, pixel_range, _device_of(network))
    notes += [note] if note else []
    _, domains = origins(tables)
    inputs = AuditInputs(
        printable(name), network, tuple(map(printable, labels.names)),
        samples[0], tuple(samples[1:]), observed,
        encoder, encoder_name, random, control is True, seed, tuple(map(printable, domains)),
        batch_size or _batch_size(x[0], _device_of(network)),
        unlabeled=tuple(map(_with_paths, unlabeled_samples, every[count:])),
    )  # fmt: skip
    provenance = {"model": name, **_origins([*tables, *every[count:]], len(tables))}
    provenance |= {"weights": Path(weights).name} if weights is not None else {}
    return Prepared(
        inputs, tuple(dict.fromkeys(notes)),
        {printable(key): printable(value) for key, value in provenance.items()},
    )  # fmt: skip


def _label_count(tables: Sequence[RawSet], classes: Sequence[str] | None) -> int:
    """Return the number of classes that the labels of the ID set have."""
    first = tables[0]
    if classes or first.classes:
        return len(classes or first.classes or ())
    return int(first.y.max()) + 1 if isinstance(first.y, Tensor) else len(set(first.y))


def _is_of_timm(network: FoundNetwork) -> bool:
    """Whether timm made a network, so that its classes are probably in timm's order."""
    if network.name.startswith("timm:"):
        return True
    return type(network.model).__module__.partition(".")[0] == "timm"


def _outputs(model: nn.Module) -> int | None:
    """Return the probable number of classes of a network, from its last linear layer."""
    heads = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return max(2, heads[-1].out_features) if heads else None


def _check_counts(budget: Any, batch_size: Any, workers: Any) -> None:
    for what, count, least in (
        ("budget is the maximum number of examples per set", budget, 1),
        ("batch_size is the number of examples in a forward pass", batch_size, 1),
        ("workers is the number of threads that decode images", workers, 0),
    ):
        whole = isinstance(count, int) and not isinstance(count, bool)
        if count is not None and not (whole and count >= least):
            raise ValueError(f"{what}; got {count!r}")


def _of_classes(samples: Sequence[InputSet], labels: Labels) -> list[InputSet]:
    """Return the examples of the chosen classes; reject an ID set of one class."""
    samples = [_of_chosen_classes(sample, labels) for sample in samples]
    y = samples[0].domain.y
    if len(y.unique()) < 2:
        raise ValueError(
            f"{samples[0].name!r} has examples of one class only, {labels.names[int(y[0])]!r}; an "
            "audit compares classes, so give examples of at least two"
        )
    return samples


def _tables(
    id: Any, ood: Any, unlabeled: Sequence[tuple[str | None, Any]], options: Options
) -> list[RawSet]:
    """Read the ID set, the OOD sets and those without labels, and give them different names."""
    pairs = named_sets(ood)
    if isinstance(id, Shift):
        pairs = named_sets(id) + pairs
    named: list[NamedData] = [(None, "ID", id)]
    for place, (name, data) in enumerate(pairs, start=1):
        named.append((name, "OOD" if len(pairs) == 1 else f"OOD {place}", data))
    for place, (name, data) in enumerate(unlabeled, start=1):
        named.append((name, "unlabeled" if len(unlabeled) == 1 else f"unlabeled {place}", data))
    labeled = 1 + len(pairs)
    first = None if _is_folder(id) else read_raw(None, id, "ID", options)
    if first is not None and len(first.shape) == 3:
        options = replace(options, size=(first.shape[2], first.shape[1]))
    opened, options = _with_trees(named, options, labeled)
    tables: list[RawSet] = []
    taken: set[str] = set()
    for place, (name, role, data) in enumerate(opened):
        if first is not None and not place:
            table = first
        elif place < labeled:
            with _suggesting_unlabeled(place, data, options):
                table = read_raw(name, data, role, options)
        else:
            table = read_raw(name, data, role, replace(options, labeled=False))
        if table.name in taken:
            plain = f"{role}: {table.name}"
            table = replace(table, name=plain if plain not in taken else f"{plain} ({place})")
        taken.add(table.name)
        tables.append(table)
    own = tables[0]
    for table in tables[1:]:
        if table.shape != own.shape:
            raise ValueError(
                f"inputs of {table.name!r} have the shape {table.shape}, those of {own.name!r} "
                f"{own.shape}; expected one shape, so resize them in the transform"
            )
    return tables


def _folder_notes(tree: ImageTree, classes: Sequence[str] | None) -> list[str]:
    """Return a sentence if the folders of an unlabeled set are named as classes."""
    first = {file.relative_to(tree.root).parts[0] for file in tree.files}
    if not classes or not first <= set(classes):
        return []
    return [
        f"The folders of {tree.root.name!r} are named as classes, and were not used as labels; if "
        "they are labels, give it as ood=."
    ]


@contextmanager
def _suggesting_unlabeled(place: int, data: Any, options: Options) -> Iterator[None]:
    """Add to an error about an OOD set that has no labels how to give it."""
    try:
        yield
    except ValueError as error:
        if not place or not lacks_labels(data, options.keys):
            raise
        raise ValueError(f"{error}; if it has no labels, give it as unlabeled=") from None


def _is_folder(data: Any) -> bool:
    return isinstance(data, str | Path) and table_of(data) is None


def _with_trees(
    sets: Sequence[NamedData], options: Options, labeled: int
) -> tuple[list[NamedData], Options]:
    """Find the files of all folders first: they have the ID set's classes and one size.

    The first `labeled` sets have labels.
    """
    opened: list[NamedData] = []
    for place, (name, role, data) in enumerate(sets):
        if not _is_folder(data):
            opened.append((name, role, data))
            continue
        if place < labeled:
            with _suggesting_unlabeled(place, data, options):
                tree = tree_of(data, name, options)
        else:
            tree = tree_of(data, name, replace(options, labeled=False))
            tree = replace(tree, notes=(*tree.notes, *_folder_notes(tree, options.classes)))
        if not opened and options.classes is None:
            options = replace(options, classes=tree.classes)
        opened.append((name, role, tree))
    places = [i for i, (_, _, data) in enumerate(opened) if isinstance(data, ImageTree)]
    if options.transform is not None or not places:
        return opened, options
    trees = [(name or tree.root.name, tree.root, tree.files) for name, _, tree in opened
             if isinstance(tree, ImageTree)]  # fmt: skip
    transform, notes = one_size(trees, options.size)
    for place, more in zip(places, notes, strict=True):
        name, role, tree = opened[place]
        opened[place] = (name, role, replace(tree, notes=(*tree.notes, *more)))
    return opened, replace(options, one_size=transform)


def _samples(tables: Sequence[RawSet], pixel_range: PixelRange | None) -> list[InputSet]:
    """Return the sets with all labels 0; the labels are set once the classes are known."""
    places, _ = origins(tables)
    groups = [group_columns(table) for table in tables]
    return [
        InputSet(
            printable(table.name),
            table.make_domain(torch.zeros(len(table)).long(), place.long(), pixel_range),
            read_notes=(*table.notes, *table.remarks),
            read_groups={printable(name): [*map(printable, c)] for name, c in columns.items()},
            read_numbers=table.numbers,
            domain_column=printable(column_title(table.domain_column)),
        )
        for table, place, columns in zip(tables, places, groups, strict=True)
    ]


def _pixel_range(tables: Sequence[RawSet]) -> PixelRange | None:
    """Return the common pixel range of the sets; None if it is [0, 1] or they are not images."""
    pixels = shared_pixel_range(tables)
    return None if pixels is None or pixels.is_unit else pixels


def _with_paths(sample: InputSet, table: RawSet) -> InputSet:
    """Return a set with the path of each file, relative to the folder of the set if it has one."""
    root = table.root
    if root is not None and not all(file.is_relative_to(root) for file in table.files):
        root = None
    paths = (file if root is None else file.relative_to(root) for file in table.files)
    return replace(sample, read_files=tuple(printable(str(path)) for path in paths))


def _relabeled(domain: Domain, y: Tensor) -> Domain:
    """Return the same examples with other labels."""
    if type(domain) is Domain:
        return Domain(domain.name, domain.data._replace(y=y))
    vars(domain).update(labels=y)
    return domain


def _of_chosen_classes(sample: InputSet, labels: Labels) -> InputSet:
    """Leave out the examples of classes whose logits are not compared."""
    if labels.columns is None:
        return sample
    kept = sample.domain.y.cpu() >= 0
    return sample if bool(kept.all()) else sample.pick(kept.nonzero().flatten())


def _device_of(network: nn.Module) -> torch.device:
    return next((value.device for value in network.parameters()), torch.device("cpu"))


def _device(name: str | torch.device) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        message = str(error).splitlines()[0]
        raise ValueError(
            f"no device {str(name)!r} here ({message}); leave it out, or use cpu"
        ) from None
    return device


def _first_logits(network: nn.Module, x: Tensor) -> Tensor:
    """Return the logits of the first two examples."""
    try:
        return forward_once(network, x, (), "moments")[0]
    except torch.OutOfMemoryError:
        raise ValueError("memory runs out on two examples; use a machine with more") from None


def _observed(network: LogitsAdapter, x: Tensor, layers: Sequence[str] | str) -> FoundLayers:
    """Return the names of the observed layers, and notes on the others."""
    if isinstance(network.network, BlackBox):
        if layers != "auto":
            raise ValueError(
                f"{network.network.name} is a black box and has no layers; leave out layers="
            )
        return FoundLayers((), (NOTE,))
    names, left_out = find_layers(network, x, layers)
    note = "No layer is observed: the network has neither activations nor weights."
    return FoundLayers(names, left_out if names else (*left_out, note))


def _control(control: Any, network: LogitsAdapter, seed: int) -> tuple[nn.Module | None, str]:
    """Return the network with random weights, and a note."""
    if isinstance(control, nn.Module):
        chosen = None if network.classes is None else network.classes.tolist()
        return LogitsAdapter(control, network.pixel_range, chosen), ""
    if isinstance(network.network, BlackBox):
        return None, ""  # the note about black boxes says so
    if control is not True:
        return None, "No control by an untrained network: it is switched off."
    return untrained(network, seed)


def _batch_size(x: Tensor, device: torch.device) -> int:
    """Number of inputs such as `x` that a network on the device takes at once."""
    if x.numel() <= SMALL_INPUT:
        return BATCH_OF_SMALL
    return BATCH_ON_CPU if device.type == "cpu" else BATCH_OF_LARGE


def _reference(
    reference: Any,
    x: Float[Tensor, "two ..."],
    pixel_range: PixelRange | None,
    device: torch.device,
) -> tuple[nn.Module | None, str, str]:
    """Return a reference encoder of the same images, its name, and a note if there is none."""
    if reference is None:
        return None, "", "No reference encoder: it is switched off."
    if isinstance(reference, nn.Module):
        return PixelEncoder(reference, pixel_range, None).eval(), type(reference).__name__, ""
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        return None, "", "No reference encoder: the inputs are not images."
    if isinstance(reference, tuple):
        source = load(reference[0], weights=reference[1])
    elif reference != "auto":
        source = load(str(reference), seed=None)
    else:
        place = _installed() or _cached()
        if place is None:
            note = (
                "No reference encoder, so missing information is judged by the network's own "
                "features; install the extra 'reference', or give one as reference=, such as "
                "('torchvision:resnet50', 'weights.pth')."
            )
            return None, "", note
        source = load(place[0], weights=place[1])
    side = source.transform.crop if isinstance(source.transform, Preparation) else None
    if source.name == efficientnet_lite.NAME:
        side = SIDE_OF_SMALL if x[0].numel() <= SMALL_INPUT else side
        # In this layout and in small parts, it takes a third of the time on a CPU.
        source.encoder.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    at_once = REFERENCE_AT_ONCE if device.type == "cpu" else None
    encoder = PixelEncoder(source.encoder, pixel_range_of(source.transform), side, at_once)
    return encoder.eval().to(device), source.name, ""


def _installed() -> tuple[str, Path] | None:
    """Return the name and the weights file of the encoder of the extra `reference`."""
    path = efficientnet_lite.weights_file()
    return None if path is None else (efficientnet_lite.NAME, path)


def _cached() -> tuple[str, Path] | None:
    """Return the name and the weights file of a pretrained network in the torch cache."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    for name in CACHED_REFERENCES:
        files = sorted(folder.glob(f"{name}-*.pth")) if folder.is_dir() else []
        if files:
            return f"torchvision:{name}", files[-1]
    return None


def _by_set(values: Any, tables: Sequence[RawSet], what: str) -> dict[str, Any]:
    """Return values by the name of the set; a single value belongs to the ID set."""
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        return {tables[0].name: values}
    names = [table.name for table in tables]
    named = {tables[0].name if name == "id" else name: value for name, value in values.items()}
    unknown = sorted(set(map(str, named)) - set(names))
    if unknown:
        raise ValueError(f"{what} for {unknown[0]!r}, which is none of the sets {names}")
    return named


def _from_features(
    tables: list[RawSet], samples: list[InputSet], classes: Sequence[str] | None, seed: int,
    notes: list[str],
) -> tuple[LogitsAdapter, list[InputSet], list[RawSet]]:  # fmt: skip
    """Fit a linear head to half of the ID features; the other half is audited."""
    first = tables[0]
    if len(first.shape) != 1:
        raise ValueError(
            f"without a network, inputs are features (n, width), not of shape {first.shape}; give "
            "the network, or features"
        )
    count = _label_count(tables, classes)
    names = class_names(tables, classes, count)
    y = labeled(first, names)
    # Sorted by class, so that both halves have the same number of each class.
    order = torch.randperm(len(y), generator=generator_for(seed, "audit/half for the head"))
    order = order[y[order].argsort(stable=True)]
    fitted, judged = order[::2].sort().values, order[1::2].sort().values
    if len(set(y[fitted].tolist())) < 2 or not len(judged):
        raise ValueError(
            f"{first.name!r} has {len(y)} examples of features, too few to fit a head to one half; "
            "give more, or give the network"
        )
    data = samples[0].domain.data
    recipe = probe_recipe([data.x[fitted]], FullBatch(), classes=count)
    probe = fit_probe(data.x[fitted], y[fitted], recipe, classes=count)
    head = nn.Linear(data.x.shape[1], count)
    weight, bias = probe.head()
    head.weight = nn.Parameter(weight, requires_grad=False)
    # A class without examples has a low logit, but a finite one, for its loss to be finite.
    head.bias = nn.Parameter(bias.clamp(min=LOWEST_BIAS), requires_grad=False)
    network = nn.Sequential()
    network.add_module("features", nn.Identity())
    network.add_module("head", head)
    half = replace(
        first, y=y[judged], numbers=first.numbers[judged], classes=None,
        origin=pick(first.origin, judged), background=pick(first.background, judged),
    )  # fmt: skip
    domain = Domain(first.name, Batch(*(part[judged] for part in data)))
    notes.append(
        f"There is no network, only features: a linear head was fitted on {len(fitted)} examples "
        f"of {first.name!r}, and the other {len(judged)} are audited."
    )
    return (
        LogitsAdapter(network.eval()),
        [replace(samples[0].pick(judged), domain=domain), *samples[1:]],
        [half, *tables[1:]],
    )


def _origins(tables: Sequence[RawSet], labeled: int) -> dict[str, str]:
    """Describe the origin of each set, with its role; the first `labeled` sets have labels."""
    roles = ["id"] + ["ood"] * (labeled - 1) + ["unlabeled"] * (len(tables) - labeled)
    return {
        role if role == "id" else f"{role}: {table.name}": _origin(table)
        for role, table in zip(roles, tables, strict=True)
    }


def _origin(table: RawSet) -> str:
    """Describe the origin of a set."""
    place = f" from {table.root.name}" if table.root is not None else ""
    return f"{len(table)} examples{place}"
