"""One training step of the standard setting, against the plain formulation of the same step.

Both sides take 200 steps of size 1 on 1000 fresh examples each (d0 64 of d 256, m 256), set-up
included. They alternate.
"""

import argparse
import sys
import time

import torch
from plain_theory import EXAMPLES, HingeLosses, PlainNetwork, compare, draw, outcome, train

from contam.theory.risks import held_out, risk
from contam.theory.trajectory import Setting, simulate

STEPS = 200


def ours(seed: int) -> tuple[float, HingeLosses]:
    """Seconds a step, and what was learned."""
    begin = time.perf_counter()
    (state,) = simulate(Setting(steps=STEPS, batch_size=EXAMPLES), seed)
    seconds = (time.perf_counter() - begin) / STEPS
    return seconds, HingeLosses(
        *(risk(state, held_out(state, where)).loss for where in ("id", "ood"))
    )


def plain(seed: int) -> tuple[float, HingeLosses]:
    """Seconds a step, and what was learned."""
    generator = torch.Generator().manual_seed(seed)
    begin = time.perf_counter()
    network = PlainNetwork(generator)
    train(network, lambda: draw(EXAMPLES, generator), step_size=1.0, momentum=0.0, steps=STEPS)
    return (time.perf_counter() - begin) / STEPS, outcome(network, generator)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    for side in (ours, plain):  # the first call of each loads libraries
        side(rounds)
    return compare(ours, plain, rounds=rounds, unit="a step", at_least=4)


if __name__ == "__main__":
    sys.exit(main())
