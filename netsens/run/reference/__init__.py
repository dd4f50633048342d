"""ONNX's reference evaluator, for float64 and for what onnxruntime has no kernels for; with operators of our own where its own are wrong, slow or missing."""

from netsens.run.reference.evaluation import reference_runner

__all__ = ["reference_runner"]
