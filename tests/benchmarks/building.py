"""Times how long gradient graphs take to build as models grow: reading, building, opening the session, with the share of each.

    python -m tests.benchmarks.building [--nodes 1000 10000] [--profile]

A model of n nodes is a chain of residual blocks: products, additions, activations, normalisations, reshapes. Linear means that ten times the nodes take
ten times as long."""

from __future__ import annotations

import argparse
import cProfile
import pstats
import sys
import time
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import netsens
from netsens.report.render import render


def chain(count: int, width: int = 8) -> onnx.ModelProto:
    """A model of about `count` nodes, ten a block; its batch is symbolic."""
    generator = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    initializers = [numpy_helper.from_array(np.asarray([0, 2, width // 2]), "halves"), numpy_helper.from_array(np.asarray([0, width]), "whole")]
    at = "x"
    for k in range(max(count // 10, 1)):
        weight, bias, scale = (generator.standard_normal(s).astype(np.float32) * 0.3 for s in ((width, width), (width,), (width,)))
        initializers += [numpy_helper.from_array(a, f"{n}{k}") for n, a in (("w", weight), ("b", bias), ("s", scale))]
        steps = [
            ("MatMul", [at, f"w{k}"], {}), ("Add", [None, f"b{k}"], {}), ("Relu", [None], {}), ("LayerNormalization", [None, f"s{k}", f"b{k}"], {}),
            ("Reshape", [None, "halves"], {}), ("Softmax", [None], {"axis": -1}), ("Reshape", [None, "whole"], {}), ("Mul", [None, f"s{k}"], {}),
            ("Tanh", [None], {}), ("Add", [None, at], {}),
        ]  # fmt: skip
        last = at
        for j, (op, inputs, attributes) in enumerate(steps):
            out = f"h{k}_{j}"
            nodes.append(helper.make_node(op, [last if i is None else i for i in inputs], [out], **attributes))
            last = out
        at = last
    nodes.append(helper.make_node("Identity", [at], ["y"]))
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", width]) for n in "xy"]
    return helper.make_model(helper.make_graph(nodes, "chain", values[:1], values[1:], initializers), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def measure(count: int, wrt: str) -> dict[str, Any]:
    data = chain(count).SerializeToString()
    start = time.perf_counter()
    model = netsens.load(data)
    loaded = time.perf_counter()
    plan = model.plan(wrt=wrt, method="autodiff")
    built = time.perf_counter()
    session = model.session(id(plan), plan.graph)
    opened = time.perf_counter()
    session.run({"x": np.zeros((2, 8), np.float32)})
    nodes = len(model.graph.nodes)
    return {
        "nodes": nodes, "by": wrt, "gradient nodes": len(plan.graph.nodes), "read s": loaded - start, "build s": built - loaded, "open s": opened - built,
        "read us/node": 1e6 * (loaded - start) / nodes, "build us/node": 1e6 * (built - loaded) / nodes,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--by", nargs="+", choices=["inputs", "params"], default=["inputs", "params"])
    parser.add_argument("--profile", action="store_true", help="show where reading and building spend their time")
    a = parser.parse_args()
    measure(10, "params")  # imports
    profile = cProfile.Profile()
    if a.profile:
        profile.enable()
    rows = [measure(count, by) for count in a.nodes for by in a.by]
    profile.disable()
    render(rows, "markdown", sys.stdout)
    if a.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)


if __name__ == "__main__":
    main()
