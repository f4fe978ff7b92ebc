"""From what a user has (a folder, a loader, tensors) to a `Domain`."""
