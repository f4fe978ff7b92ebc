"""Algorithms of domain generalization beside ERM, distillation and repairs, on the same splits."""
