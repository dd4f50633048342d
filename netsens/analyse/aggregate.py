"""Gradients over a data set in one pass: mean, mean absolute value, root mean square and quantiles, element by element.

Every figure can be merged with that of other data, so that workers each count their own share. Sums are kept in float64. Quantiles are exact while the
values fit into `EXACT_BYTES`; beyond, they come from counts in logarithmic bins (the sketch of Masson, Rim and Lee, "DDSketch", VLDB 2019), and
are within one percent of a true quantile. Values that are not finite are left out and counted."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from netsens.errors import ToleranceError, UsageError
from netsens.graph.graph import Array
from netsens.modes.target import parse_target

STATISTICS = ("mean", "meanabs", "rms", "quantiles")
QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}  # what `quantiles` stands for
UNITS = ("raw", "std", "elasticity")
EXACT_BYTES = 32 << 20
BIN_BYTES = 1 << 30
ACCURACY = 0.01
_GAMMA = (1 + ACCURACY) / (1 - ACCURACY)


@dataclass(frozen=True, slots=True)
class AggregateOptions:
    """Which figures, and in which units: `raw`, the gradient's own; `std`, times the deviation of the input's column over the data; `elasticity`,
    gradient times input over output, a change in percent for one of one percent."""

    statistics: tuple[str, ...] = ("mean", "meanabs", "rms")
    units: str = "raw"
    inputs: tuple[str, ...] = ()  # tensors whose first axis is the samples'

    def __post_init__(self) -> None:
        wrong = [s for s in self.statistics if s not in STATISTICS and _quantile(s) is None]
        if wrong or not self.statistics:
            raise UsageError(
                f"--aggregate takes {', '.join(STATISTICS)} or one of them (q50, q99.9) with commas between, not {', '.join(map(repr, wrong)) or 'nothing'}."
            )
        if self.units not in UNITS:
            raise UsageError(f"--units is {', '.join(UNITS)}, not '{self.units}'.")

    @property
    def columns(self) -> dict[str, float | None]:
        """The figures in their order, and of a quantile which it is."""
        found: dict[str, float | None] = {}
        for statistic in self.statistics:
            found |= QUANTILES if statistic == "quantiles" else {statistic: _quantile(statistic)}
        return found


def _quantile(statistic: str) -> float | None:
    """0.5 of `q50`; None where it names no quantile."""
    percent = re.fullmatch(r"q(\d{1,2}(\.\d+)?)", statistic)
    return float(percent[1]) / 100 if percent is not None and float(percent[1]) > 0 else None


@dataclass(slots=True)
class Moments:
    """Counts and sums of rows [n, ...elements], in float64."""

    count: Any = 0
    total: Any = 0.0
    absolute: Any = 0.0
    squares: Any = 0.0
    left_out: Any = 0

    def add(self, rows: Array) -> None:
        wide = rows.astype(np.float64)
        good = np.isfinite(wide)
        wide = np.where(good, wide, 0.0)
        self.count = self.count + good.sum(0)
        self.left_out = self.left_out + (~good).sum(0)
        self.total = self.total + wide.sum(0)
        self.absolute = self.absolute + np.abs(wide).sum(0)
        self.squares = self.squares + np.square(wide).sum(0)

    def merge(self, other: Moments) -> None:
        for name in ("count", "total", "absolute", "squares", "left_out"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class Spread:
    """Count, mean and sum of squared deviations of rows, which merge without loss (Chan, Golub and LeVeque 1983)."""

    count: int = 0
    mean: Any = 0.0
    deviations: Any = 0.0

    def add(self, rows: Array) -> None:
        wide = rows.astype(np.float64)
        mean = wide.mean(0)
        self.merge(Spread(len(wide), mean, np.square(wide - mean).sum(0)))

    def merge(self, other: Spread) -> None:
        if not other.count:
            return
        total = self.count + other.count
        apart = other.mean - self.mean
        self.mean = self.mean + apart * (other.count / total)
        self.deviations = self.deviations + other.deviations + np.square(apart) * (self.count * other.count / total)
        self.count = total

    @property
    def std(self) -> Any:
        return np.sqrt(self.deviations / max(self.count, 1))


class Sketch:
    """Quantiles of each element: the values themselves while they are few, then how many fall into each logarithmic bin."""

    def __init__(self) -> None:
        self.values: list[Array] = []
        self.size = 0
        self.low = 0  # the bin of column 0 of `counts`
        self.counts: Any = None  # [elements, bins of negative and positive numbers by `_bin`]

    def add(self, rows: Array) -> None:
        flat = rows.reshape(len(rows), -1)
        if self.counts is not None:
            self._count(flat)
            return
        self.values.append(flat.copy())
        self.size += flat.nbytes
        if self.size > EXACT_BYTES:
            self._turn()

    def merge(self, other: Sketch) -> None:
        if other.counts is None:
            for values in other.values:
                self.add(values)
            return
        if self.counts is None:
            self._turn(len(other.counts))
        assert self.counts is not None
        self._widen(other.low, other.low + other.counts.shape[1])
        start = other.low - self.low
        self.counts[:, start : start + other.counts.shape[1]] += other.counts

    def quantiles(self, wanted: Sequence[float]) -> Array:
        """[wanted, elements]; NaN where there was no finite value. The value below which so many lie, without interpolation between two."""
        if self.counts is None:
            return self._exact(wanted)
        total = self.counts.sum(1)
        running = np.cumsum(self.counts, 1, dtype=np.int64)
        found = []
        for q in wanted:
            rank = np.maximum(np.ceil(q * total), 1)
            place = (running >= rank[:, None]).argmax(1)
            found.append(np.where(total > 0, _value(place + self.low), np.nan))
        return np.stack(found)

    def _exact(self, wanted: Sequence[float]) -> Array:
        if not self.values:
            return np.full((len(wanted), 0), np.nan)
        values = np.concatenate(self.values).astype(np.float64)
        values = np.sort(np.where(np.isfinite(values), values, np.nan), axis=0)  # NaN last
        count = np.isfinite(values).sum(0)
        places = [np.maximum(np.ceil(q * count), 1).astype(np.int64) - 1 for q in wanted]
        return np.stack([np.take_along_axis(values, p[None], 0)[0] for p in places])

    def _turn(self, elements: int | None = None) -> None:
        """From values to counts."""
        width = self.values[0].shape[1] if self.values else elements or 0
        self.counts = np.zeros((width, 0), np.uint32)
        values, self.values, self.size = self.values, [], 0
        for part in values:
            self._count(part)

    def _count(self, flat: Array) -> None:
        wide = flat.astype(np.float64)
        good = np.isfinite(wide)
        if not good.any():
            return
        bins = _bin(np.where(good, wide, 0.0))
        self._widen(int(bins[good].min()), int(bins[good].max()) + 1)
        columns = np.broadcast_to(np.arange(flat.shape[1]), flat.shape)
        np.add.at(self.counts, (columns[good], bins[good] - self.low), 1)

    def _widen(self, low: int, high: int) -> None:
        have = self.counts.shape[1]
        new_low, new_high = (low, high) if not have else (min(low, self.low), max(high, self.low + have))
        if new_low == self.low and new_high - new_low == have:
            return
        needed = self.counts.shape[0] * (new_high - new_low) * 4
        if needed > BIN_BYTES:
            raise ToleranceError(
                f"Quantiles of {self.counts.shape[0]:,} elements each take {needed >> 20:,} MiB, and more than {BIN_BYTES >> 20:,} are not spent on them; "
                "leave them out of --aggregate, or narrow --wrt."
            )
        wider = np.zeros((self.counts.shape[0], new_high - new_low), np.uint32)
        if have:
            wider[:, self.low - new_low : self.low - new_low + have] = self.counts
        self.low, self.counts = new_low, wider


_SMALLEST = 1e-30  # what is smaller counts as zero
_OFFSET = math.ceil(-math.log(_SMALLEST) / math.log(_GAMMA)) + 1


def _bin(values: Array) -> Array:
    """The bin of each value: 0 for zero, growing with the value, negative for negative ones."""
    size = np.abs(values)
    with np.errstate(divide="ignore"):
        magnitude = np.ceil(np.log(size) / math.log(_GAMMA)) + _OFFSET
    return np.where(size < _SMALLEST, 0, np.sign(values) * np.maximum(magnitude, 1)).astype(np.int64)


def _value(bins: Array) -> Array:
    """The middle of a bin, within `ACCURACY` of all that is in it."""
    exponent = np.abs(bins) - _OFFSET
    return np.where(bins == 0, 0.0, np.sign(bins) * 2 * np.exp(exponent * math.log(_GAMMA)) / (_GAMMA + 1))


@dataclass(slots=True)
class Tensor:
    """What is counted of one tensor's gradient."""

    shape: tuple[int, ...]  # of one observation
    moments: Moments = field(default_factory=Moments)
    sketch: Sketch = field(default_factory=Sketch)
    spread: Spread = field(default_factory=Spread)
    features: tuple[str, ...] = ()


class Aggregate:
    """Figures over a data set, tensor by tensor."""

    def __init__(self, options: AggregateOptions) -> None:
        self.options = options
        self.tensors: dict[str, Tensor] = {}

    def add(self, inputs: Mapping[str, Array], gradients: Mapping[str, Array], features: Mapping[str, Sequence[str]], outputs: Any = None) -> None:
        """One sample's arrays; `outputs`, what was differentiated [rows], is needed for elasticities alone."""
        for name, gradient in gradients.items():
            by_row = name in self.options.inputs and gradient.ndim > 0
            rows = gradient if by_row else gradient[None]
            if self.options.units != "raw":
                if name not in inputs:
                    raise UsageError(f"--units {self.options.units} is for gradients by inputs, and '{name}' is none; choose with --wrt.")
                if self.options.units == "elasticity":
                    rows = _elasticity(name, rows, inputs[name] if by_row else inputs[name][None], outputs)
            tensor = self.tensors.setdefault(name, Tensor(rows.shape[1:]))
            if tensor.shape != rows.shape[1:]:
                raise UsageError(
                    f"The gradients by '{name}' have the shapes {tensor.shape} and {rows.shape[1:]}, which have no mean; give inputs of one shape."
                )
            tensor.features = tensor.features or tuple(features.get(name, ()))
            tensor.moments.add(rows)
            if any(q is not None for q in self.options.columns.values()):
                tensor.sketch.add(rows)
            if self.options.units == "std":
                tensor.spread.add(inputs[name] if by_row else inputs[name][None])

    def merge(self, other: Aggregate) -> None:
        """Adds what was counted elsewhere."""
        for name, theirs in other.tensors.items():
            mine = self.tensors.get(name)
            if mine is None:
                self.tensors[name] = theirs
                continue
            if mine.shape != theirs.shape:
                raise UsageError(f"The gradients by '{name}' have the shapes {mine.shape} and {theirs.shape}, which have no mean; give inputs of one shape.")
            mine.features = mine.features or theirs.features
            mine.moments.merge(theirs.moments)
            mine.sketch.merge(theirs.sketch)
            mine.spread.merge(theirs.spread)

    def figures(self, name: str) -> dict[str, Array]:
        """The figures of one tensor, {statistic: array of the shape of one observation}."""
        tensor = self.tensors[name]
        m = tensor.moments
        count = np.asarray(m.count)
        some = np.where(count > 0, count, np.nan)
        unit = np.asarray(tensor.spread.std) if self.options.units == "std" else 1.0
        found: dict[str, Array] = {}
        columns = self.options.columns
        wanted = [q for q in columns.values() if q is not None]
        quantiles = dict(zip(wanted, tensor.sketch.quantiles(wanted), strict=True)) if wanted else {}
        for statistic, q in columns.items():
            if q is not None:
                found[statistic] = quantiles[q].reshape(tensor.shape) * unit
            elif statistic == "mean":
                found["mean"] = m.total / some * unit
            elif statistic == "meanabs":
                found["meanabs"] = m.absolute / some * unit
            else:
                found["rms"] = np.sqrt(m.squares / some) * unit
        found["count"] = count
        if np.any(m.left_out):
            found["left_out"] = np.asarray(m.left_out)
        return {k: np.asarray(v) for k, v in found.items()}

    def arrays(self) -> dict[str, Array]:
        """All figures, {TENSOR/STATISTIC: array}."""
        return {f"{name}/{k}": v for name in self.tensors for k, v in self.figures(name).items()}

    def rows(self) -> list[dict[str, Any]]:
        """All figures as a table with a row an element: the tensor's name, the feature's (or the place), and the figures."""
        found = []
        for name, tensor in self.tensors.items():
            figures = self.figures(name)
            for place in np.ndindex(*tensor.shape):
                named = len(tensor.shape) == 1 and tensor.shape[0] == len(tensor.features)
                element = tensor.features[place[0]] if named else ",".join(map(str, place))
                found.append({"name": name, "feature": element, **{k: v[place].item() for k, v in figures.items()}})
        return found

    @property
    def size(self) -> int:
        """How many rows the table has."""
        return sum(math.prod(t.shape) for t in self.tensors.values())


def _elasticity(name: str, rows: Array, inputs: Array, outputs: Any) -> Array:
    y = np.asarray(outputs, np.float64).reshape(-1)
    if len(y) != len(rows):
        raise UsageError(f"An elasticity needs one output a row, and for '{name}' there are {len(y)} outputs and {len(rows)} rows.")
    with np.errstate(divide="ignore", invalid="ignore"):
        return rows.astype(np.float64) * inputs.astype(np.float64) / y.reshape(-1, *[1] * (rows.ndim - 1))


def chosen_sum(layer: Array, target: Any, cotangent: Any = None) -> Array:
    """What the gradient is of, row by row: the sum of the chosen components of a layer [rows, ...], or their product with the cotangent."""
    y = layer.astype(np.float64)
    chosen = parse_target(target)
    if cotangent is not None:
        y = y * np.asarray(cotangent)
    elif isinstance(chosen, str):
        y = y.reshape(len(y), -1).max(1) if y.ndim > 1 else y
    elif isinstance(chosen, (int, list)):
        y = np.take(y, [chosen] if isinstance(chosen, int) else chosen, axis=min(1, y.ndim - 1))
    elif chosen is not None:
        y = y[tuple(slice(i, i + 1 or None) if isinstance(i, int) else i for i in chosen)]
    return np.asarray(y.reshape(len(y), -1).sum(1) if y.ndim else y.reshape(1))
