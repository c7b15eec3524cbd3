"""Where cells run: `concurrent.futures` executors.

`LocalExecutor` has one process per worker. The driver needs nothing but `submit`, so that any other
executor does too.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from pathlib import Path
from queue import SimpleQueue

# One thread per worker: the order of floating-point sums, and so every result, is then the same
# however many workers share the machine.
_ONE_THREAD = {
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
_XLA_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false"

_ATTEMPTS = 2


class LocalExecutor(ThreadPoolExecutor):
    """Runs calls in processes of this machine, one call at a time in each.

    A process that dies (out of memory, killed) is replaced and takes down nothing but its own
    call, which is tried once more. A call that raises is not. If the driver dies, so do they.

    Args:
        workers: Number of processes.
        logs: Folder for what the processes print: `worker-0.log` and so on.
    """

    def __init__(self, workers: int, logs: Path):
        super().__init__(workers)
        self._workers = [_Worker(logs / f"worker-{i}.log") for i in range(workers)]
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)

    def submit(self, fn: Callable, /, *args, **kwargs) -> Future:
        """Run `fn(*args, **kwargs)`, all picklable, in a process.

        Returns:
            A future. It raises `BrokenProcessPool` if the process died twice.
        """
        return super().submit(self._call, fn, *args, **kwargs)

    def kill(self) -> None:
        """Kill all processes; what they were running is lost."""
        for worker in self._workers:
            worker.killed = True
        pids = {worker.pid for worker in self._workers}
        for process in multiprocessing.active_children():
            if process.pid in pids:
                process.kill()

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
        try:
            return worker.call(fn, *args, **kwargs)
        finally:
            self._idle.put(worker)


class _Worker:
    """One process at a time, in a pool of its own, so that it is clear whose death it was."""

    def __init__(self, log: Path):
        self.pid: int | None = None
        self.killed = False
        self._log = log
        self._pool: ProcessPoolExecutor | None = None

    def call(self, fn: Callable, *args, **kwargs):
        for _ in range(_ATTEMPTS):
            try:
                return self._started().submit(fn, *args, **kwargs).result()
            except BrokenProcessPool as error:
                death = error
                self.close()
            if self.killed:
                break
        raise BrokenProcessPool(
            f"The worker's process died {_ATTEMPTS} times (killed, or out of memory?). "
            f"Expected a result. See {self._log.name}. Received: {death}"
        )

    def close(self) -> None:
        if self._pool:
            self._pool.shutdown()
        self._pool = None

    def _started(self) -> ProcessPoolExecutor:
        if not self._pool:
            self._pool = ProcessPoolExecutor(
                max_workers=1,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_prepare,
                initargs=(self._log,),
            )
            self.pid = self._pool.submit(os.getpid).result()
        # Only now can `kill` find the process; it may have come before.
        if self.killed:
            raise BrokenProcessPool("The executor was killed.")
        return self._pool


def _prepare(log: Path) -> None:
    """Prepare a new process, before it imports Keras."""
    threading.Thread(target=_exit_with_driver, daemon=True).start()
    # Ctrl-C goes to all processes of the terminal; what it means is the driver's to decide.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ.update(_ONE_THREAD, TF_CPP_MIN_LOG_LEVEL="3")
    os.environ["XLA_FLAGS"] = f"{flags} {_XLA_ONE_THREAD}".strip()
    _redirect_output(log)


def _exit_with_driver() -> None:
    connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _redirect_output(log: Path) -> None:
    """Send what is printed to a file, also by libraries that bypass Python's `sys.stdout`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
