"""Many inputs through one question: gathering them into batches, workers, manifests. What is computed for each is the model's affair."""
