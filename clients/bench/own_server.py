"""A server of a benchmark's own: on a free port of this machine, for as long as it is needed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from clients.bench.address import Address, ask_health, parse_address
from clients.bench.errors import BenchError

START_S = 180.0
STOP_S = 20.0


@asynccontextmanager
async def own_server(model: str | None) -> AsyncIterator[tuple[int, Address]]:
    """A server that is ready: its process and where it is.

    Raises:
        BenchError: it does not start.
    """
    flags = ["--port", "0", "--log-level", "error", *(["--model", model] if model else [])]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "daemon", "serve", *flags, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        if not line.startswith("Open "):
            raise BenchError(f"the server did not start: {line.strip() or 'it ended'}")
        url = line.removeprefix("Open ").strip().rstrip("/")
        address = parse_address(url, model="", api_key=None, is_insecure=False)
        async with asyncio.timeout(START_S):
            while (await ask_health(address)).get("state") != "ready":  # noqa: ASYNC110 - by HTTP
                await asyncio.sleep(0.5)
        yield process.pid, address
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(STOP_S):
            await process.wait()
