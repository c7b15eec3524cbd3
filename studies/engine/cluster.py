"""The cluster on which cells run: no other module knows `dask.distributed`.

No disk is shared: every worker keeps pretrained stacks in a folder of its own, and makes a stack
again that its folder lacks.
"""

from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from functools import partial
from pathlib import Path

from studies.engine.executors import use_one_thread
from studies.engine.trial import Cell


class ClusterExecutor(Executor):
    """Runs calls on the workers of a dask cluster, one call at a time in each.

    A call whose worker dies is tried once more, as with local processes; a call that raises is not.

    Args:
        address: Address of the scheduler, such as `"tcp://10.0.0.1:8786"`.

    Raises:
        ImportError: If dask is not installed.
        ConnectionError: If no scheduler answers at the address.
        ValueError: If a worker has several threads, and so would run several calls at a time.
    """

    def __init__(self, address: str):
        self._client = _connected(address)
        self._executor = self._client.get_executor(pure=False)
        self.workers = self._checked()
        self._client.run_on_scheduler(_retry_once())

    def submit(self, fn: Callable, /, *args, **kwargs) -> Future:
        """Run `fn(*args, **kwargs)` on a worker, which must have the package of `fn` installed.

        The future raises `BrokenExecutor` if the worker died twice, or if the cluster is gone.
        """
        if self._client.status != "running":
            raise ConnectionError(
                "The cluster is gone. Expected its scheduler to run until the study is done. "
                f"Received: {self._client}"
            )
        answer = Future()
        future = self._executor.submit(fn, *args, **kwargs)
        future.add_done_callback(partial(_pass_on, answer))
        return answer

    def send(self, file: Path) -> None:
        """Give every worker a study's file, which then imports it by its name."""
        self._client.upload_file(str(file))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        # The scheduler drops what only this client waits for.
        self._client.close()

    def _checked(self) -> int:
        threads = self._client.nthreads()
        crowded = {worker: n for worker, n in threads.items() if n > 1}
        if crowded:
            self.shutdown()
            raise ValueError(
                "A worker with several threads would run as many cells at a time. Expected "
                f"workers with one thread (dask worker --nthreads 1). Received: {crowded}"
            )
        return len(threads)


def on_worker(run_cell: Callable[..., list[dict]], cell: Cell, _: Path) -> list[dict]:
    """Run a cell as a local worker would, in the process and the folder of a dask worker."""
    import distributed

    use_one_thread()
    return run_cell(cell, Path(distributed.get_worker().local_directory) / "cache")


def _connected(address: str):
    try:
        import distributed
    except ImportError as error:
        raise ImportError(
            "A cluster needs dask. Expected the extra `cluster` to be installed: "
            f'pip install "pretrain[cluster]". Received: {error}'
        ) from error
    try:
        return distributed.Client(address, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"There is no cluster: {error}. Expected the address of a dask scheduler. "
            f"Received: {address}"
        ) from error


def _retry_once() -> Callable:
    # Within a function, so that it is sent whole: the scheduler need not have this package.
    def set_allowed_failures(dask_scheduler):
        dask_scheduler.allowed_failures = 1

    return set_allowed_failures


def _pass_on(answer: Future, future: Future) -> None:
    from distributed.scheduler import KilledWorker

    try:
        answer.set_result(future.result())
    except KilledWorker as death:
        worker = death.last_worker.address
        answer.set_exception(
            BrokenExecutor(
                "The cluster's worker died 2 times (killed, or out of memory?). Expected a "
                f"result. See its log. Received: {worker}"
            )
        )
    except CancelledError:
        answer.set_exception(BrokenExecutor("The connection to the cluster was lost."))
    except BaseException as error:
        answer.set_exception(error)
