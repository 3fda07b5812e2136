"""The one error of the benchmarks: something that the person who started it must mend."""

from __future__ import annotations


class BenchError(Exception):
    """A bad file, no server, a refused session; the message is one line."""

    exit_code = 1
