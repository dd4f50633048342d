"""The table of all operators and what netsens knows of each."""

from __future__ import annotations

from dataclasses import dataclass

import netsens.rules  # noqa: F401  # declares every operator
from netsens.graph.graph import Graph
from netsens.modes.forward import SUBGRAPH_JVPS
from netsens.rules.words import RULES

DOMAINS = ("", "ai.onnx.ml", "ai.onnx.preview.training", "com.microsoft")


@dataclass(frozen=True, slots=True)
class OperatorStatus:
    """`status` is exact, expanded, flat, refused, differenced (no rule: finite differences) or undecided."""

    domain: str
    op: str
    since: int
    status: str
    why: str = ""

    @property
    def qualified(self) -> str:
        return f"{self.domain}.{self.op}" if self.domain else self.op


def status_of(domain: str, op: str) -> tuple[str, str]:
    """What netsens knows of an operator, and the reason where one is due."""
    if (not domain and op in SUBGRAPH_JVPS) or (domain, op) == ("ai.onnx.preview.training", "Gradient"):
        return "exact", ""
    if not domain and op == "Constant":
        return "flat", "it is a constant"
    rule = RULES.get((domain, op))
    if rule is None:
        return "undecided", ""
    return rule.status, rule.why


def operator_table(domain: str | None = None, opset: int | None = None) -> list[OperatorStatus]:
    """Every operator that the installed onnx package defines (as of `opset`), and those of onnxruntime that netsens has rules for."""
    import onnx

    newest: dict[tuple[str, str], int] = {}
    gone: set[tuple[str, str, int]] = set()
    for schema in onnx.defs.get_all_schemas_with_history():
        if (domain is not None and schema.domain != domain) or schema.domain not in DOMAINS:
            continue
        if opset is not None and not schema.domain and schema.since_version > opset:
            continue
        key = (schema.domain, schema.name)
        newest[key] = max(newest.get(key, 0), schema.since_version)
        if schema.deprecated:
            gone.add((*key, schema.since_version))
    for key in RULES:
        if key not in newest and (domain is None or key[0] == domain) and key[0] == "com.microsoft":
            newest[key] = 1
    return [OperatorStatus(d, op, since, *status_of(d, op)) for (d, op), since in sorted(newest.items()) if (d, op, since) not in gone]


def verdict(graph: Graph) -> list[tuple[OperatorStatus, int]]:
    """The status of each operator in a model, with how many nodes it has; those within subgraphs too."""
    counts: dict[tuple[str, str], int] = {}

    for node in graph.every_node():
        counts[(node.domain, node.op)] = counts.get((node.domain, node.op), 0) + 1
    rows = []
    for (domain, op), number in sorted(counts.items()):
        status, why = status_of(domain, op)
        if status == "undecided":
            status, why = "differenced", "it has no rule: its derivative is found by finite differences"
        rows.append((OperatorStatus(domain, op, 0, status, why), number))
    return rows
