"""What experiments share: the model zoo, one part of a run per network, two-layer runs."""
