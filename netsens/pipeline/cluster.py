"""Workers of a Dask cluster, which are an extra. The model and its gradient graph go to each of them once; a lost worker costs its running units a retry."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from netsens.errors import NetsensError, RunError, UsageError
from netsens.pipeline.work import Result, Unit, Work
from netsens.pipeline.workers import AHEAD
from netsens.report.extras import require

LOCAL = "local"


def in_cluster(work: Work, units: Iterable[Unit], address: str, jobs: int | None) -> Iterator[Result]:
    """Results of the units, in their order. `address` is a scheduler's, or `local` for `jobs` worker processes on this machine."""
    distributed = require("distributed")
    cluster, client = connect(distributed, address, jobs)
    try:
        _await_workers(client, address)
        spread = client.scatter(work, broadcast=True, hash=False)
        waiting: deque[Any] = deque()
        left = iter(units)
        while True:
            ahead = AHEAD * max(len(client.nthreads()), 1)
            while len(waiting) < ahead and (unit := next(left, None)) is not None:
                waiting.append(client.submit(_one, spread, unit, pure=False, retries=2))
            if not waiting:
                break
            yield _result(waiting.popleft())
    finally:
        client.close()
        if cluster is not None:
            cluster.close()


def connect(distributed: Any, address: str, jobs: int | None) -> tuple[Any, Any]:
    """The cluster, where it is this run's own, and a client of it."""
    try:
        if address == LOCAL:
            cluster = distributed.LocalCluster(n_workers=jobs, threads_per_worker=1, processes=True, dashboard_address=None)
            return cluster, distributed.Client(cluster)
        return None, distributed.Client(address, timeout="20s")
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"no Dask scheduler answers at '{address}' ({error}); give its address, as tcp://host:8786, or local") from error


def _await_workers(client: Any, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=60)
    except Exception as error:  # its class differs between releases of Dask
        raise RunError(f"the Dask scheduler at '{address}' has had no worker for a minute; start some, as with: dask worker {address}") from error


def _one(work: Work, unit: Unit) -> Result:
    return work.apart(unit)


def _result(future: Any) -> Result:
    try:
        result = future.result()
    except NetsensError:
        raise
    except Exception as error:  # Dask's own errors: a worker lost again and again, a cancelled future
        raise RunError(f"the Dask cluster gave up on a unit ({type(error).__name__}: {error}); go on with --resume") from error
    assert isinstance(result, Result)
    return result
