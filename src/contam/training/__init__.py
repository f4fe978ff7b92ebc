"""How a model is improved from minibatches."""
