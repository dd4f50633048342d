"""Workers on this machine: threads that read and write around one that computes, or processes that do all of it. Results come in the units' order."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from netsens.errors import RunError
from netsens.pipeline.interrupts import Interrupts
from netsens.pipeline.work import Outcome, Result, Unit, Work

AHEAD = 3  # units on their way for each worker: enough to keep it busy, few enough for memory to stay flat


def in_threads(work: Work, units: Iterable[Unit]) -> Iterator[Result]:
    """One thread reads ahead and one writes behind, while this one computes."""
    reading: deque[tuple[Unit, Future[list[Outcome]]]] = deque()
    writing: deque[Future[Result]] = deque()
    left = iter(units)
    readers, writers = ThreadPoolExecutor(1, "read"), ThreadPoolExecutor(1, "write")
    try:
        with Interrupts() as interrupts:
            while True:
                while len(reading) < AHEAD and (unit := _next(left, interrupts)) is not None:
                    reading.append((unit, readers.submit(work.read, unit)))
                if not reading:
                    break
                unit, read = reading.popleft()
                while writing and not read.done():  # what is written is told while a slow input is waited for
                    interrupts.first_done(read, writing[0])
                    if writing[0].done():
                        yield writing.popleft().result()
                samples = interrupts.result(read)
                with interrupts.allowed():
                    outcomes = work.compute(unit, samples)
                writing.append(writers.submit(work.write, outcomes))
                while writing and (len(writing) >= AHEAD or writing[0].done()):
                    yield interrupts.result(writing.popleft())
            while writing:
                yield interrupts.result(writing.popleft())
    except BaseException:
        for future in writing:
            future.cancel()
        raise
    finally:
        writers.shutdown()
        readers.shutdown(wait=False, cancel_futures=True)  # what is being read may never come


def in_processes(work: Work, units: Iterable[Unit], jobs: int) -> Iterator[Result]:
    """So many processes, each with the model and its gradient graph, which it gets once."""
    waiting: deque[Future[Result]] = deque()
    left = iter(units)
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _begin, (pickle.dumps(work),))
    try:
        with Interrupts() as interrupts:
            while True:
                while len(waiting) < AHEAD * jobs and (unit := _next(left, interrupts)) is not None:
                    waiting.append(pool.submit(_one, unit))
                if not waiting:
                    break
                yield interrupts.result(waiting.popleft())
    except BrokenProcessPool as error:
        raise RunError("a worker process died, likely for want of memory; the results so far are whole: go on with --resume and fewer --jobs") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _next(units: Iterator[Unit], interrupts: Interrupts) -> Unit | None:
    with interrupts.allowed():
        return next(units, None)


_work: Work | None = None


def _begin(pickled: bytes) -> None:
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers in good order
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _work = pickle.loads(pickled)


def _end_with_parent() -> None:
    """A parent that is killed takes its workers along, which would else wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _one(unit: Unit) -> Result:
    assert _work is not None
    return _work.apart(unit)
