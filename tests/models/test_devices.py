"""Devices, dtypes and memory figures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models import devices
from models.devices import (
    check_fits,
    cpu_memory,
    describe_devices,
    format_bytes,
    pick_device,
    pick_dtype,
)
from models.errors import ResourceError

CPU = torch.device("cpu")


def test_auto_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device() == CPU
    assert pick_dtype(CPU) == torch.float32


def test_auto_with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device() == torch.device("cuda", 0)
    assert pick_device("cuda") == torch.device("cuda", 0)
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    assert pick_device("cpu") == CPU
    assert pick_dtype(torch.device("cuda", 0)) == torch.bfloat16
    with pytest.raises(ResourceError, match="torch sees 2 CUDA devices"):
        pick_device("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "meta", "", "cuda:x"])
def test_unknown_devices(name: str) -> None:
    with pytest.raises(ResourceError, match="unknown device"):
        pick_device(name)


def test_dtypes_by_name() -> None:
    assert pick_dtype(CPU, "bfloat16") == torch.bfloat16
    with pytest.raises(ResourceError, match="unknown dtype 'int3'; say auto, float32"):
        pick_dtype(CPU, "int3")


def test_memory_of_this_machine() -> None:
    total, available = cpu_memory()
    assert 0 < available <= total
    assert describe_devices()[-1].name == "cpu"
    check_fits(CPU, 1, "a byte")
    with pytest.raises(ResourceError, match=r"all of it needs .* GiB on cpu; .* is free"):
        check_fits(CPU, 2**50, "all of it")


def test_control_group_limits_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(devices, "_CGROUP", tmp_path)
    monkeypatch.setattr(devices, "_machine_memory", lambda: (1000, 800))
    assert cpu_memory() == (1000, 800)
    (tmp_path / "memory.max").write_text("max\n")
    assert cpu_memory() == (1000, 800)
    (tmp_path / "memory.max").write_text("500\n")
    (tmp_path / "memory.current").write_text("100\n")
    assert cpu_memory() == (500, 400)
    (tmp_path / "memory.stat").write_text("anon 30\ninactive_file 60\nactive_file 10\n")
    assert cpu_memory() == (500, 460)
    (tmp_path / "memory.max").unlink()
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712")
    assert cpu_memory() == (1000, 800)


@pytest.mark.parametrize(
    ("size", "text"), [(5, "5 B"), (2048, "2 kiB"), (5 * 2**20, "5 MiB"), (3 * 2**41, "6144.0 GiB")]
)
def test_sizes_are_readable(size: int, text: str) -> None:
    assert format_bytes(size) == text
