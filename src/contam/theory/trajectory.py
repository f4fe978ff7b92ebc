"""Training runs: a setting and a seed give the network at any step."""

import hashlib
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from contam.rng import bit_generator_for
from contam.theory.distribution import Sample, bits_state, restore_bits
from contam.theory.engines import Autograd, ClosedFormSGD, Engine
from contam.theory.initialization import initial_network
from contam.theory.intervention import augmented, projection
from contam.theory.network import MLP
from contam.theory.setting import Setting

__all__ = ["Setting", "State", "simulate", "training_set"]


@dataclass(frozen=True)
class State:
    """A network at one step of its training; later steps do not change it.

    Source: ours, what `simulate` yields.

    >>> (state,) = simulate(Setting(width=32, steps=5), seed=0)
    >>> state.step, state.W.shape, state.a.shape
    (5, torch.Size([32, 64]), torch.Size([32]))
    """

    setting: Setting
    seed: int
    step: int
    """Steps taken."""
    loss: float | None
    """Mean loss on the last minibatch, before the step on it; None before the first step."""
    network: MLP
    """The network."""
    memory: Mapping[str, Tensor] = field(repr=False)
    """The state of the optimizer and of the random generator."""

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return self.setting.steps

    @torch.no_grad()
    def __call__(self, f: Float[Tensor, "n d0"]) -> Float[Tensor, "n *outputs"]:
        """Outputs for examples in feature coordinates: (n,), or (n, outputs) with several."""
        return self.network(f)

    @property
    def W(self) -> Float[Tensor, "m d0"]:  # noqa: N802
        """Projections u_kj = <w_k, m_j> of the first layer's neurons."""
        return self.network.projections

    @property
    def a(self) -> Float[Tensor, "*outputs m"]:
        """Output weights: (m,), or (outputs, m) with several outputs."""
        a = self.network.head.weight.detach()
        return a[0] if len(a) == 1 else a

    @property
    def biases(self) -> tuple[Float[Tensor, " neurons"], ...]:
        """Biases of the layers that have them, first layer first."""
        return tuple(layer.bias.detach() for layer in self.network.layers if layer.bias is not None)

    def checkpoint(self) -> dict[str, Tensor]:
        """Collect the tensors from which `simulate(..., resume=...)` continues, bit for bit.

        Returns:
            Tensors by name: weights, the state of the optimizer and of the generator, and the step.
        """
        network = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        return {
            **network,
            **self.memory,
            "step": torch.tensor(self.step),
            "fingerprint": torch.tensor(_fingerprint(self.setting, self.seed)),
        }


def simulate(
    setting: Setting,
    seed: int,
    report_at: Iterable[int] | None = None,
    resume: Mapping[str, Tensor] | None = None,
) -> Iterator[State]:
    """Train a network, and yield its state at chosen steps.

    Args:
        setting: the data, the network and the optimizer.
        seed: names all random draws.
        report_at: steps whose states are yielded, by default the last one; 0 is the initial state.
        resume: the checkpoint of an earlier state of the same setting and seed, from which
            training continues; only `steps` may differ. Its own step is not yielded again.

    Yields:
        States in the order of their steps.

    Raises:
        ValueError: a step beyond the last one, a checkpoint of another run, or, during training,
            a loss that is not finite.

    Source: ours, the training of App. F.1 with any setting.

    >>> states = simulate(Setting(width=32, steps=10), seed=0, report_at=(0, 10))
    >>> [(state.step, tuple(state.W.shape)) for state in states]
    [(0, (32, 64)), (10, (32, 64))]
    """
    reported = {setting.steps} if report_at is None else set(report_at)
    if reported and not 0 <= min(reported) <= max(reported) <= setting.steps:
        raise ValueError(
            f"report_at contains steps {min(reported)} to {max(reported)}, "
            f"but training has the steps 0 to {setting.steps}"
        )
    if resume is not None and int(resume["fingerprint"]) != _fingerprint(setting, seed):
        raise ValueError(
            "the checkpoint belongs to another setting or seed; resume with its own setting and "
            "seed, or start without resume"
        )
    _warn_of_large_steps(setting)
    return _train(setting, seed, reported, resume)


def _train(
    setting: Setting, seed: int, reported: set[int], resume: Mapping[str, Tensor] | None
) -> Iterator[State]:
    network = initial_network(setting, seed)
    engine = _engine(setting, network, seed)
    draws = bit_generator_for(seed, "minibatches")
    minibatch = _minibatches(setting, seed, draws)
    step, loss = 0, None
    if resume is not None:
        step = int(resume["step"])
        network.load_state_dict(_under("network.", resume))
        engine.load(_under("optimizer.", resume))
        restore_bits(draws, resume["bits"])

    def state() -> State:
        memory = {f"optimizer.{name}": value.clone() for name, value in engine.tensors().items()}
        memory["bits"] = bits_state(draws)
        return State(setting, seed, step, loss, network.copy(), memory)

    if resume is None and 0 in reported:
        yield state()
    # Steps after the last reported one are not needed.
    for step in range(step + 1, max(reported, default=0) + 1):  # noqa: B020
        loss = engine.step(minibatch())
        if not math.isfinite(loss):
            raise ValueError(
                f"loss is not finite at step {step}; lower step_size below "
                f"{_smaller_step(setting):.3g}"
            )
        if step in reported:
            yield state()


def _engine(setting: Setting, network: MLP, seed: int) -> Engine:
    features = setting.data.features
    # A projection takes the place of the Gram matrix, which is the identity where there is one.
    gram = projection(setting.intervention, setting.data, seed, setting.dtype)
    if gram is None and not (setting.ambient or features.orthonormal):
        gram = features.gram(setting.dtype)
    momentum = setting.momentum if setting.optimizer == "momentum" else 0.0
    if setting.engine != "autograd" and not setting.beyond_closed_form:
        return ClosedFormSGD(
            network,
            step_size=setting.step_size,
            weight_decay=setting.weight_decay,
            momentum=momentum,
            gram=gram,
        )
    trained = [p for p in network.parameters() if p.requires_grad]
    lr, decay = setting.step_size, setting.weight_decay
    if setting.optimizer == "adam":
        optimizer = torch.optim.Adam(trained, lr=lr, weight_decay=decay)
    elif setting.optimizer == "adamw":
        optimizer = torch.optim.AdamW(trained, lr=lr, weight_decay=decay)
    else:
        optimizer = torch.optim.SGD(trained, lr=lr, weight_decay=decay, momentum=momentum)
    return Autograd(network, setting.loss, optimizer, gram)


def _minibatches(setting: Setting, seed: int, draws: np.random.SFC64) -> Callable[[], Sample]:
    """A function that returns the examples of the next step."""
    data, n, dtype = setting.data, setting.batch_size, setting.dtype
    change, core = setting.intervention, data.features.core
    if setting.examples is None:
        return lambda: augmented(change, data.sample(n, draws, dtype=dtype), core, draws)
    fixed = training_set(setting, seed)
    if n == setting.examples:
        if change.augment == "none":
            return lambda: fixed
        return lambda: augmented(
            change, Sample(fixed.f.clone(), fixed.y, fixed.target), core, draws
        )

    def with_replacement() -> Sample:
        words = draws.random_raw(n) >> np.uint64(32)
        rows = torch.from_numpy((words * np.uint64(len(fixed.y)) >> np.uint64(32)).astype(int))
        sample = Sample(fixed.f[rows], fixed.y[rows], fixed.target[rows])
        return augmented(change, sample, core, draws)

    return with_replacement


def training_set(setting: Setting, seed: int) -> Sample:
    """Draw the fixed training set of a seed.

    Args:
        setting: a setting whose `examples` is a number.
        seed: names the draws.

    Returns:
        The examples of the training set.

    Raises:
        ValueError: the setting draws fresh examples for every step.

    Source: ours, training on a finite set.

    >>> len(training_set(Setting(examples=100, batch_size=50), seed=0).y)
    100
    """
    if setting.examples is None:
        raise ValueError("examples=None draws fresh examples for every step; set examples")
    return setting.data.sample(
        setting.examples, bit_generator_for(seed, "examples"), dtype=setting.dtype
    )


def _warn_of_large_steps(setting: Setting) -> None:
    stable = setting.stable_step
    if stable is not None and setting.step_size > stable:
        warnings.warn(
            f"step_size={setting.step_size:g} is large for {setting.data.features.size} features "
            f"and width {setting.width}: expect jumps, and dead neurons; stay at {stable:.3g} "
            "or below",
            stacklevel=3,
        )


def _smaller_step(setting: Setting) -> float:
    return min(setting.step_size / 2, setting.stable_step or math.inf)


def _fingerprint(setting: Setting, seed: int) -> int:
    content = repr((replace(setting, steps=1), seed)).encode()
    return int.from_bytes(hashlib.sha256(content).digest()[:7], "big")


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
