"""Code that experiments share: the model zoo, measurements per network, two-layer runs."""
