"""Work spread over processes: of this machine through joblib, of any number of machines through Dask."""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from joblib import Parallel, delayed

from debiaslib.errors import InputError

if TYPE_CHECKING:
    from distributed import Client

Result = TypeVar("Result")


def spread(work: Callable[..., Result], jobs: Sequence[tuple], *, workers: int = 1,
           scheduler: str | None = None) -> Iterator[Result]:
    """Call `work(*job)` for every job and yield each result as soon as it is there, in no order.

    In `workers` processes of this machine, or by the workers of a Dask `scheduler`, given by its address or its file. Raises
    InputError for fewer than one worker; when distributed is not installed or nobody answers; when there is no worker or one has
    several threads, whose jobs would wait for each other; and when scheduler or workers die.
    """
    if workers < 1:
        raise InputError(f"--workers {workers}: at least 1.")
    if scheduler is not None and jobs:
        return _on_cluster(work, jobs, scheduler)
    run = Parallel(n_jobs=min(workers, max(1, len(jobs))), return_as="generator_unordered")
    return run(delayed(work)(*job) for job in jobs)


def _on_cluster(work: Callable[..., Result], jobs: Sequence[tuple], scheduler: str) -> Iterator[Result]:
    """Not through joblib, whose Dask backend runs everything in this process if there is but one worker."""
    with _client(scheduler) as client:
        from distributed import KilledWorker, as_completed

        _check_threads(client, scheduler)
        try:
            for future in as_completed(client.map(work, *zip(*jobs, strict=True), pure=False)):
                yield future.result()
        except (CancelledError, KilledWorker) as error:
            raise InputError(f"--scheduler {scheduler}: scheduler or workers died ({str(error).splitlines()[0]}). Start them and "
                             "run the same command again: it continues where it stopped.") from None


def _client(scheduler: str) -> "Client":
    try:
        from distributed import Client
    except ImportError:
        raise InputError(f"--scheduler {scheduler}: distributed is not installed. Get it, on every machine, with: "
                         "python -m pip install 'distributed>=2024.8'") from None
    try:
        address = json.loads(Path(scheduler).read_text())["address"] if Path(scheduler).is_file() else scheduler
        return Client(address, timeout=5)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"--scheduler {scheduler}: no Dask scheduler answers there ({error}). Start one with `dask scheduler`, "
                         "which tells its address.") from None


def _check_threads(client: "Client", scheduler: str) -> None:
    threads = list(client.nthreads().values())
    if set(threads) != {1}:
        found = f"workers of {' and '.join(map(str, threads))} threads" if threads else "no workers"
        raise InputError(f"--scheduler {scheduler}: has {found}. Start them with `dask worker --nthreads 1 --memory-limit 0 "
                         f"{scheduler}`, as many as should run at once.")
