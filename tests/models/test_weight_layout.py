"""Wide layers are turned in memory, and compute what they computed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models import weight_layout
from models.weight_layout import lay_out_for_decoding


def layers() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"wide": nn.Linear(32, 96), "narrow": nn.Linear(96, 32)})


def test_only_strides_change() -> None:
    turned, plain = layers(), layers()
    lay_out_for_decoding(turned)
    assert turned["wide"].weight.stride() == (1, 96)
    assert turned["narrow"].weight.stride() == plain["narrow"].weight.stride()
    assert torch.equal(turned["wide"].weight, plain["wide"].weight)
    x = torch.randn(1, 32)
    torch.testing.assert_close(turned["wide"](x), plain["wide"](x), rtol=1e-5, atol=1e-6)


def test_what_was_not_measured_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    half = layers().to(torch.bfloat16)
    lay_out_for_decoding(half)
    assert half["wide"].weight.is_contiguous()
    monkeypatch.setattr(weight_layout, "MIN_HEAD_BYTES", 1)
    large = layers()
    lay_out_for_decoding(large)
    assert large["wide"].weight.is_contiguous()
