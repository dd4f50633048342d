"""One contender of a benchmark, in a process of its own: it sets itself up, hands over its gradient, says `ready`, and then takes a turn for every line on
standard input and prints how long a run took. Its memory is so its own, and it may be run by another Python, with packages that don't go together with this one's.

    python tests/benchmarks/contender.py NAME '{"model": "m.onnx", "x": "x.npy", "hand": "out.npz", "by": "input", "wrt": ["conv.weight"], "threads": 2, ...}'

A turn is as many runs in a row as fit into a fiftieth of a second, and the median of those behind the first, so that each finds its own memory warm."""

from __future__ import annotations

import importlib
import json
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

TURN = 0.02  # seconds
CONTENDERS = {
    "forward": ("runtime", "forward"), "netsens": ("runtime", "gradient"), "torch": ("pytorch", "eager"), "compile": ("pytorch", "compiled"),
    "jax": ("jax_twins", "gradient"), "ort-training": ("training", "gradient"), "graph_grad": ("graph_grad", "gradient"),
}  # fmt: skip


def peak_bytes() -> int:
    """The most memory this process has had; what its parent had when it forked doesn't count, where the system tells."""
    try:
        status = Path("/proc/self/status").read_text()
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def turn(run: Any) -> float:
    """Seconds of a run."""
    seconds: list[float] = []
    end = time.perf_counter() + TURN
    while not seconds or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:] or seconds)


def yield_memory() -> None:
    """Where the machine's memory runs out, it is this process that is ended, not another's."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        pass


def say(**answer: Any) -> None:
    print(json.dumps(answer), flush=True)


def main() -> None:
    name, case = sys.argv[1], json.loads(sys.argv[2])
    yield_memory()
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # in place of this folder, whose names are not modules
    import numpy as np

    from tests.benchmarks.digest import digest, inputs, write

    module, function = CONTENDERS[name]
    try:
        prepare = getattr(importlib.import_module(f"tests.benchmarks.contenders.{module}"), function)
        x = np.load(case["x"])
        start = time.perf_counter()
        ready = prepare(case, x)
        result = ready.run()
        seconds = time.perf_counter() - start
        del result
        if ready.named is not None:
            given, found = inputs(x), []
            for other in [*given[1:], given[0]]:  # in place, as all of them read the input anew in each run; and in the end as it was
                x[...] = other
                found.append(digest(ready.named(ready.run())))
            write(case["hand"], found)
    except Exception as error:  # whatever it is, this contender doesn't take part
        say(failed=getattr(error, "word", "refused"), why=f"{type(error).__name__}: {' '.join(str(error).split())[:500]}")
        return
    say(ready=seconds, model=ready.model)
    for _ in sys.stdin:
        try:
            say(seconds=turn(ready.run), peak=peak_bytes())
        except Exception as error:
            say(failed="failed", why=f"{type(error).__name__}: {' '.join(str(error).split())[:500]}")
            return


if __name__ == "__main__":
    main()
