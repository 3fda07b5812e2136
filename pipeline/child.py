"""Plumbing of the engine's child process: its signals, its end, and the two threads of its socket.

Knows nothing of engines: `pipeline.worker` gives it a function that serves calls on the main
thread. The reader thread puts calls into the queue and ends the process at once when the parent
closes the socket or dies; the writer thread sends answers, so that the engine does not wait for it.
"""

from __future__ import annotations

import ctypes
import logging
import os
import queue
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Final, NoReturn

from pipeline.call_queue import CallQueue, Parcel
from pipeline.framing import FramingError, encode, read_messages, write_buffers
from pipeline.messages import Answer, Call, EngineFailed

Serve = Callable[[CallQueue, Callable[[Answer], None]], EngineFailed | None]

MAX_ANSWERS: Final = 4096  # five minutes of speech; the engine waits when the parent reads nothing
LOG_FORMAT: Final = "%(levelname)s %(name)s: %(message)s"

_PR_SET_PDEATHSIG: Final = 1
_THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def prepare(*, parent_pid: int, num_threads: int) -> None:
    """Make this process a well-behaved child; before anything heavy is imported."""
    # Ctrl-C and a service manager's SIGTERM are the parent's to answer; it closes the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it died before the line above
        os._exit(1)
    for variable in _THREAD_VARIABLES:  # read by the libraries when torch loads them
        os.environ[variable] = str(num_threads)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format=LOG_FORMAT)


def serve(socket_fd: int, run: Serve) -> NoReturn:
    """Serve calls of the socket on this thread, then end the process; 1 if the engine failed."""
    sock = socket.socket(fileno=socket_fd)
    sock.set_inheritable(False)
    calls = CallQueue()
    answers: queue.Queue[Answer | None] = queue.Queue(MAX_ANSWERS)
    threading.Thread(target=_read, args=(sock, calls), name="engine-reader", daemon=True).start()
    writer = threading.Thread(
        target=_write, args=(sock, answers), name="engine-writer", daemon=True
    )
    writer.start()
    farewell = run(calls, answers.put)
    answers.put(farewell)
    if farewell is not None:
        answers.put(None)
    writer.join()
    _exit(0 if farewell is None else 1)


def _read(sock: socket.socket, calls: CallQueue) -> None:
    """Stops reading while the engine is far behind: then the rules of the parent's queue apply."""
    try:
        for message in read_messages(sock):
            assert isinstance(message, Call), message
            calls.put(Parcel(message), wait=True)
    except OSError:
        pass
    except FramingError as error:
        logging.getLogger(__name__).error("the parent sent no message: %s", error)
    _exit(0)


def _write(sock: socket.socket, answers: queue.Queue[Answer | None]) -> None:
    try:
        while (answer := answers.get()) is not None:
            write_buffers(sock, encode(answer))
    except OSError:
        _exit(0)


def _exit(code: int) -> NoReturn:
    """Without the teardown of libraries: the device may be in the middle of a step."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:  # also where the parent no longer takes the log
        os._exit(code)
