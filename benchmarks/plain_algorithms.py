"""Every algorithm of domain generalization in its plain formulation, as a reference in time.

Each function takes a network and an algorithm, of which it copies what has random weights. It
returns a function that takes one step on a minibatch of each domain and returns its loss. Random
numbers are drawn in the same order as by the algorithm.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Beta

from contam.batch import Batch
from contam.models.classifier import Classifier

CLASSES, DOMAINS, STEP_SIZE = 10, 3, 5e-5

Batches = Sequence[Batch]
Step = Callable[[Batches], float]
"""Takes one step and returns its loss."""


def descending(network: nn.Module, loss: Callable[[Batches], Tensor]) -> Step:
    """A step of Adam on a loss."""
    optimizer = torch.optim.Adam(network.parameters(), STEP_SIZE)

    def step(batches: Batches) -> float:
        value = loss(batches)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        return value.item()

    return step


def erm(network: Classifier, _: Any) -> Step:
    def loss(batches: Batches) -> Tensor:
        x, y = torch.cat([b.x for b in batches]), torch.cat([b.y for b in batches])
        return F.cross_entropy(network(x), y)

    return descending(network, loss)


def outputs(network: Classifier, batches: Batches) -> tuple[list[Tensor], list[Tensor]]:
    """Features and logits of each domain."""
    features = network.encoder(torch.cat([b.x for b in batches]))
    sizes = [len(b.y) for b in batches]
    return list(features.split(sizes)), list(network.head(features).split(sizes))


def mean_risk(logits: list[Tensor], batches: Batches) -> Tensor:
    pairs = zip(logits, batches, strict=True)
    return sum((F.cross_entropy(out, b.y) for out, b in pairs), torch.zeros(())) / len(batches)


def invariance(logits: list[Tensor], batches: Batches) -> Tensor:
    """IRM's penalty by automatic differentiation, as its authors publish it."""
    total = torch.zeros(())
    for out, batch in zip(logits, batches, strict=True):
        scale = torch.ones((), requires_grad=True)
        gradients = [
            torch.autograd.grad(
                F.cross_entropy(out[half::2] * scale, batch.y[half::2]), scale, create_graph=True
            )[0]
            for half in (0, 1)
        ]
        total = total + gradients[0] * gradients[1]
    return total / len(batches)


def bottleneck(features: list[Tensor]) -> Tensor:
    return sum((z.var(dim=0).mean() for z in features), torch.zeros(())) / len(features)


def irm(network: Classifier, _: Any) -> Step:
    def loss(batches: Batches) -> Tensor:
        _, logits = outputs(network, batches)
        return mean_risk(logits, batches) + invariance(logits, batches)

    return descending(network, loss)


def ib_erm(network: Classifier, _: Any) -> Step:
    def loss(batches: Batches) -> Tensor:
        features, logits = outputs(network, batches)
        return mean_risk(logits, batches) + bottleneck(features)

    return descending(network, loss)


def ib_irm(network: Classifier, _: Any) -> Step:
    def loss(batches: Batches) -> Tensor:
        features, logits = outputs(network, batches)
        penalty = invariance(logits, batches) + bottleneck(features)
        return mean_risk(logits, batches) + penalty

    return descending(network, loss)


def group_dro(network: Classifier, _: Any) -> Step:
    q = torch.ones(DOMAINS) / DOMAINS

    def loss(batches: Batches) -> Tensor:
        nonlocal q
        _, logits = outputs(network, batches)
        pairs = zip(logits, batches, strict=True)
        risks = torch.stack([F.cross_entropy(out, b.y) for out, b in pairs])
        q = q * (1e-2 * risks.detach()).exp()
        q = q / q.sum()
        return q @ risks

    return descending(network, loss)


def mixup(network: Classifier, _: Any) -> Step:
    def loss(batches: Batches) -> Tensor:
        ring = torch.randperm(len(batches)).tolist()
        shares = Beta(torch.tensor(0.2), torch.tensor(0.2)).sample((len(batches),)).tolist()
        inputs, targets = [], []
        for place, share in enumerate(shares):
            one, other = batches[ring[place]], batches[ring[(place + 1) % len(ring)]]
            inputs.append(share * one.x + (1 - share) * other.x)
            first, second = F.one_hot(one.y, CLASSES), F.one_hot(other.y, CLASSES)
            targets.append(share * first + (1 - share) * second)
        return F.cross_entropy(network(torch.cat(inputs)), torch.cat(targets))

    return descending(network, loss)


def coral(network: Classifier, _: Any) -> Step:
    def loss(batches: Batches) -> Tensor:
        features, logits = outputs(network, batches)
        moments = [(z.mean(dim=0), z.T.cov()) for z in features]
        distances = [
            (mean - other_mean).square().mean() + (cov - other_cov).square().mean()
            for place, (mean, cov) in enumerate(moments)
            for other_mean, other_cov in moments[:place]
        ]
        return mean_risk(logits, batches) + torch.stack(distances).mean()

    return descending(network, loss)


def vrex(network: Classifier, _: Any) -> Step:
    def loss(batches: Batches) -> Tensor:
        _, logits = outputs(network, batches)
        pairs = zip(logits, batches, strict=True)
        risks = torch.stack([F.cross_entropy(out, b.y) for out, b in pairs])
        return risks.mean() + (risks - risks.mean()).square().mean()

    return descending(network, loss)


def fishr(network: Classifier, _: Any) -> Step:
    kept = torch.zeros(DOMAINS, CLASSES * (network.head.in_features + 1))

    def loss(batches: Batches) -> Tensor:
        nonlocal kept
        features, logits = outputs(network, batches)
        variances = []
        for z, out, batch in zip(features, logits, batches, strict=True):
            residual = out.softmax(dim=1) - F.one_hot(batch.y, CLASSES)
            weights = residual[:, :, None] * z[:, None, :]
            rows = torch.cat([weights.flatten(1), residual], dim=1)
            variances.append(rows.var(dim=0, correction=0))
        averages = 0.95 * kept + 0.05 * torch.stack(variances)
        kept = averages.detach()
        distance = (averages - averages.mean(dim=0)).square().mean() / 0.05**2
        y = torch.cat([b.y for b in batches])
        return F.cross_entropy(torch.cat(logits), y) + distance

    return descending(network, loss)


def swad(network: Classifier, _: Any) -> Step:
    average = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    plain, count = erm(network, _), 0

    def step(batches: Batches) -> float:
        nonlocal count
        loss = plain(batches)
        count += 1
        with torch.no_grad():
            for name, tensor in network.state_dict().items():
                average[name] += (tensor - average[name]) / count if tensor.ndim else 0
        return loss

    return step


def large_dropout(network: Classifier, _: Any) -> Step:
    def loss(batches: Batches) -> Tensor:
        x, y = torch.cat([b.x for b in batches]), torch.cat([b.y for b in batches])
        return F.cross_entropy(network.head(F.dropout(network.encoder(x), 0.9)), y)

    return descending(network, loss)


def mldg(network: Classifier, _: Any) -> Step:
    optimizer = torch.optim.Adam(network.parameters(), STEP_SIZE)

    def step(batches: Batches) -> float:
        order = torch.randperm(len(batches)).tolist()
        for p in network.parameters():
            p.grad = torch.zeros_like(p)
        losses = []
        for other in order[1:]:
            inner = copy.deepcopy(network)
            inner_optimizer = torch.optim.Adam(inner.parameters(), STEP_SIZE)
            first, second = batches[order[0]], batches[other]
            risk = F.cross_entropy(inner(first.x), first.y)
            inner_optimizer.zero_grad()
            risk.backward()
            inner_optimizer.step()
            for p, q in zip(network.parameters(), inner.parameters(), strict=True):
                assert p.grad is not None and q.grad is not None
                p.grad += q.grad / len(batches)
            meta_risk = F.cross_entropy(inner(second.x), second.y)
            gradients = torch.autograd.grad(meta_risk, [*inner.parameters()])
            for p, gradient in zip(network.parameters(), gradients, strict=True):
                assert p.grad is not None
                p.grad += gradient / len(batches)
            losses.append(risk.item() + meta_risk.item())
        optimizer.step()
        return sum(losses) / len(losses)

    return step


def dann(network: Classifier, algorithm: Any) -> Step:
    discriminator = copy.deepcopy(algorithm.discriminator)
    optimizers = [
        torch.optim.Adam(module.parameters(), STEP_SIZE, betas=(0.5, 0.9))
        for module in (discriminator, network)
    ]
    count = 0

    def step(batches: Batches) -> float:
        nonlocal count
        x, y = torch.cat([b.x for b in batches]), torch.cat([b.y for b in batches])
        domain = torch.cat([b.domain for b in batches])
        turn, count = count % 2, count + 1
        with torch.set_grad_enabled(turn == 1):
            features = network.encoder(x)
            risk = F.cross_entropy(network.head(features), y)
        domain_risk = F.cross_entropy(discriminator(features), domain)
        optimizers[turn].zero_grad()
        if turn:
            (risk - domain_risk).backward(inputs=[*network.parameters()])
        else:
            domain_risk.backward()
        optimizers[turn].step()
        return risk.item() + domain_risk.item()

    return step


def style_of(maps: Tensor) -> tuple[Tensor, Tensor]:
    return maps.mean((2, 3), keepdim=True), maps.var((2, 3), keepdim=True)


def sagnet(network: Classifier, _: Any) -> Step:
    encoder = [*network.encoder.children()]
    front, back = nn.Sequential(*encoder[:5]), nn.Sequential(*encoder[5:], network.head)
    style = copy.deepcopy(back)
    optimizer = torch.optim.Adam(network.parameters(), STEP_SIZE)
    style_optimizer = torch.optim.Adam(style.parameters(), STEP_SIZE)

    def swapped(maps: Tensor) -> Tensor:
        mean, var = style_of(maps)
        content = ((maps - mean) / (var + 1e-5).sqrt())[torch.randperm(len(maps))].detach()
        return content * (var + 1e-5).sqrt() + mean

    def step(batches: Batches) -> float:
        x, y = torch.cat([b.x for b in batches]), torch.cat([b.y for b in batches])
        share, others = torch.rand(len(x))[:, None, None, None], torch.randperm(len(x))
        maps = front(x)
        mean, var = style_of(maps)
        content = (maps - mean) / (var + 1e-5).sqrt()
        mean = share * mean + (1 - share) * mean[others]
        var = share * var + (1 - share) * var[others]
        risk = F.cross_entropy(back(content * (var + 1e-5).sqrt() + mean), y)
        optimizer.zero_grad()
        risk.backward()
        optimizer.step()

        maps = front(x)
        style_risk = F.cross_entropy(style(swapped(maps.detach())), y)
        style_optimizer.zero_grad()
        style_risk.backward()
        style_optimizer.step()

        adversarial = -0.1 * style(swapped(maps)).log_softmax(dim=1).mean()
        optimizer.zero_grad()
        adversarial.backward(inputs=[*front.parameters()])
        optimizer.step()
        return risk.item() + style_risk.item() + adversarial.item()

    return step


def arm(_: Classifier, algorithm: Any) -> Step:
    network = copy.deepcopy(algorithm.network)
    layer = network.encoder.conv
    network.encoder.conv = layer.convolution
    both = nn.ModuleList([network, layer.context])

    def loss(batches: Batches) -> Tensor:
        x, y = torch.cat([b.x for b in batches]), torch.cat([b.y for b in batches])
        contexts = layer.context(x).split([len(b.y) for b in batches])
        means = torch.cat([c.mean(dim=0, keepdim=True).expand_as(c) for c in contexts])
        return F.cross_entropy(network(torch.cat([x, means], dim=1)), y)

    return descending(both, loss)


def rsc(network: Classifier, _: Any) -> Step:
    def loss(batches: Batches) -> Tensor:
        x, y = torch.cat([b.x for b in batches]), torch.cat([b.y for b in batches])
        features = network.encoder(x)
        logits = network.head(features)
        of_label = (logits * F.one_hot(y, CLASSES)).sum()
        (gradient,) = torch.autograd.grad(of_label, features, retain_graph=True)
        keep = torch.ones_like(features)
        keep.scatter_(1, gradient.topk(round(features.shape[1] / 3), dim=1).indices, 0.0)
        muted = network.head(features * keep)
        drop = (logits.softmax(dim=1) - muted.softmax(dim=1))[torch.arange(len(y)), y]
        unchanged = torch.ones(len(y), dtype=torch.bool)
        unchanged[drop.topk(round(len(y) / 3)).indices] = False
        keep[unchanged] = 1.0
        return F.cross_entropy(network.head(features * keep), y)

    return descending(network, loss)


def selfreg(network: Classifier, algorithm: Any) -> Step:
    projection = copy.deepcopy(algorithm.projection)
    both = nn.ModuleList([network, projection])

    def shuffle(y: Tensor) -> Tensor:
        draws = torch.rand(len(y), dtype=torch.float64)
        order = torch.arange(len(y))
        for label in y.unique():
            places = (y == label).nonzero().flatten()
            order[places] = places[draws[places].argsort()]
        return order

    def loss(batches: Batches) -> Tensor:
        x, y = torch.cat([b.x for b in batches]), torch.cat([b.y for b in batches])
        features = network.encoder(x)
        logits, projected = network.head(features), projection(features)
        share = Beta(0.5, 0.5).sample().item()
        one, other = shuffle(y), shuffle(y)
        mixed = share * logits[one] + (1 - share) * logits[other]
        mixed_features = share * projected[one] + (1 - share) * projected[other]
        same = F.mse_loss(logits, logits[one]) + 0.3 * F.mse_loss(features, projected[one])
        hard = F.mse_loss(logits, mixed) + 0.3 * F.mse_loss(features, mixed_features)
        risk = F.cross_entropy(logits, y)
        return risk + risk.detach().clamp(max=1) * (share * same + (1 - share) * hard)

    return descending(both, loss)


def fish(network: Classifier, _: Any) -> Step:
    inner = copy.deepcopy(network)
    optimizer = torch.optim.Adam(inner.parameters(), STEP_SIZE)

    def step(batches: Batches) -> float:
        inner.load_state_dict(network.state_dict())
        losses = []
        for batch in batches:
            risk = F.cross_entropy(inner(batch.x), batch.y)
            optimizer.zero_grad()
            risk.backward()
            optimizer.step()
            losses.append(risk.item())
        with torch.no_grad():
            for p, q in zip(network.parameters(), inner.parameters(), strict=True):
                p.add_(0.5 * (q - p))
        return sum(losses) / len(losses)

    return step


PLAIN: dict[str, Callable[[Classifier, Any], Step]] = {
    "ERM": erm,
    "IRM": irm,
    "GroupDRO": group_dro,
    "Mixup": mixup,
    "CORAL": coral,
    "VREx": vrex,
    "IB-ERM": ib_erm,
    "IB-IRM": ib_irm,
    "Fishr": fishr,
    "SWAD": swad,
    "large dropout": large_dropout,
    "MLDG": mldg,
    "DANN": dann,
    "SagNet": sagnet,
    "ARM": arm,
    "RSC": rsc,
    "SelfReg": selfreg,
    "Fish": fish,
}
"""The plain formulation of each algorithm with its default settings."""
