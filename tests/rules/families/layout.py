"""Layout: reshaping, joining, splitting, slicing, padding, with shapes, axes and steps known beforehand and only at run time."""

from collections.abc import Sequence

import numpy as np

from tests.rules.case import Case

PLANE = (3, 4)
BLOCK = (2, 3, 4)
IMAGE = (2, 3, 4, 5)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def reshape(old: Sequence[int], *target: int, attributes: str = "", constants: Sequence[str] = ("s",)) -> Case:
    return Case("Reshape", f"y = Reshape{attributes}(x, s)", {"x": tuple(old), "s": ints(*target)}, constants=constants)


def sliced(shape: Sequence[int], starts: Sequence[int], ends: Sequence[int], axes: Sequence[int] | None = None, steps: Sequence[int] | None = None,
           runtime: str = "") -> Case:  # fmt: skip
    """`runtime` names the operands that are inputs, not constants."""
    given = {"s": ints(*starts), "e": ints(*ends)}
    given |= {"a": ints(*axes)} if axes is not None else {}
    given |= {"t": ints(*steps)} if steps is not None else {}
    operands = ["x", "s", "e", "a" if axes is not None else "", *(["t"] if steps is not None else [])]
    while not operands[-1]:
        operands.pop()
    return Case("Slice", f"y = Slice({', '.join(operands)})", {"x": tuple(shape), **given}, constants=tuple(k for k in given if k not in runtime))


def cut(*spans: tuple[int, int]) -> Case:
    """Several slices of the rows of one matrix, each bent in another way, read one after another."""
    bends = ["Tanh", "Exp", "Sin", "Cos"]
    given = {"a": ints(0)} | {f"{end}{k}": ints(at) for k, span in enumerate(spans) for end, at in zip("se", span, strict=True)}
    text = " ".join(f"p{k} = Slice(x, s{k}, e{k}, a) q{k} = {bends[k]}(p{k})" for k in range(len(spans)))
    return Case("Slice", f"{text} y = Concat<axis=0>({', '.join(f'q{k}' for k in range(len(spans)))})", {"x": (6, 12), **given}, constants=tuple(given))


def padded(
    shape: Sequence[int], pads: Sequence[int], mode: str = "constant", value: bool = False, axes: Sequence[int] | None = None, runtime: str = ""
) -> Case:
    given: dict[str, object] = {"p": ints(*pads)}
    given |= {"v": np.array(0.7)} if value else {}
    given |= {"a": ints(*axes)} if axes is not None else {}
    operands = ["x", "p", "v" if value else "", *(["a"] if axes is not None else [])]
    while not operands[-1]:
        operands.pop()
    constants = tuple(k for k in given if k not in runtime and k != "v")
    return Case("Pad", f'y = Pad<mode="{mode}">({", ".join(operands)})', {"x": tuple(shape), **given}, constants=constants)


NEW = "onnxruntime 1.31 has no opset 28"
HALVES = {"s": ints(0), "e": ints(3), "f": ints(6), "a": ints(1)}

CASES = [
    # Shapes
    reshape(BLOCK, 4, 6),
    reshape(BLOCK, 0, -1),
    reshape(BLOCK, -1),
    reshape(BLOCK, 2, -1, 1, 2),
    reshape(BLOCK, 6, 4, attributes="<allowzero=1>"),
    reshape((3, 0), 0, 5, attributes="<allowzero=1>"),
    reshape(BLOCK, 3, 8, constants=()),
    reshape((), 1, 1),
    *(Case("Flatten", f"y = Flatten<axis={a}>(x)", {"x": IMAGE}) for a in (0, 1, 2, -1, 4)),
    Case("Squeeze", "y = Squeeze(x)", {"x": (1, 3, 1)}, symbolic=False),
    Case("Squeeze", "y = Squeeze(x, a)", {"x": (3, 1, 2, 1), "a": ints(-1, 1)}, constants=("a",)),
    Case("Squeeze", "y = Squeeze(x, a)", {"x": (3, 1, 2, 1), "a": ints(1)}),
    Case("Unsqueeze", "y = Unsqueeze(x, a)", {"x": (3, 2), "a": ints(0, -1)}, constants=("a",)),
    Case("Unsqueeze", "y = Unsqueeze(x, a)", {"x": (3, 2), "a": ints(2)}),
    Case("Transpose", "y = Transpose(x)", {"x": BLOCK}),
    Case("Transpose", "y = Transpose<perm=[1, 2, 0]>(x)", {"x": BLOCK}),
    Case("Transpose", "y = Transpose<perm=[3, 0, 2, 1]>(x)", {"x": IMAGE}),
    Case("Transpose", "y = Transpose(x)", {"x": (5,)}),
    Case("Expand", "y = Expand(x, s)", {"x": (3, 1), "s": ints(2, 3, 4)}, constants=("s",)),
    Case("Expand", "y = Expand(x, s)", {"x": (3, 1), "s": ints(1, 4)}, constants=("s",)),
    Case("Expand", "y = Expand(x, s)", {"x": (3, 1), "s": ints(2, 1, 4)}, symbolic=False),
    Case("Expand", "y = Expand(x, s)", {"x": (), "s": ints(2, 3)}, constants=("s",)),
    Case("Expand", "y = Expand(x, s)", {"x": (1, 4), "s": ints(1)}, constants=("s",)),
    Case("Tile", "y = Tile(x, r)", {"x": (2, 3), "r": ints(2, 3)}, constants=("r",)),
    Case("Tile", "y = Tile(x, r)", {"x": BLOCK, "r": ints(1, 2, 1)}, constants=("r",)),
    Case("Tile", "y = Tile(x, r)", {"x": (2, 3), "r": ints(3, 2)}),
    Case("Tile", "y = Tile(x, r)", {"x": (4,), "r": ints(3)}, constants=("r",)),
    Case("Identity", "y = Identity(x)", {"x": (2, 3)}),
    # Joining and splitting
    Case("Concat", "y = Concat<axis=1>(a, b, c)", {"a": (2, 3), "b": (2, 1), "c": (2, 4)}),
    Case("Concat", "y = Concat<axis=-3>(a, b)", {"a": (2, 3, 4), "b": (5, 3, 4)}),
    Case("Concat", "y = Concat<axis=0>(a)", {"a": (2, 3)}),
    Case("Concat", "y = Concat<axis=-1>(a, b, a)", {"a": (2, 3), "b": (2, 1)}),
    Case("Concat", "y = Concat<axis=0>(a, b, c)", {"a": (2,), "b": (3,), "c": (4,)}, wrt=("b",)),
    Case("Concat", "y = Concat<axis=1>(a, b, c)", {"a": (2, 3), "b": (2, 1), "c": (2, 4)}, wrt=("a", "c"), constants=("b",)),
    Case("Split", "p, q = Split<num_outputs=2>(x) y = Mul(p, q)", {"x": (4, 3)}),
    Case("Split", "p, q, r = Split<axis=1, num_outputs=3>(x) y = Concat<axis=1>(r, p, q)", {"x": (2, 7)}),
    Case("Split", "p, q, r = Split<axis=-2>(x, s) y = Mul(p, r)", {"x": (2, 7, 3), "s": ints(2, 3, 2)}, constants=("s",)),
    Case("Split", "p, q, r = Split<axis=1>(x, s) e = Exp(q) y = Concat<axis=1>(e, r)", {"x": (2, 7), "s": ints(1, 4, 2)}, symbolic=False),
    Case("Split", "p, y = Split<axis=0>(x, s)", {"x": (5,), "s": ints(2, 3)}, constants=("s",)),
    # Slices
    sliced((5, 4), [1], [4], [0]),
    sliced((5, 4), [1, 0], [4, 3]),
    sliced((5, 6), [-4, 1], [-1, 100], [0, 1]),
    sliced((5, 6), [0], [100], [1]),
    sliced((5, 6), [3], [3], [0]),
    sliced((5, 6), [1], [2], [-1]),
    sliced((2, 3, 40), [5], [33], [2]),
    sliced((2, 30, 4), [5], [20], [1]),
    sliced((7, 6), [0, 1], [7, 6], [0, 1], [2, 2]),
    sliced((8, 9), [1, 0], [7, 9], [0, 1], [3, 4]),
    sliced((2, 9, 3), [1], [9], [-2], [3]),
    sliced((7,), [-1], [-(2**63)], [0], [-1]),
    sliced((7, 5), [5, -1], [0, -100], [0, 1], [-2, -1]),
    sliced((7, 5), [10], [2], [0], [-3]),
    sliced((2, 3, 4, 5), [1, 0], [3, 2], [3, 1]),
    sliced((6, 4), [1], [4], [0], runtime="se"),
    sliced((6, 4), [-4], [-1], [0], runtime="se"),
    sliced((6, 5), [1, -4], [6, 5], [0, 1], [2, 1], runtime="se"),
    sliced((6, 5), [1, 0], [6, 5], [0, 1], [3, 2], runtime="se"),
    sliced((6, 5), [4, -1], [0, -100], [0, 1], [-2, -1], runtime="se"),
    sliced((6, 5), [4], [0], [1], [-2], runtime="seat"),
    sliced((6, 5), [1], [5], [1], runtime="a"),
    sliced((6, 5), [1, 1], [5, 3], runtime="se"),
    Case("Slice", "p = Slice(x, s, e, a) q = Slice(x, e, f, a) y = Mul(p, q)", {"x": (2, 6), **HALVES}, constants=tuple(HALVES)),
    cut((0, 2), (4, 6), (2, 4)),
    cut((3, 5), (1, 3)),
    cut((0, 2), (4, 6)),
    cut((0, 2), (2, 6), (0, 2)),
    cut((0, 4), (2, 6)),
    cut((0, 6), (0, 2), (2, 4)),
    # Padding
    padded((2, 3), [1, 0, 2, 1]),
    padded((2, 3), [1, 0, 2, 1], value=True),
    padded((2, 3, 4), [0, 2, 0, 1], axes=[-1, 0]),
    padded((2, 3, 4), [1, 2], value=True, axes=[1]),
    padded((5, 6), [-1, 2, 1, -3]),
    padded((5, 6), [-1, 2, 1, -3], value=True),
    padded((5, 6), [-2, -1], axes=[1], value=True),
    padded((2, 3), [1, 0, 2, 1], value=True, runtime="p"),
    padded((5, 6), [-1, 2, 1, -3], value=True, runtime="p"),
    padded((2, 3, 4), [1, 2], axes=[1], runtime="pa"),
    padded((2, 3, 4), [1, 2, 0, 1], axes=[-1, 0], value=True, runtime="pa"),
    *(
        case
        for mode in ("reflect", "edge", "wrap")
        for case in (
            padded((2, 5), [0, 2, 0, 1], mode),
            padded((4, 5), [3, 2, 2, 4], mode),
            padded((2, 3, 6, 7), [2, 1, 1, 3], mode, axes=[2, 3]),
            padded((2, 3, 4), [1, 1], mode, axes=[-1]),
            padded((4, 5), [1, 2, 2, 1], mode, runtime="p"),
            padded((4, 5), [1, 2], mode, axes=[1], runtime="pa"),
        )
    ),
    # The rest
    Case("DepthToSpace", "y = DepthToSpace<blocksize=2>(x)", {"x": (2, 8, 2, 3)}),
    Case("DepthToSpace", 'y = DepthToSpace<blocksize=2, mode="CRD">(x)', {"x": (2, 8, 2, 3)}),
    Case("DepthToSpace", 'y = DepthToSpace<blocksize=3, mode="CRD">(x)', {"x": (1, 9, 2, 1)}),
    Case("SpaceToDepth", "y = SpaceToDepth<blocksize=2>(x)", {"x": (2, 3, 4, 6)}),
    Case("SpaceToDepth", 'y = SpaceToDepth<blocksize=2, mode="CRD">(x)', {"x": (2, 3, 4, 6)}, opset=28, float32=False, because=NEW),
    Case("Trilu", "y = Trilu(x)", {"x": (4, 5)}),
    Case("Trilu", "y = Trilu<upper=0>(x)", {"x": (2, 4, 3)}),
    Case("Trilu", "y = Trilu(x, k)", {"x": (2, 4, 3), "k": np.array(-1)}, constants=("k",)),
    Case("Trilu", "y = Trilu<upper=0>(x, k)", {"x": (3, 4), "k": np.array(1)}),
    Case("CenterCropPad", "y = CenterCropPad(x, s)", {"x": (5, 4), "s": ints(3, 6)}, constants=("s",), symbolic=False),
    Case("CenterCropPad", "y = CenterCropPad<axes=[1, -1]>(x, s)", {"x": (2, 5, 4), "s": ints(8, 3)}, constants=("s",)),
    Case("CenterCropPad", "y = CenterCropPad<axes=[1]>(x, s)", {"x": (2, 5, 4), "s": ints(2)}, symbolic=False),
    Case("ReverseSequence", "y = ReverseSequence<batch_axis=1, time_axis=0>(x, l)", {"x": (4, 3, 2), "l": ints(1, 4, 2)}),
    Case("ReverseSequence", "y = ReverseSequence<batch_axis=0, time_axis=1>(x, l)", {"x": (3, 4), "l": ints(3, 2, 4)}, constants=("l",)),
]
