"""Workers of a Dask cluster, which are an extra. The model and its gradient graph go to each of them once; a lost worker costs its running units a retry."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from netsens.errors import NetsensError, RunError, UsageError
from netsens.pipeline.work import Result, Unit, Work
from netsens.pipeline.workers import AHEAD
from netsens.report.extras import require

LOCAL = "local"
TRIES = 3


def in_cluster(work: Work, units: Iterable[Unit], address: str, jobs: int | None) -> Iterator[Result]:
    """Results of the units, in their order. `address` is a scheduler's, or `local` for `jobs` worker processes on this machine."""
    distributed = require("distributed")
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # its warnings are tracebacks; what matters comes as an error
    cluster, client = connect(distributed, address, jobs)
    try:
        _await_workers(client, address)
        sent = _Sent(client, work)
        waiting: deque[tuple[Unit, Any]] = deque()
        left = iter(units)
        while True:
            ahead = AHEAD * max(len(client.nthreads()), 1)
            while len(waiting) < ahead and (unit := next(left, None)) is not None:
                waiting.append((unit, sent.submit(unit)))
            if not waiting:
                break
            yield sent.result(*waiting.popleft())
    finally:
        client.close()
        if cluster is not None:
            cluster.close()


class _Sent:
    """The work as the cluster's workers have it. Dask itself computes anew what a lost worker was computing; what it had computed and not yet handed over,
    or the work itself where no other worker held it, can be gone for Dask, and is sent again from here."""

    def __init__(self, client: Any, work: Work) -> None:
        work.question.model.without_files()
        self.client, self.work = client, work
        self.spread = client.scatter(work, broadcast=True, hash=False)

    def submit(self, unit: Unit) -> Any:
        return self.client.submit(_one, self.spread, unit, pure=False, retries=TRIES)

    def result(self, unit: Unit, future: Any) -> Result:
        for left in reversed(range(TRIES)):
            try:
                result = future.result()
                assert isinstance(result, Result)
                return result
            except NetsensError:
                raise
            except Exception as error:  # Dask's own: a worker lost again and again, a result that went with it
                if not left or type(error).__name__ == "KilledWorker":
                    names = ", ".join(f"'{entry.source}'" for entry in unit.entries[:3])
                    raise RunError(f"the Dask cluster gave up on {names} ({type(error).__name__}: {error}); go on with --resume") from error
                if self.spread.status != "finished":
                    self.spread = self.client.scatter(self.work, broadcast=True, hash=False)
                future = self.submit(unit)
        raise AssertionError(unit)


def connect(distributed: Any, address: str, jobs: int | None) -> tuple[Any, Any]:
    """The cluster, where it is this run's own, and a client of it."""
    _check_reachable(address)
    try:
        if address == LOCAL:
            cluster = distributed.LocalCluster(n_workers=jobs, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=logging.CRITICAL)
            return cluster, distributed.Client(cluster)
        return None, distributed.Client(address, timeout="20s")
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"no Dask scheduler answers at '{address}' ({error}); give its address, as tcp://host:8786, or local") from error


def _check_reachable(address: str) -> None:
    """Raises at once where nobody listens; Dask would try for many seconds."""
    import socket
    from urllib.parse import urlsplit

    place = urlsplit(address)
    if place.scheme not in ("tcp", "tls") or not place.hostname:
        return  # Dask knows other kinds of address
    try:
        socket.create_connection((place.hostname, place.port or 8786), timeout=20).close()
    except (OSError, ValueError) as error:
        raise UsageError(f"no Dask scheduler answers at '{address}' ({error}); start one (dask scheduler), or give --dask local") from error


def _await_workers(client: Any, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=60)
    except Exception as error:  # its class differs between releases of Dask
        raise RunError(f"the Dask scheduler at '{address}' has had no worker for a minute; start some, as with: dask worker {address}") from error


def _one(work: Work, unit: Unit) -> Result:
    return work.apart(unit)
