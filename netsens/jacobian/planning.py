"""Makes the plan of a Jacobian: the cheapest way by passes alone, or a product of two Jacobians through a waist where that is cheaper still."""

from __future__ import annotations

from dataclasses import replace

from netsens.errors import UsageError
from netsens.jacobian.direct import direct_plan
from netsens.jacobian.linearize import Linearizer
from netsens.jacobian.plan import Plan
from netsens.jacobian.waist import find_waist

MODES = ("auto", "forward", "reverse", "mixed")


def make_plan(lin: Linearizer, of: str | None = None, mode: str = "auto", memory_limit: int | None = None, through_waist: bool = True) -> Plan:
    """The cheapest plan, or the cheapest of a forced mode."""
    if mode not in MODES:
        raise UsageError(f"There is no mode '{mode}'; the modes are {', '.join(MODES)}.")
    plan = direct_plan(lin, of, "auto" if mode == "mixed" else mode, memory_limit)
    if not plan.relations or not plan.bytes or mode in ("forward", "reverse") or (mode == "auto" and not through_waist):
        return plan
    waist = find_waist(lin, plan.of, tuple(plan.relations), plan.passes if mode == "auto" else None, memory_limit)
    if mode == "mixed":
        if waist is None:
            raise UsageError(
                f"There is no narrow waist between {', '.join([*plan.relations][:3])} and '{plan.of}' to multiply two Jacobians through; use --mode auto."
            )
        return replace(plan, mode="mixed", parts=(), asked=mode, considered={"mixed": waist.cost}, waist=waist)
    if waist is None:
        return plan
    considered = {**plan.considered, "mixed": waist.cost}
    if waist.cost > plan.cost:
        return replace(plan, considered=considered)
    return replace(plan, mode="mixed", parts=(), considered=considered, waist=waist)
