"""Training multiplies in the type that this machine is quick at."""

from __future__ import annotations

import pytest
import torch

from models.recipe import quick_types


@pytest.mark.parametrize("is_quick", [True, False])
def test_products_are_of_bfloat16_only_where_that_is_quick(
    is_quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick_types, "is_bfloat16_quick", lambda: is_quick)
    numbers = torch.ones(2, 2)
    with quick_types.quick_types():
        product = numbers @ numbers
    assert product.dtype == (torch.bfloat16 if is_quick else torch.float32)


@pytest.mark.parametrize(("seconds", "is_quick"), [(0.2, True), (0.9, False), (40.0, False)])
def test_bfloat16_has_to_be_clearly_quicker(
    seconds: float, is_quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(numbers: torch.Tensor) -> float:
        return seconds if numbers.dtype == torch.bfloat16 else 1.0

    monkeypatch.setattr(quick_types, "_seconds", taken)
    assert quick_types.is_bfloat16_quick.__wrapped__() is is_quick
