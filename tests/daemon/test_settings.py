"""Settings: defaults are complete and explained, overlays work, mistakes are named."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from daemon import settings as module
from daemon.settings import SettingsError, load


def test_defaults_are_complete_and_every_key_has_its_reason() -> None:
    settings = load()
    assert settings.server.host == "127.0.0.1"
    assert settings.engine.model == "embedded"
    assert settings.voices["alloy"] == "default"
    text = resources.files("configs").joinpath("default.toml").read_text("utf-8")
    for line in text.splitlines():
        if " = " in line and not line.startswith(("#", "instructions", "voice")):
            is_alias = line.split(" = ")[1] == '"default"'
            assert is_alias or "#" in line, f"no reason beside: {line}"


def test_a_file_overlays_and_flags_overlay_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[server]\nport = 9000\nhost = "::1"\n[voices]\nNova = "Chelsie"\n')
    settings = load(path, {"server.port": 9001, "engine.device": None, "server.api_keys": ["k"]})
    assert (settings.server.port, settings.server.host) == (9001, "::1")
    assert settings.voices["nova"] == "Chelsie"
    assert settings.server.api_keys == ("k",)
    assert "'k'" not in repr(settings), "a key must not reach a log by accident"


def test_stages_have_devices_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[engine]\ndevice = "cuda:0"\n[engine.devices]\ntalker = "cuda:1"\n')
    engine = load(path).engine
    assert engine.device == "cuda:0"
    assert engine.devices.named() == {"talker": "cuda:1"}
    assert load().engine.devices.named() == {}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[server]\nprot = 1\n", "server.prot"),
        ("[nonsense]\na = 1\n", "nonsense"),
        ("server = 1\n", "'server' must be a table"),
        ('[server]\nport = "80"\n', "server.port"),
        ("[server]\nport = true\n", "server.port"),
        ("[server]\nport = -1\n", "server.port"),
        ("[server]\nport = 65536\n", "'server.port' must be 0 to 65535"),
        ("[server]\nshutdown_s = nan\n", "server.shutdown_s"),
        ("[server]\nshutdown_s = inf\n", "server.shutdown_s"),
        ("[session]\nmax_sessions = -1\n", "session.max_sessions"),
        ("[turn_detection]\nthreshold = 7.5\n", "turn_detection.threshold"),
        ("[websocket]\nping_interval_s = 0\n", "websocket.ping_interval_s"),
        ("[webrtc]\ncamera_fps = 0\n", "webrtc.camera_fps"),
        ("[server]\napi_keys = [1]\n", "server.api_keys"),
        ('[server]\napi_keys = ["sk-1", " "]\n', "'server.api_keys' must not hold an empty key"),
        ('[server]\ntls = "maybe"\n', "off, auto, files"),
        ("[webrtc]\ncamera_fps = false\n", "webrtc.camera_fps"),
        ("[server\n", "not valid TOML"),
        ('[engine]\ngraphs = "always"\n', "'engine.graphs' must be one of auto, on, off"),
        ("[engine]\naudio_window_s = 0.5\n", "'engine.audio_window_s' must be a int"),
        ("[engine]\naudio_window_s = -1\n", "engine.audio_window_s"),
        ('[engine.devices]\nvocoder = "cpu"\n', "engine.devices.vocoder"),
        ("[engine.devices]\ntalker = 1\n", "engine.devices.talker"),
        ('[engine]\ndevices = "cpu"\n', "'engine.devices' must be a table"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=named.replace(".", r"\.")):
        load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"gone\.toml: No such file"):
        load(tmp_path / "gone.toml")


def test_an_integer_may_stand_for_a_float(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[webrtc]\ncamera_fps = 2\n")
    assert load(path).webrtc.camera_fps == 2.0


def test_the_environment_adds_a_key_and_moves_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNID_API_KEY", "from-env")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert load(None, {"server.api_keys": ["a"]}).server.api_keys == ("a", "from-env")
    assert module.cache_folder() == Path("/elsewhere/omnid")
