"""Finds layers, parameters and inputs by what a user would call them, and names the nearest where nothing fits."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence

from netsens.errors import NotFoundError, UsageError
from netsens.graph.dtypes import BOOL, FLOATS, INT64, is_float
from netsens.graph.graph import Graph, Node
from netsens.graph.selectors import GLOB


def find_layer(graph: Graph, selector: str | None) -> str:
    """The value that `--of` names: an output, or any layer by node name, value name or a unique end of either. None is the first output that holds floats.
    Of a ZipMap, whose output is a list of dictionaries, it is the tensor that they are made from."""
    if selector is not None and not isinstance(selector, str):
        raise UsageError(f"A layer is chosen by its name, and {selector!r} was given.")
    found = _named_layer(graph, selector)
    for node in graph.nodes:
        if node.op == "ZipMap" and found in node.outputs:
            return node.inputs[0]
        if node.op == "SequenceConstruct" and not node.domain and found in node.outputs:
            held = list(dict.fromkeys(node.inputs))
            if len(held) == 1:
                return held[0]
            raise NotFoundError(f"'{found}' is a sequence of tensors; choose one of them with --of: {_listed(held)}.")
    return found


def _named_layer(graph: Graph, selector: str | None) -> str:
    if selector is None:
        floats = [o for o in graph.outputs if _is_float_value(graph, o)]
        return floats[0] if floats else graph.outputs[0]
    values = [*graph.inputs, *(o for n in graph.nodes for o in n.outputs if o), *graph.constants]
    if selector in values:
        return selector
    named = [(n.name, _first_output(n)) for n in graph.nodes if n.name]
    by_node = list(dict.fromkeys(v for name, v in named if name == selector))
    if len(by_node) == 1:
        return by_node[0]
    labels = named + [(v, v) for v in values]
    if GLOB & set(selector):
        found = [v for name, v in labels if fnmatch.fnmatchcase(name, selector)]
    else:
        found = [v for name, v in labels if _ends_with(name, selector)]
    found = list(dict.fromkeys(found))
    if len(found) == 1:
        return found[0]
    if found:
        raise NotFoundError(f"'{selector}' names {len(found)} layers: {_listed(found)}. Give a longer name.")
    raise NotFoundError(f"There is no layer '{selector}'{_nearest(selector, [name for name, _ in labels])}")


def find_wrt(graph: Graph, selectors: Sequence[str]) -> list[str]:
    """The values that `--wrt` names, in order, each once; groups are `inputs`, `params` and `all`."""
    found: dict[str, None] = {}
    for selector in selectors:
        found.update(dict.fromkeys(_find_group(graph, selector)))
    return list(found)


def parameters(graph: Graph) -> list[str]:
    """The trained tensors: float initializers, and weights that are stored quantised at their dequantised values."""
    quantised = [n.outputs[0] for n in graph.nodes if n.op == "DequantizeLinear" and n.inputs[0] in graph.constants]
    return [*graph.parameters, *quantised]


def _find_group(graph: Graph, selector: str) -> list[str]:
    if selector == "inputs":
        return list(graph.inputs)
    if selector == "params":
        return parameters(graph)
    if selector == "all":
        return [*graph.inputs, *parameters(graph)]
    floats = [k for k, a in graph.constants.items() if is_float(a.dtype)]
    inner = [o for n in graph.nodes for o in n.outputs if o]
    if selector in graph.inputs or selector in graph.constants or selector in inner:
        return [selector]
    candidates = [*graph.inputs, *parameters(graph)]
    if GLOB & set(selector):
        matches = [name for name in candidates if fnmatch.fnmatchcase(name, selector)]
        if matches:
            return matches
        raise NotFoundError(f"No input or parameter matches '{selector}'{_nearest(selector, candidates)}")
    for group in (candidates, floats, inner):
        matches = [name for name in group if _ends_with(name, selector)]
        if len(matches) == 1:
            return matches
        if matches:
            raise NotFoundError(f"'{selector}' names {len(matches)} tensors: {_listed(matches)}. Give a longer name.")
    if ":" in selector:
        layer, _, slot = selector.rpartition(":")
        return [_slot(graph, layer, slot)]
    try:
        return [find_layer(graph, selector)]
    except NotFoundError as error:
        if " names " in str(error):
            raise
    raise NotFoundError(f"There is no input, parameter or layer '{selector}'{_nearest(selector, [*candidates, *inner])}")


def _slot(graph: Graph, layer: str, slot: str) -> str:
    """The value that feeds an input of a layer, by ONNX's name for the input or its number."""
    import onnx

    value = find_layer(graph, layer)
    node = graph.producers().get(value)
    if node is None:
        raise NotFoundError(f"'{layer}' is not the output of an operator, so it has no inputs to name.")
    try:
        schema = onnx.defs.get_schema(node.op, graph.domains.get(node.domain, graph.opset) if node.domain else graph.opset, node.domain)
        names = [i.name for i in schema.inputs]
    except onnx.defs.SchemaError:
        names = []
    position = int(slot) if slot.isdigit() else names.index(slot) if slot in names else -1
    if not 0 <= position < len(node.inputs) or not node.inputs[position]:
        there = ", ".join(f"{k} ({names[k]})" if k < len(names) else str(k) for k, i in enumerate(node.inputs) if i)
        raise NotFoundError(f"{node.label} has no input '{slot}'; it has {there}.")
    return node.inputs[position]


def _first_output(node: Node) -> str:
    return next((o for o in node.outputs if o), "")


def _ends_with(name: str, selector: str) -> bool:
    """Whether `selector` is the end of a name, or of the scope that an exporter put around an operator (`relu1` of
    `/features/relu1/Relu` and `/features/relu1/Relu_output_0`)."""
    if name == selector or any(name.endswith(mark + selector) for mark in "/.:"):
        return True
    scope = name.rpartition("/")[0]
    return bool(scope) and (scope == selector or any(scope.endswith(mark + selector) for mark in "/.:"))


def _is_float_value(graph: Graph, name: str) -> bool:
    known = graph.types.get(name)
    return known is None or known.dtype in FLOATS or known.dtype not in (BOOL, INT64, *range(2, 10), 12, 13)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{n}'" for n in names[:6])
    return shown + (", ..." if len(names) > 6 else "")


def _nearest(selector: str, names: Sequence[str]) -> str:
    """The end of a sentence that lists the names most like the one that was asked for."""
    unique = list(dict.fromkeys(n for n in names if n))
    tails = {n.lower(): n for n in unique} | {n.rpartition("/")[2].lower(): n for n in unique} | {n.rpartition(".")[2].lower(): n for n in unique}
    close = list(dict.fromkeys(tails[t] for t in difflib.get_close_matches(selector.lower(), list(tails), 5, 0.5)))
    inside = [n for n in unique if selector.lower() in n.lower() and n not in close]
    names = (close + inside)[:5] or unique[:5]
    if not names:
        return "."
    return f"; the nearest are {_listed(names)}." if close or inside else f"; there are {_listed(names)}."
