"""The processes in which cells run: executors of `concurrent.futures`.

`LocalExecutor` has one process per worker. The driver calls `submit` and nothing else, so that any
executor will do.
"""

import gc
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from multiprocessing import connection, resource_tracker
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO

import psutil
from tqdm import tqdm

from studies.engine.trial import Cell
from studies.engine.worker import package

# One thread per worker: the order of floating-point sums, and so every result, is then the same
# however many workers share the machine.
_ONE_THREAD = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
_XLA_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false"

_ATTEMPTS = 2
# A process that computes less than a little in this time stands still.
_STILL_SECONDS = 120.0
_LITTLE_WORK_SECONDS = 0.1
# A scheduler that is there answers at once.
_CONNECT_SECONDS = 10
# What a container may take of its machine.
_CGROUP = Path("/sys/fs/cgroup")


class HereExecutor(Executor):
    """Runs calls in this process, one after the other, when they are submitted.

    Functions of a notebook, which no other process can import, run here.
    """

    workers = 1

    def submit(self, fn: Callable, /, *args, **kwargs) -> Future:
        """Run `fn(*args, **kwargs)` now; the future is done. Ctrl-C is raised at once."""
        future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class LocalExecutor(ThreadPoolExecutor):
    """Runs calls in processes of this machine, one call at a time in each.

    A process that dies (out of memory, killed) is replaced and takes down nothing but its own call,
    which is tried once more. A call that raises is not tried again. If the driver dies, the
    processes end, too.

    Between calls, a process that holds more than `memory` bytes is replaced; by default,
    `memory` is half of a worker's share of the machine's memory. The bound is on memory and not on
    the number of calls, since what a call leaves behind depends on its size, and a new process must
    import and compile everything anew. Processes print into `worker-0.log` and so on, in `logs`.
    """

    def __init__(self, workers: int, logs: Path, memory: int | None = None):
        super().__init__(workers, initializer=_block_ctrl_c)
        self.workers = workers
        memory = memory or machine_memory() // (2 * workers)
        self._workers = [_Worker(logs / f"worker-{i}.log", memory) for i in range(workers)]
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)

    def submit(self, fn: Callable, /, *args, **kwargs) -> Future:
        """Run `fn(*args, **kwargs)`, all of it picklable, in a process.

        The future raises `BrokenProcessPool` if the process died twice.
        """
        return super().submit(self._call, fn, *args, **kwargs)

    def trouble(self) -> str:
        """What keeps calls from ending, in words; empty if nothing does."""
        return "\n".join(filter(None, (worker.trouble() for worker in self._workers)))

    def kill(self) -> None:
        """Kill all processes; the calls that they were running are lost."""
        for worker in self._workers:
            worker.kill()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait, cancel_futures=cancel_futures)
        for worker in self._workers:
            worker.close()

    def __exit__(self, error, *_) -> bool:
        if error:
            self.kill()
        self.shutdown(cancel_futures=True)
        return False

    def _call(self, fn: Callable, *args, **kwargs):
        worker = self._idle.get()
        worker.is_busy = True
        try:
            return worker.call(fn, *args, **kwargs)
        finally:
            worker.is_busy = False
            self._idle.put(worker)


class _Worker:
    """One process at a time, in a pool of its own, so that a death is that of a known call."""

    def __init__(self, log: Path, memory: int):
        self._log, self._memory = log, memory
        self._killed = False
        self._pool: ProcessPoolExecutor | None = None
        self._process: multiprocessing.Process | None = None
        self.is_busy = False
        # When the process had last computed something, and how much until then.
        self._moved, self._computed = time.monotonic(), 0.0

    def trouble(self) -> str:
        """Say so if the process is busy and has computed nothing for a while."""
        process, now = self._process, time.monotonic()
        computed = _cpu_seconds(process) if process and self.is_busy else math.inf
        if abs(computed - self._computed) > _LITTLE_WORK_SECONDS or computed == math.inf:
            self._moved, self._computed = now, computed
        if now - self._moved < _STILL_SECONDS:
            return ""
        return (
            f"A worker's process stands still: {process.pid} has computed nothing for "
            f"{_STILL_SECONDS:g} seconds. If it was stopped, let it go on; if it is killed, its "
            f"cell is tried once more. See {self._log.name}."
        )

    def call(self, fn: Callable, *args, **kwargs):
        self._recycle()
        for _ in range(_ATTEMPTS):
            try:
                return self._started().submit(fn, *args, **kwargs).result()
            except BrokenProcessPool as error:
                death = error
                self.close()
            if self._killed:
                break
        raise BrokenProcessPool(
            f"The worker's process died {_ATTEMPTS} times, {self._last_words()}. "
            f"Expected a result. See {self._log.name}. Received: {death}"
        )

    def kill(self) -> None:
        self._killed = True
        if self._process:
            self._process.kill()

    def close(self) -> None:
        if self._pool:
            self._pool.shutdown()
        self._pool = None

    def _recycle(self) -> None:
        """Close a process that has grown too large, or has died since its last call."""
        try:
            if self._pool and self._pool.submit(_memory).result() > self._memory:
                self.close()
        except BrokenProcessPool:
            self.close()

    def _started(self) -> ProcessPoolExecutor:
        if not self._pool:
            self._process = None
            self._pool = ProcessPoolExecutor(
                max_workers=1,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_prepare,
                initargs=(self._log,),
            )
            pid = self._pool.submit(os.getpid).result()
            children = multiprocessing.active_children()
            self._process = next((child for child in children if child.pid == pid), None)
        # Only now can `kill` find the process; `kill` may have been called before.
        if self._killed:
            self.kill()
            raise BrokenProcessPool("The executor was killed.")
        return self._pool

    def _last_words(self) -> str:
        code = self._process.exitcode if self._process else None
        if code is None:
            return "before it could begin"
        if code == -9:
            return "killed by SIGKILL, as the system does when memory runs out (try fewer workers)"
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"


def machine_memory() -> int:
    """Bytes of memory of the machine, or of the container."""
    limit = _limit("memory.max") or _limit("memory/memory.limit_in_bytes")
    return min([psutil.virtual_memory().total, *limit])


def cores() -> int:
    """The number of cores that this process may use, in a container those of its quota."""
    # macOS does not have it.
    affinity = getattr(os, "sched_getaffinity", None)
    found = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = _limit("cpu.max") or _limit("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")
    time, period = quota or (math.inf, 1)
    return max(1, int(min(found, time / period)))


def _limit(*names: str) -> list[int]:
    """The numbers in files that limit a container; empty if there is no limit."""
    with suppress(OSError, ValueError):
        texts = [(_CGROUP / name).read_text() for name in names]
        numbers = [int(number) for number in " ".join(texts).split()]
        # The second version of control groups writes "max" for no limit, the first version -1.
        return numbers if min(numbers) > 0 else []
    return []


def _memory() -> int:
    """Bytes of memory that this process holds."""
    return psutil.Process().memory_info().rss


def _cpu_seconds(process: multiprocessing.Process) -> float:
    """Seconds that a process has computed; infinity if it has ended."""
    try:
        times = psutil.Process(process.pid).cpu_times()
    except psutil.Error:
        return math.inf
    return times.user + times.system


def _block_ctrl_c() -> None:
    """Ctrl-C goes to all processes of the terminal; the driver decides what it means.

    Processes that a thread starts inherit what the thread blocks, from their first moment on.
    """
    if hasattr(signal, "pthread_sigmask"):
        # Where this process of multiprocessing is started, it unblocks the signal again.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _prepare(log: Path) -> None:
    """Prepare a new process, before it imports Keras."""
    threading.Thread(target=_exit_with_driver, daemon=True).start()
    # Windows knows no blocked signals.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A bar would take a lock between processes, which a process that is killed cannot give back.
    tqdm.set_lock(threading.RLock())
    use_one_thread()
    # JAX would reserve most of an accelerator's memory for the first of several workers.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    _redirect_output(log)


def use_one_thread() -> None:
    """Tell the libraries that this process has not imported yet to compute in one thread."""
    flags = os.environ.get("XLA_FLAGS", "")
    # TensorFlow logs errors, but not how it starts.
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"), TF_CPP_MIN_LOG_LEVEL="2")
    if _XLA_ONE_THREAD not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_XLA_ONE_THREAD}".strip()


def _exit_with_driver() -> None:
    connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _redirect_output(log: Path) -> None:
    """Send what is printed to a file, also by libraries that bypass Python's `sys.stdout`."""
    with _opened(log) as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)


def _opened(log: Path) -> BinaryIO:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return log.open("ab")
    except OSError:
        # A full disk must not look like a death; the driver will meet the full disk, and say so.
        return Path(os.devnull).open("ab")


# No other part of the package knows dask. The workers of a cluster share no disk: each worker
# keeps pretrained stacks in a folder of its own, and makes a stack again that its folder lacks.


class ClusterExecutor(Executor):
    """Runs calls on the workers of a dask cluster, one call at a time in each.

    A call whose worker dies is tried once more, as with local processes; a call that raises is not.

    Args:
        address: Address of the scheduler, such as `"tcp://10.0.0.1:8786"`.

    Raises:
        ImportError: If dask is not installed.
        ConnectionError: If no scheduler answers at the address.
        ValueError: If a worker has several threads, and so would run several calls at a time; or if
            it lacks this package, since a call that it cannot read never ends.
    """

    def __init__(self, address: str):
        self._client = _connected(address)
        self._executor = self._client.get_executor(pure=False)
        self._known: set[str] = set()
        try:
            self.workers = self._checked()
            self._client.run_on_scheduler(_retry_once())
        except BaseException:
            self.shutdown()
            raise

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

    def trouble(self) -> str:
        """What keeps calls from ending, in words; empty if nothing does."""
        try:
            workers = set(self._client.nthreads())
            if workers:
                return self._lacking(workers - self._known)
        # Of a cluster that is lost, anything; the calls in flight end with an error that says so.
        except Exception:
            return ""
        return "The cluster has no worker left. Cells wait until a worker comes."

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
            raise ValueError(
                "A worker with several threads would run as many cells at a time. Expected "
                f"workers with one thread (dask worker --nthreads 1). Received: {crowded}"
            )
        if lacking := self._lacking(set(threads)):
            raise ValueError(lacking)
        return len(threads)

    def _lacking(self, workers: set[str]) -> str:
        """Say so if workers, which are then known, have another package than this process."""
        self._known |= workers
        found = self._client.run(_import_package(), workers=[*workers]) if workers else {}
        lacking = {worker: version for worker, version in found.items() if version != package()}
        if not lacking:
            return ""
        return (
            "Workers of the cluster have another version of this package, or none. Expected the "
            f"source {package()}: install this version there, and start the workers anew. "
            f"Received: {lacking}"
        )


def on_worker(
    run_cell: Callable[..., list[dict]], cell: Cell, _: Path, **options: Any
) -> list[dict]:
    """Run a cell as a local worker would, in the process and the folder of a dask worker."""
    import distributed

    use_one_thread()
    return run_cell(cell, Path(distributed.get_worker().local_directory) / "cache", **options)


def _connected(address: str):
    try:
        import distributed
    except ImportError as error:
        raise ImportError(
            "A cluster needs dask. Expected the extra `cluster` to be installed: "
            f'pip install "pretrain[cluster]". Received: {error}'
        ) from error
    try:
        return distributed.Client(address, set_as_default=False, timeout=_CONNECT_SECONDS)
    # An address that makes no sense raises any exception.
    except Exception as error:
        reason = str(error)
    # A client that failed closes itself when it is collected. If that happens while another client
    # starts, both wait for each other forever. So it is collected here, where the error that holds
    # the client is gone.
    gc.collect()
    raise ConnectionError(
        f"There is no cluster: {reason}. Expected the address of a dask scheduler. "
        f"Received: {address}"
    )


def _retry_once() -> Callable:
    # Within a function, so that it is sent whole: the scheduler need not have this package.
    def set_allowed_failures(dask_scheduler):
        dask_scheduler.allowed_failures = 1

    return set_allowed_failures


def _import_package() -> Callable:
    # Sent whole, too: a worker that lacks the package could not read a call of it.
    def version_of_package():
        try:
            from studies.engine.worker import package

            return package()
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    return version_of_package


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
