"""A matrix product that every iteration of a loop adds to one sum, as a recurrent weight's cotangent is, done after the loop as one product."""

from __future__ import annotations

from dataclasses import dataclass

from netsens.graph.emit import Builder, Value


@dataclass(frozen=True, slots=True)
class SummedProduct:
    """`left` and `right` are matrices of each iteration. The sum over iterations of left' right, where left is [rows, m] and right
    is [rows, n]; each is turned first where it lies the other way, and the sum at the end."""

    left: Value
    right: Value
    left_turned: bool
    right_turned: bool
    turned: bool

    def over(self, op: Builder, left: Value, right: Value, like: Value) -> Value:
        """The sum, from the matrices of all iterations stacked; `like` has its shape."""
        a, b = _rows(op, left, self.left_turned), _rows(op, right, self.right_turned)
        # [T * rows, m]' x [T * rows, n] -> [m, n]
        product = op.MatMul(op.Transpose(a, perm=[1, 0]), b)
        return op.retyped(op.Transpose(product, perm=[1, 0]) if self.turned else product, like.type.shape)


def _rows(op: Builder, stack: Value, turned: bool) -> Value:
    """[T, rows, m] -> [T * rows, m]; turned: [T, m, rows] -> [T * rows, m]"""
    stack = op.Transpose(stack, perm=[0, 2, 1]) if turned else stack
    width = op.dim(stack, 2)
    return op.Reshape(stack, op.vector([op.constant([-1]), width]))


def summed_product(body: Builder, value: Value) -> SummedProduct | None:
    """How a value of a loop's body is a product of two matrices, both of the body's own; None where it isn't one."""
    own = {o: node for node in body.graph.nodes for o in node.outputs}
    turned = False
    node = own.get(value.name)
    while node is not None and node.op == "Transpose" and not node.domain and list(node.attributes.get("perm", ())) == [1, 0]:
        turned = not turned
        node = own.get(node.inputs[0])
    if node is None or node.domain or node.op not in ("MatMul", "Gemm"):
        return None
    if node.op == "Gemm" and ((len(node.inputs) > 2 and node.inputs[2]) or node.attributes.get("alpha", 1) != 1):
        return None
    left, right = body.value(node.inputs[0]), body.value(node.inputs[1])
    if any(v.type.shape is None or v.rank != 2 for v in (left, right)):
        return None
    left_turned, right_turned = not node.attributes.get("transA", 0), bool(node.attributes.get("transB", 0))
    # A matrix that was only turned for the product is written down as it was.
    source = own.get(left.name)
    if source is not None and source.op == "Transpose" and not source.domain:
        left, left_turned = body.value(source.inputs[0]), not left_turned
    source = own.get(right.name)
    if source is not None and source.op == "Transpose" and not source.domain:
        right, right_turned = body.value(source.inputs[0]), not right_turned
    inside = {*own, *body.graph.inputs}
    if left.name not in inside or right.name not in inside:
        return None
    return SummedProduct(left, right, left_turned, right_turned, turned)
