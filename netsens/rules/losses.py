"""Losses on class labels: negative log likelihood, and the cross entropy of a softmax.

Labels choose by comparison with all class numbers, not by gathering: its transpose is a selection rather than a scatter."""

from __future__ import annotations

import numpy as np

from netsens.graph.emit import Builder, Value
from netsens.rules.words import NodeView, expansion


@expansion("NegativeLogLikelihoodLoss")
def negative_log_likelihood(op: Builder, n: NodeView) -> Value:
    return _likelihood(op, n, n.x)


@expansion("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy(op: Builder, n: NodeView) -> list[Value]:
    log_prob = op.LogSoftmax(n.x, axis=1)
    return [_likelihood(op, n, log_prob), log_prob]


def _likelihood(op: Builder, n: NodeView, x: Value) -> Value:
    """The loss over log probabilities [N, C, d1, ...], labels [N, d1, ...] and weights [C] or none."""
    labels, weight = n.inputs[1], n.input(2)
    assert labels is not None
    ignored = n["ignore_index"]
    hit = op.Equal(op.Unsqueeze(labels, [1]), _classes(op, x, labels))  # [N, C, d1, ...]
    counts = None if ignored is None else op.Not(op.Equal(labels, int(ignored)))
    if counts is not None:
        hit = op.And(hit, op.Unsqueeze(counts, [1]))
    loss = -op.ReduceSum(op.Where(hit, x, 0.0), [1], keepdims=0)
    share = None if counts is None else op.Cast(counts, to=x.dtype)
    if weight is not None:
        share = op.ReduceSum(op.Where(hit, _along_classes(op, weight, x.rank), 0.0), [1], keepdims=0)
        loss = loss * share
    match n["reduction"]:
        case "none":
            return loss
        case "sum":
            return op.ReduceSum(loss, keepdims=0)
    if share is None:
        return op.ReduceMean(loss, keepdims=0)
    return op.ReduceSum(loss, keepdims=0) / op.ReduceSum(share, keepdims=0)


def _classes(op: Builder, x: Value, labels: Value) -> Value:
    """0, 1, ... along the class axis, in the dtype of the labels."""
    size = x.shape[1]
    if isinstance(size, int):
        numbers = op.constant(np.arange(size), labels)
    else:
        zero, one = op.constant(np.asarray(0, np.int64)), op.constant(np.asarray(1, np.int64))
        numbers = op.Cast(op.Range(zero, op.Squeeze(op.dim(x, 1), [0]), one), to=labels.dtype)
    return _along_classes(op, numbers, x.rank)


def _along_classes(op: Builder, vector: Value, rank: int) -> Value:
    """[C] -> [C, 1, ...]"""
    return op.Unsqueeze(vector, list(range(1, rank - 1))) if rank > 2 else vector
