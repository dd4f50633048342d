"""Runs graphs: the one floor that knows onnxruntime (and ONNX's reference evaluator, for float64)."""
