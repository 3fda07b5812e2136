"""Where each tensor of a published checkpoint lives in our modules.

Our parameters bear the published names, except where a module packs several tensors into one.
Such a module says so:

    packed_weights    {"qkv_proj": ("q_proj", "k_proj", "v_proj")}: a child's weight and bias
                      hold these, one below the other; `packed_sizes` gives the rows of each
    expert_weights    {"gate_up_proj": ("gate_proj", "up_proj")}: a stacked parameter, or a module
                      of packed matrices (`shape` of both is [experts, rows, columns]), holds
                      these for each expert, in equal shares
    upstream_shapes   {"proj.weight": (1152, 3, 2, 16, 16)}: same numbers in the same order

Knows names and shapes only; `models.weights` moves the numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """The place of one published tensor, whose published shape is `shape`.

    It is the rows `start` to `stop` of our parameter, or of one expert's part where that is
    stacked.
    """

    parameter: str
    shape: torch.Size
    start: int = 0
    stop: int | None = None
    expert: int | None = None

    def view(self, parameter: Tensor) -> Tensor:
        """The part of our parameter that is this tensor, in the published shape (shares memory)."""
        part = parameter if self.expert is None else parameter[self.expert]
        return part[self.start : self.stop].view(self.shape)


def slots(model: nn.Module) -> dict[str, Slot]:
    """Published name -> place, for every parameter of `model`, in the order of its parameters."""
    found: dict[str, Slot] = {}
    packed = _packed(model)
    stacked: set[str] = set()
    for prefix, module in model.named_modules():
        if prefix in stacked:  # packed matrices: what they consist of is in no checkpoint
            continue
        for name, parts in getattr(module, "expert_weights", {}).items():
            stacked.add(_join(prefix, name))
            found.update(_experts(prefix, name, parts, getattr(module, name).shape))
        for name, parameter in module.named_parameters(recurse=False):
            own = _join(prefix, name)
            if own in packed:
                found.update(packed[own])
            elif own not in stacked:
                found[own] = Slot(parameter=own, shape=parameter.shape)
    for name, shape in _reshaped(model):
        assert prod(shape) == prod(found[name].shape), (name, shape)
        found[name] = Slot(parameter=name, shape=torch.Size(shape))
    return found


def expected_tensors(model: nn.Module) -> dict[str, torch.Size]:
    """Every published tensor name that `model` needs, with its published shape."""
    return {name: slot.shape for name, slot in slots(model).items()}


def _packed(model: nn.Module) -> dict[str, dict[str, Slot]]:
    """Our parameter -> the published tensors in it, for all declared `packed_weights`."""
    found: dict[str, dict[str, Slot]] = {}
    for prefix, module in model.named_modules():
        declared: Mapping[str, tuple[str, ...]] = getattr(module, "packed_weights", {})
        for child, parts in declared.items():
            sizes: tuple[int, ...] = module.packed_sizes[child]
            assert len(sizes) == len(parts), (prefix, child)
            for kind, parameter in getattr(module, child).named_parameters(recurse=False):
                assert sum(sizes) == parameter.shape[0], (prefix, child, kind)
                own = _join(prefix, f"{child}.{kind}")
                found[own] = {
                    _join(prefix, f"{part}.{kind}"): Slot(
                        parameter=own,
                        shape=torch.Size((size, *parameter.shape[1:])),
                        start=stop - size,
                        stop=stop,
                    )
                    for part, size, stop in zip(parts, sizes, _stops(sizes), strict=True)
                }
    return found


def _experts(
    prefix: str, name: str, parts: tuple[str, ...], shape: torch.Size
) -> Iterator[tuple[str, Slot]]:
    num_experts, num_rows, num_columns = shape
    share = num_rows // len(parts)
    for expert in range(num_experts):
        for index, part in enumerate(parts):
            yield (
                _join(prefix, f"{expert}.{part}.weight"),
                Slot(
                    parameter=_join(prefix, name),
                    shape=torch.Size((share, num_columns)),
                    start=index * share,
                    stop=(index + 1) * share,
                    expert=expert,
                ),
            )


def _reshaped(model: nn.Module) -> Iterator[tuple[str, tuple[int, ...]]]:
    for prefix, module in model.named_modules():
        declared: Mapping[str, tuple[int, ...]] = getattr(module, "upstream_shapes", {})
        for name, shape in declared.items():
            yield _join(prefix, name), shape


def _stops(sizes: tuple[int, ...]) -> list[int]:
    return [sum(sizes[: index + 1]) for index in range(len(sizes))]


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
