"""Two ways to an engine: a thread of this process (tests, `--engine thread`) and a child process.

A channel carries calls one way and answers the other. Sending never blocks; `pipeline.call_queue`
has the order and the rules when full. `on_answer` is called on a thread of the channel, and the
last answer is always one `EngineFailed`, also after `close`: by then process, threads and
descriptors are gone, except for the calling thread itself, which ends right after (`join`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Final, Protocol

from pipeline import worker
from pipeline.call_queue import CallQueue, Parcel
from pipeline.framing import FramingError, encode, read_messages, write_buffers
from pipeline.messages import Answer, Call, EngineFailed
from pipeline.worker import WorkerOptions

logger = logging.getLogger(__name__)
engine_logger = logging.getLogger("engine")

OnAnswer = Callable[[Answer], None]

STOPPED: Final = "the engine was stopped"
_GRACE_S: Final = 2.0  # for a child to end by itself once its socket is closed
_MAX_LINE_CHARS: Final = 8192


class Channel(Protocol):
    """See the module's docstring."""

    def start(self, on_answer: OnAnswer) -> None:
        """Start the engine at the other end. Once."""

    def send(self, call: Call) -> bool:
        """Queue a call; False where the engine is too far behind to take it (see `CallQueue`).

        Arrays belong to the channel from then on: the caller does not change them any more.
        Ignored when the engine is gone: its `EngineFailed` is on the way.

        Raises:
            FramingError: a value that can not be sent.
        """

    def close(self) -> None:
        """Stop the engine, wherever it is; returns at once. Idempotent."""

    def join(self, timeout_s: float | None = None) -> None:
        """Wait for the channel's last thread; after its `EngineFailed` this takes no time."""


class ThreadChannel:
    """An engine on a thread of this process. Loading it, or a step, can not be interrupted."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._calls = CallQueue()
        self._thread: threading.Thread | None = None

    def start(self, on_answer: OnAnswer) -> None:
        self._thread = threading.Thread(
            target=self._run, args=(on_answer,), name="engine", daemon=True
        )
        self._thread.start()

    def send(self, call: Call) -> bool:
        return self._calls.put(Parcel(call))

    def close(self) -> None:
        self._calls.close()

    def join(self, timeout_s: float | None = None) -> None:
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self, on_answer: OnAnswer) -> None:
        farewell = worker.run(self._options, self._calls, on_answer)
        self._calls.close()
        on_answer(farewell or EngineFailed(error=STOPPED))


class ProcessChannel:
    """An engine in a child process, over a socket pair.

    The process is started by the thread that reads from it: Linux kills a child marked to die with
    its parent when the *thread* that started it ends, so that thread has to live as long.
    """

    def __init__(self, options: WorkerOptions, *, grace_s: float = _GRACE_S) -> None:
        self._options = options
        self._grace_s = grace_s
        self._calls = CallQueue()
        self._socket, self._child_socket = socket.socketpair()
        self._log, self._child_log = socket.socketpair()
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._is_closing = False

    @property
    def pid(self) -> int | None:
        """Of the child, once it has been started."""
        return self._process.pid if self._process else None

    def start(self, on_answer: OnAnswer) -> None:
        self._thread = threading.Thread(
            target=self._run, args=(on_answer,), name="engine-answers", daemon=True
        )
        self._thread.start()

    def send(self, call: Call) -> bool:
        return self._calls.put(Parcel(call, tuple(encode(call))))

    def close(self) -> None:
        self._is_closing = True
        self._calls.close()
        with contextlib.suppress(OSError):  # already closed by the thread
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._thread is None:
            self._close_sockets()

    def join(self, timeout_s: float | None = None) -> None:
        if self._thread is not None:
            self._thread.join(timeout_s)

    # ------------------------------------------------------------------ on the channel's threads
    def _run(self, on_answer: OnAnswer) -> None:
        farewell: EngineFailed | None = None
        try:
            process = self._spawn()
        except OSError as error:
            farewell = EngineFailed(error=f"the engine process did not start: {error}")
        else:
            farewell = self._attend(process, on_answer)
        self._calls.close()
        self._close_sockets()
        on_answer(EngineFailed(error=STOPPED) if self._is_closing else farewell)

    def _spawn(self) -> subprocess.Popen[bytes]:
        """`-P`: never import from the working directory. A group of its own: no Ctrl-C from the
        terminal while it is still starting.
        """
        fd = self._child_socket.fileno()
        command = [sys.executable, "-P", "-u", "-X", "faulthandler", "-m", "pipeline.worker"]
        arguments = [str(fd), str(os.getpid()), json.dumps(asdict(self._options))]
        self._process = subprocess.Popen(
            command + arguments,
            pass_fds=(fd,),
            stdin=subprocess.DEVNULL,
            stdout=self._child_log.fileno(),
            stderr=self._child_log.fileno(),
            process_group=0,
        )
        self._child_socket.close()
        self._child_log.close()
        return self._process

    def _attend(self, process: subprocess.Popen[bytes], on_answer: OnAnswer) -> EngineFailed:
        """Pass answers on until the child is gone; returns why it went."""
        writer = threading.Thread(target=self._write, name="engine-calls", daemon=True)
        log = threading.Thread(target=self._pass_log, name="engine-log", daemon=True)
        writer.start()
        log.start()
        farewell = self._read(on_answer)
        self._calls.close()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        return_code = self._reap(process)
        with contextlib.suppress(OSError):  # what it started may still hold the other end
            self._log.shutdown(socket.SHUT_RD)
        writer.join()
        log.join()
        return farewell or EngineFailed(error=_describe_end(return_code))

    def _read(self, on_answer: OnAnswer) -> EngineFailed | None:
        """Returns what the child said last, if it said why it ends."""
        try:
            for message in read_messages(self._socket):
                if isinstance(message, EngineFailed):
                    return message
                assert isinstance(message, Answer), message
                on_answer(message)
        except FramingError as error:
            if not self._is_closing:
                logger.warning("broken answer from the engine: %s", error)
        except OSError:
            pass  # the process says more about it
        return None

    def _write(self) -> None:
        try:
            while (parcel := self._calls.take()) is not None:
                write_buffers(self._socket, list(parcel.buffers))
        except OSError:
            self._calls.close()  # the reading thread sees the same end

    def _reap(self, process: subprocess.Popen[bytes]) -> int:
        try:
            return process.wait(self._grace_s)
        except subprocess.TimeoutExpired:
            logger.warning("the engine process %d does not end: killing it", process.pid)
            process.kill()
            return process.wait()

    def _pass_log(self) -> None:
        """Lines of the child become log records here; lines without a level keep the last one."""
        level = logging.INFO
        with self._log.makefile("r", errors="replace") as lines:
            while line := lines.readline(_MAX_LINE_CHARS):
                word, _, rest = line.rstrip().partition(" ")
                named = logging.getLevelNamesMapping().get(word)
                level = named if named is not None else level
                engine_logger.log(level, "%s", rest if named is not None else line.rstrip())

    def _close_sockets(self) -> None:
        for sock in (self._socket, self._child_socket, self._log, self._child_log):
            sock.close()


def _describe_end(return_code: int) -> str:
    if return_code >= 0:
        return f"the engine process ended with exit code {return_code}"
    return f"the engine process was killed by {signal.Signals(-return_code).name}"
