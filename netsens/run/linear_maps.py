"""The derivatives of a model as linear maps, for inputs of any values: their programs are built once for inputs of one shape."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from netsens.errors import NetsensWarning, UsageError
from netsens.graph.graph import Array
from netsens.graph.selectors import selectors_of
from netsens.jacobian.answer import Point, Prepared, prepared
from netsens.modes.target import Target
from netsens.run.plans import Plans
from netsens.run.session import Session


class LinearMaps:
    """Of one model, whose sessions `plans` holds."""

    def __init__(self, plans: Plans) -> None:
        self._plans = plans
        self._prepared: dict[Any, Prepared] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process all is prepared anew."""
        return LinearMaps, (self._plans,)

    def at(self, feeds: dict[str, Array], of: str | None, wrt: str | Sequence[str], target: Target, method: str, *, second: bool) -> Point:
        """The linear map at these inputs. `second`: that of the gradient."""
        if method not in ("auto", "autodiff"):
            raise UsageError(f"The method '{method}' is not auto or autodiff.")
        shapes = tuple((k, v.shape) for k, v in feeds.items())
        wrt = selectors_of(wrt)
        key = (of, tuple(wrt), repr(target), method, shapes, second)
        if key not in self._prepared or not self._prepared[key].holds(feeds):
            options = replace(self._plans.options, turns=True)
            self._prepared[key] = prepared(self._plans.observed(feeds), feeds, of, wrt, target, lambda g: Session(g, options), method == "auto", second)
        found = self._prepared[key]
        for note in found.notes:
            warnings.warn(note, NetsensWarning, stacklevel=3)
        return found.at(feeds)
