"""The `omnid` command as a person meets it: help, mistakes on one line, exit codes, Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from daemon_rig import free_socket

from daemon import __main__ as command
from daemon.__main__ import COMMANDS, main
from daemon.auth import check_bind
from daemon.settings import SettingsError, load

ROOT = Path(__file__).parents[2]


def omnid(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "daemon", *arguments],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_names_every_command_and_loads_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)
    assert main([]) == 2


def test_help_of_serve_needs_no_torch() -> None:
    code = (
        "import sys; from daemon.__main__ import main\n"
        "try: main(['serve', '--help'])\n"
        "finally: assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for flag in ("--model", "--host", "--port", "--api-key", "--tls", "--config", "--engine"):
        assert flag in done.stdout


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["nonsense"], 2, "omnid: no command 'nonsense'"),
        (["bench"], 2, "omnid bench: give one of: bench latency"),
        (["serve", "--no-such-flag"], 2, "unrecognized arguments: --no-such-flag"),
        (["serve", "--mod", "x"], 2, "unrecognized arguments: --mod"),
        (["serve", "--port", "many"], 2, "argument --port: invalid int value"),
        (["serve", "--tls", "maybe"], 2, "argument --tls: invalid choice"),
        (["serve", "--config", "/no/such.toml"], 2, "/no/such.toml: No such file or directory"),
        (["serve", "--dtype", "int3"], 2, "'engine.dtype' must be one of"),
        (["serve", "--host", "0.0.0.0"], 2, "give an API key"),
        (
            ["serve", "--host", "0.0.0.0", "--api-key", "k"],
            2,
            "give TLS (--tls auto), or --insecure",
        ),
        (["serve", "--host", "no.such.host.invalid", "--insecure"], 1, "can not listen on"),
        (["serve", "--model", "./nowhere"], 1, "no such checkpoint folder: ./nowhere"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], exit_code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(arguments)
    except SystemExit as ended:
        code = int(str(ended.code))
    told = capsys.readouterr()
    assert code == exit_code
    assert message in told.err
    assert told.err.count("\n") == 1
    assert not told.out


def test_a_port_in_use_is_one_line() -> None:
    with free_socket() as taken:
        port = str(taken.getsockname()[1])
        done = omnid("serve", "--port", port)
    assert done.returncode == 1
    assert done.stderr == f"omnid: 127.0.0.1:{port} is in use already: give another --port\n"


@pytest.mark.parametrize(
    ("flags", "is_allowed"),
    [
        ({}, True),
        ({"server.host": "localhost"}, True),
        ({"server.host": "::1"}, True),
        ({"server.host": "0.0.0.0"}, False),
        ({"server.host": "192.0.2.1", "server.api_keys": ["k"]}, False),
        ({"server.host": "192.0.2.1", "server.tls": "auto"}, False),
        ({"server.host": "192.0.2.1", "server.api_keys": ["k"], "server.tls": "auto"}, True),
        ({"server.host": "0.0.0.0", "server.insecure": True}, True),
        ({"server.tls": "files"}, False),
    ],
)
def test_who_may_listen_publicly(flags: dict[str, object], is_allowed: bool) -> None:
    settings = load(None, flags).server
    if is_allowed:
        check_bind(settings)
    else:
        with pytest.raises(SettingsError):
            check_bind(settings)


def test_expected_errors_and_interrupts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class ExpectedError(Exception):
        exit_code = 7

    def module(error: BaseException) -> SimpleNamespace:
        def run(_: object) -> int:
            raise error

        return SimpleNamespace(add_arguments=lambda _: None, run=run)

    for error, code in ((ExpectedError("two\nlines"), 7), (KeyboardInterrupt(), 130)):
        monkeypatch.setattr(command.importlib, "import_module", lambda _, e=error: module(e))
        assert main(["doctor"]) == code
    assert capsys.readouterr().err == "omnid: two lines\n"
    fault = ValueError("a fault of ours")
    monkeypatch.setattr(command.importlib, "import_module", lambda _: module(fault))
    with pytest.raises(ValueError, match="a fault of ours"):
        main(["doctor"])


def test_another_projects_package_beside_ours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = SimpleNamespace(submodule_search_locations=["/usr/lib/site-packages/models"])
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda _: found)
    assert main(["doctor"]) == 1
    assert "is not omnid's (found: /usr/lib/site-packages/models)" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_ends_the_server_at_once(number: int, exit_code: int, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "daemon", "serve", "--port", "0", "--model", str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert re.fullmatch(r"Open http://127\.0\.0\.1:\d+/\n", process.stdout.readline())
        process.send_signal(number)
        told, logged = process.communicate(timeout=10)
    finally:
        process.kill()
    assert process.returncode == exit_code, logged
    assert "could not be loaded: the engine was stopped" not in told
    assert "Traceback" not in logged
