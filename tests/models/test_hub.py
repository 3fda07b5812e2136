"""Names of checkpoints: folders, hub ids, and what is refused before a download. No network."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

from models import hub
from models.devices import DeviceInfo
from models.errors import CheckpointError, ResourceError
from models.hub import resolve_checkpoint
from models.sizes import SIZES
from models.tiny_config import tiny_config

GIB = 2**30


class FakeHub:
    """The hub's client: files by size; `fault` is raised instead of an answer."""

    def __init__(self, folder: Path) -> None:
        self.files = {
            "config.json": 1000,
            "model-1.safetensors": 3 * GIB,
            "model-2.safetensors": 2 * GIB,
        }
        self.fault: Exception | None = None
        self.downloads: list[tuple[str, tuple[str, ...]]] = []
        self.cached: Path | None = None
        self.snapshot = folder

    def model_info(self, name: str, *, files_metadata: bool) -> SimpleNamespace:
        assert files_metadata
        if self.fault is not None:
            raise self.fault
        siblings = [SimpleNamespace(rfilename=f, size=s) for f, s in self.files.items()]
        return SimpleNamespace(siblings=siblings, sha="abc")

    def snapshot_download(
        self,
        name: str,
        *,
        revision: str | None = None,
        allow_patterns: list[str] | None = None,
        local_files_only: bool = False,
    ) -> str:
        if local_files_only:
            if self.cached is None:
                raise LocalEntryNotFoundError("not cached")
            return str(self.cached)
        wanted = tuple(allow_patterns or ())
        if wanted != ("config.json",):
            self.downloads.append((name, wanted))
        return str(self.snapshot)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeHub:
    folder = tmp_path / "snapshot"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(tiny_config(SIZES["tiny"])), encoding="utf-8")
    made = FakeHub(folder)
    monkeypatch.setattr(hub, "HfApi", lambda: made)
    monkeypatch.setattr(hub, "snapshot_download", made.snapshot_download)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    room(monkeypatch, disk=100 * GIB, memory=80 * GIB)
    return made


def room(monkeypatch: pytest.MonkeyPatch, *, disk: int, memory: int) -> None:
    device = DeviceInfo(name="cpu", description="", total_bytes=memory, free_bytes=memory)
    monkeypatch.setattr(hub, "describe_devices", lambda: (device,))
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda path: SimpleNamespace(free=disk))


def answered(status: int) -> HfHubHTTPError:
    error = HfHubHTTPError.__new__(HfHubHTTPError)
    error.response = SimpleNamespace(status_code=status)
    return error


def test_a_folder_is_itself(tmp_path: Path, fake: FakeHub) -> None:
    assert resolve_checkpoint(str(tmp_path)) == tmp_path
    assert fake.downloads == []


@pytest.mark.parametrize("name", ["./gone/model", "/gone/model", "gone", "a/b/c", "../gone"])
def test_paths_are_never_looked_up_on_the_hub(name: str, fake: FakeHub) -> None:
    fake.fault = AssertionError("asked the hub")
    with pytest.raises(CheckpointError, match="no such checkpoint folder"):
        resolve_checkpoint(name)


def test_downloads_only_what_is_needed(fake: FakeHub) -> None:
    fake.files |= {
        "README.md": 5,
        "onnx/model.safetensors": 900 * GIB,
        "pytorch_model.bin": 900 * GIB,
    }
    assert resolve_checkpoint("Qwen/Omni") == fake.snapshot
    [(name, files)] = fake.downloads
    assert name == "Qwen/Omni"
    assert set(files) == {"config.json", "model-1.safetensors", "model-2.safetensors"}


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"model_type": "llama"}, "model_type 'llama'"),
        ({"quantization_config": {"quant_method": "spqr"}}, "'spqr' can not be read"),
    ],
)
def test_what_can_not_be_read_is_told_before_its_weights_come(
    fake: FakeHub, changed: dict[str, Any], why: str
) -> None:
    raw = {**tiny_config(SIZES["tiny"]), **changed}
    (fake.snapshot / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(CheckpointError, match=why):
        resolve_checkpoint("Qwen/Omni")
    assert fake.downloads == []


def test_too_little_disk(fake: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    room(monkeypatch, disk=4 * GIB, memory=80 * GIB)
    with pytest.raises(ResourceError, match=r"needs 5\.0 GiB of disk in .*; 4\.0 GiB is free"):
        resolve_checkpoint("Qwen/Omni")
    assert fake.downloads == []
    blobs = tmp_path / "cache" / "models--Qwen--Omni" / "blobs"
    blobs.mkdir(parents=True)
    with (blobs / "half").open("wb") as file:
        file.truncate(2 * GIB)  # sparse: the rest of a broken download
    assert resolve_checkpoint("Qwen/Omni") == fake.snapshot


def test_too_little_memory(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    room(monkeypatch, disk=100 * GIB, memory=GIB)
    with pytest.raises(ResourceError, match=r"5\.0 GiB of weights; .* 1\.0 GiB free"):
        resolve_checkpoint("Qwen/Omni")
    assert fake.downloads == []


def test_what_fits_with_packed_experts_is_downloaded(
    fake: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    room(monkeypatch, disk=100 * GIB, memory=3 * GIB)
    assert resolve_checkpoint("Qwen/Omni") == fake.snapshot


def test_no_weights(fake: FakeHub) -> None:
    fake.files = {"config.json": 5}
    with pytest.raises(CheckpointError, match="no safetensors"):
        resolve_checkpoint("Qwen/Omni")


@pytest.mark.parametrize("status", [401, 404, 500])
def test_the_hub_says_no(fake: FakeHub, status: int) -> None:
    fake.fault = answered(status)
    with pytest.raises(CheckpointError, match=r"no such model on the hub|status 500") as caught:
        resolve_checkpoint("Qwen/Omni")
    assert "\n" not in str(caught.value)
    assert issubclass(RepositoryNotFoundError, HfHubHTTPError)


def test_without_network(fake: FakeHub, tmp_path: Path) -> None:
    fake.fault = OSError("no route")
    with pytest.raises(CheckpointError, match="can not be reached: no route"):
        resolve_checkpoint("Qwen/Omni")
    fake.cached = tmp_path
    assert resolve_checkpoint("Qwen/Omni") == tmp_path
