"""What is read off a trained model: pure functions of tensors, and accumulators of sums."""
