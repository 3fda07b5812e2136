"""The server as a whole, and `omnid serve`.

Routes are `daemon.routes`, who may use them is `daemon.auth`, what happens in a session is
`daemon.sessions` and the two transports. Ctrl-C ends everything at once and the command with 130.
SIGTERM lets sessions finish first (bounded) and ends with 0; a second one ends at once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from daemon import build, garbage, logs, routes, webrtc
from daemon.auth import ApiKeys, Gate, check_bind
from daemon.chat import add_chat
from daemon.client_secrets import ClientSecrets
from daemon.closing_protocol import ClosingProtocol
from daemon.description import add_description
from daemon.metrics import Metrics
from daemon.protocol import ProtocolError
from daemon.sessions import Sessions, Supervisor
from daemon.settings import Settings, SettingsError, cache_folder, load
from daemon.speech import add_speech
from daemon.status import add_status
from daemon.wire_session import Voices
from pipeline.errors import EngineLostError
from pipeline.listening.judges import load_judges
from pipeline.vad import SileroVad, Vad

log = logging.getLogger(__name__)

INTERRUPTED = 128 + signal.SIGINT
LISTEN_BACKLOG = 128
BABBLING = "This is a small untrained model: it babbles. Give --model for one that makes sense."


class ServerError(Exception):
    """The server can not run; the message says why on one line."""

    exit_code = 1


# ------------------------------------------------------------------------------- the application
def create_app(
    settings: Settings, supervisor: Supervisor, *, new_vad: Callable[[], Vad] = SileroVad
) -> FastAPI:
    """The whole server as an ASGI application; its lifespan starts and ends the supervisor."""
    build.about()  # asks git once, before anybody waits for /healthz
    metrics = Metrics()
    smart_turn = settings.turn_detection.smart_turn
    judges = load_judges(Path(smart_turn) if smart_turn else None)
    sessions = Sessions(settings, supervisor, metrics, new_vad=new_vad, judges=judges)
    secrets = ClientSecrets()
    keys = ApiKeys(settings.server.api_keys, secrets)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        webrtc.install(sessions)
        await supervisor.start()
        try:
            async with sessions.running():
                yield
        finally:
            await supervisor.aclose()

    app = FastAPI(title="omnid", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.sessions = sessions
    if settings.server.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.server.allowed_origins),
            allow_methods=["POST", "GET", "OPTIONS"],
            allow_headers=["*"],  # SDKs send many of their own; the origin is what counts
            expose_headers=routes.EXPOSED_HEADERS,
        )
    app.add_middleware(Gate, settings=settings.server)
    routes.add_errors(app)
    routes.add_realtime(app, sessions, keys)
    routes.add_secrets(app, sessions, keys, secrets)
    add_status(app, supervisor, sessions, keys)
    add_chat(app, sessions, keys)
    add_speech(app, sessions, keys)
    add_description(app)
    routes.add_page(app)
    return app


# ------------------------------------------------------------------------------- the command
def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `omnid serve`; what is not given comes from the settings."""
    flags: list[tuple[str, str, dict[str, Any]]] = [
        ("--model", "engine.model", {"metavar": "DIR|HUB-ID", "help": "checkpoint to serve"}),
        ("--host", "server.host", {"metavar": "ADDRESS", "help": "where to listen (127.0.0.1)"}),
        ("--port", "server.port", {"type": int, "metavar": "PORT", "help": "port (8765); 0: any"}),
        ("--tls", "server.tls", {"choices": ["off", "auto", "files"], "help": "auto: self-signed"}),
        ("--device", "engine.device", {"metavar": "DEVICE", "help": "auto, cpu, cuda, cuda:N"}),
        (
            "--dtype",
            "engine.dtype",
            {"metavar": "DTYPE", "help": "auto, float32, bfloat16, float16"},
        ),
        (
            "--experts",
            "engine.experts",
            {
                "choices": ["full", "int8", "fp8", "int4"],
                "help": "how they are kept in memory (full)",
            },
        ),
        (
            "--graphs",
            "engine.graphs",
            {"choices": ["auto", "on", "off"], "help": "fused kernels in CUDA graphs (auto)"},
        ),
        (
            "--engine",
            "engine.runs_in",
            {"choices": ["process", "thread"], "help": "where the model runs (process)"},
        ),
        (
            "--log-level",
            "log.level",
            {"choices": ["debug", "info", "warning", "error"], "help": "how much is logged (info)"},
        ),
    ]
    for flag, dest, options in flags:
        parser.add_argument(flag, dest=dest, default=None, **options)
    parser.add_argument(
        "--api-key", metavar="KEY", help="key that clients must give (better: OMNID_API_KEY)"
    )
    parser.add_argument(
        "--insecure",
        dest="server.insecure",
        action="store_true",
        default=None,
        help="listen publicly without key or TLS",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML over the defaults")


def run(args: argparse.Namespace) -> int:
    """Serve until a signal; returns the exit code.

    Raises:
        SettingsError: a setting is wrong.
        ServerError: the address can not be listened on, or the model's folder is not there.
    """
    overrides = {key: value for key, value in vars(args).items() if "." in key}
    if args.api_key is not None:
        overrides["server.api_keys"] = [args.api_key]
    settings = load(args.config, overrides)
    check_bind(settings.server)
    _check_model(settings.engine.model)
    logs.configure(settings.log.level, settings.log.format)
    # imported here, so that flags and settings are checked before anything heavy is loaded
    from daemon.supervisor import EngineSupervisor
    from pipeline.worker import WorkerOptions

    engine = settings.engine
    options = WorkerOptions(
        model=engine.model,
        cache_folder=str(cache_folder()),
        device=engine.device,
        dtype=engine.dtype,
        experts=engine.experts,
        devices=engine.devices.named(),
        graphs=engine.graphs,
        audio_window_s=engine.audio_window_s,
        camera_window_s=engine.camera_window_s,
        num_threads=engine.num_threads,
        stuck_after_s=engine.stuck_after_s,
    )
    supervisor = EngineSupervisor(options, mode=engine.runs_in)
    with _listen(settings.server.host, settings.server.port) as listener:
        return asyncio.run(serve(settings, supervisor, listener))


def _check_model(model: str) -> None:
    """A folder that is not there is told at once; other faults of a model, by /healthz."""
    if model.startswith((".", "/", "~")) and not Path(model).expanduser().is_dir():
        raise ServerError(f"no such checkpoint folder: {model}")


@contextlib.contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=LISTEN_BACKLOG)
    except OSError as error:
        where = f"{host}:{port}"
        if error.errno == errno.EADDRINUSE:
            raise ServerError(f"{where} is in use already: give another --port") from error
        raise ServerError(f"can not listen on {where}: {error.strerror or error}") from error
    with listener:
        yield listener


class Server(uvicorn.Server):
    """uvicorn, with signals left to us: its own handling raises them once more at the end; and
    `sessions` end before it closes their connections, so that their clients can be told.
    """

    def __init__(self, config: uvicorn.Config, sessions: Sessions) -> None:
        super().__init__(config)
        self._sessions = sessions
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See `uvicorn.Server`."""
        await super().startup(sockets)
        self.listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See `uvicorn.Server`."""
        await self._sessions.aclose()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


async def serve(settings: Settings, supervisor: Supervisor, listener: socket.socket) -> int:
    """Serve on a listening socket until SIGINT or SIGTERM; returns the exit code.

    Raises:
        pipeline.vad.VadUnavailableError: the voice detector can not run here.
        pipeline.listening.end_of_turn.JudgeUnavailableError: the Smart-Turn network can not.
        SettingsError: the checkpoint, once it is loaded, has not the voices of the settings.
    """
    # the first detector loads its network, or says what is missing: not while somebody speaks
    await asyncio.to_thread(SileroVad)
    app = create_app(settings, supervisor)
    server = Server(uvicorn_config(app, settings), app.state.sessions)
    garbage.put_aside()
    exit_code, fault = 0, None

    def stop(code: int) -> None:
        nonlocal exit_code
        server.force_exit = server.should_exit
        server.should_exit, exit_code = True, code

    async def drain() -> None:
        await app.state.sessions.drain()
        stop(0)

    async def announce() -> None:
        nonlocal fault
        try:
            await _announce(settings, supervisor, server, listener)
        except SettingsError as error:
            fault = error
            stop(error.exit_code)

    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        parts = [group.create_task(announce(), name="announce")]

        def terminate() -> None:
            if server.should_exit or len(parts) > 1:
                stop(0)
            else:
                parts.append(group.create_task(drain(), name="drain"))

        loop.add_signal_handler(signal.SIGINT, stop, INTERRUPTED)
        loop.add_signal_handler(signal.SIGTERM, terminate)
        try:
            await server.serve(sockets=[listener])
        finally:
            for part in parts:
                part.cancel()
    if fault is not None:
        raise fault
    return exit_code


def uvicorn_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    certificate, key = _certificate(settings)
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        ws=ClosingProtocol,
        ws_max_size=settings.limits.max_message_bytes,
        ws_ping_interval=settings.websocket.ping_interval_s,
        ws_ping_timeout=settings.websocket.ping_timeout_s,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=settings.server.shutdown_s,  # type: ignore[arg-type]
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )


def _certificate(settings: Settings) -> tuple[Path | None, Path | None]:
    server = settings.server
    if server.tls == "off":
        return None, None
    if server.tls == "auto":
        from daemon.ice import host_addresses
        from daemon.tls import self_signed

        return self_signed(cache_folder(), [*host_addresses(server.host), *server.allowed_hosts])
    paths = Path(server.tls_certificate), Path(server.tls_key)
    for path in paths:
        if not path.is_file():
            raise SettingsError(f"{path}: no such file")
    return paths


async def _announce(
    settings: Settings, supervisor: Supervisor, server: Server, listener: socket.socket
) -> None:
    """Tell a person where the page is, and what answers there.

    Raises:
        SettingsError: as `serve`.
    """
    await server.listening.wait()
    port = listener.getsockname()[1]
    scheme = "http" if settings.server.tls == "off" else "https"
    host = settings.server.host
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    shown = f"[{host}]" if ":" in host else host
    print(f"Open {scheme}://{shown}:{port}/", flush=True)
    try:
        info = await supervisor.engine.ready()
    except EngineLostError as error:
        # the server stays, so that the page and /healthz can say so; not if it was told to stop
        if not server.should_exit:
            print(f"The model could not be loaded: {error}", flush=True)
        return
    _check_voices(settings, info.voices)
    log.info("ready model=%s device=%s dtype=%s", info.checkpoint, info.device, info.dtype)
    if info.is_babbling:
        print(BABBLING, flush=True)


def _check_voices(settings: Settings, available: Sequence[str]) -> None:
    """Sessions could not begin with a voice that there is not.

    Raises:
        SettingsError: there is one of those that the settings name.
    """
    named: dict[str, tuple[str, Mapping[str, str]]] = {
        "session.voice": (settings.session.voice, settings.voices),
        **{f"voices.{alias}": (voice, {}) for alias, voice in settings.voices.items()},
    }
    for key, (voice, aliases) in named.items():
        try:
            Voices(aliases=aliases, available=available).resolve(voice)
        except ProtocolError as error:
            raise SettingsError(f"'{key}': {error.message}") from error
