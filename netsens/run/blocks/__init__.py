"""A graph of convolutions in the layout that onnxruntime's fastest kernels for CPUs want: blocks of channels (NCHWc). onnxruntime's own optimiser puts single
convolutions and a few operators beside them there; a gradient has masks, slices, sums and strides between its convolutions, and left the blocks at each of
them. Here everything that can stays in them, from the first convolution to the last.

A value [N, C, *places] lies in memory as [N, C / block, *places, block], so what works element by element doesn't mind, and what moves along places is the same
operator with one axis more at the end. Done when a session is opened, for the machine at hand: exported models hold standard operators alone."""

from __future__ import annotations

from collections.abc import Mapping

import netsens.run.blocks.convolutions
import netsens.run.blocks.elementwise
import netsens.run.blocks.places  # noqa: F401  # each says which operators it writes
from netsens.graph.graph import Graph
from netsens.run.blocks.writing import Writing


def in_blocks(graph: Graph, block: int, lengths: Mapping[str, int], most: int | None = None) -> Graph:
    """The graph with `block` channels side by side wherever that is faster; itself where nothing is. `lengths` are those of symbolic dimensions, for a graph
    that runs on no others. Constants in new orders of up to `most` elements (default: all) are arrays, those above are left to nodes."""
    if not any(n.op in ("Conv", "ConvTranspose") and not n.domain for n in graph.nodes):
        return graph
    return Writing(graph, block, lengths, most).written()
