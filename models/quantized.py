"""Published 4-bit checkpoints (AWQ, GPTQ), read while loading.

Plain PyTorch; nothing here multiplies packed weights (`models.packed_matrices` does). Layouts
follow AutoAWQ (`gemm`) and AutoGPTQ (version 1 stores zero points less one, `gptq_v2` as they are).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.errors import CheckpointError

BITS = 4
PER_WORD = 32 // BITS
LEVELS = 2**BITS
_AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)  # where the columns of a word lie in it


@dataclass(frozen=True, slots=True)
class Grouped:
    """A matrix [N, H] of 4-bit integers with a scale and a zero point for each group of a row.

    Attributes:
        levels: [N, H] uint8 in 0..15. scales: [N, H / group] float32. zeros: the same shape.
        groups: [H] int64, each column's group, where they are not in order; else None.
    """

    levels: Tensor
    scales: Tensor
    zeros: Tensor
    groups: Tensor | None = None

    def dequantized(self) -> Tensor:
        """[N, H] float32."""
        if self.groups is not None:
            shifted = self.levels.to(torch.float32) - self.zeros[:, self.groups]
            return shifted * self.scales[:, self.groups]
        group = self.levels.shape[1] // self.scales.shape[1]
        rows, columns = self.levels.shape
        levels = self.levels.to(torch.float32).view(rows, -1, group)
        made = (levels - self.zeros[..., None]) * self.scales[..., None]
        return made.view(rows, columns)


def read_awq(qweight: Tensor, qzeros: Tensor, scales: Tensor) -> Grouped:
    """A matrix as AWQ publishes it.

    Args:
        qweight: [H, N / 8] int32. qzeros: [H / group, N / 8] int32. scales: [H / group, N].

    Raises:
        CheckpointError: shapes that do not fit together.
    """
    _check(qweight.shape[1] == qzeros.shape[1], qweight, qzeros, scales)
    _check(scales.shape == (qzeros.shape[0], PER_WORD * qzeros.shape[1]), qweight, qzeros, scales)
    _check(qweight.shape[0] % qzeros.shape[0] == 0, qweight, qzeros, scales)
    levels, zeros = (_columns(words, _AWQ_ORDER) for words in (qweight, qzeros))
    return Grouped(
        levels.t().contiguous(),
        scales.t().to(torch.float32).contiguous(),
        zeros.t().to(torch.float32).contiguous(),
    )


def read_gptq(
    qweight: Tensor, qzeros: Tensor, scales: Tensor, g_idx: Tensor, *, is_v2: bool = False
) -> Grouped:
    """A matrix as GPTQ publishes it.

    Args:
        qweight: [H / 8, N] int32. qzeros: [groups, N / 8] int32. scales: [groups, N].
        g_idx: [H] int, each input's group (they are not in order where `desc_act` was on).
        is_v2: zero points are stored as they are, not less one.

    Raises:
        CheckpointError: shapes that do not fit together.
    """
    columns, num_groups = qweight.shape[0] * PER_WORD, qzeros.shape[0]
    _check(g_idx.shape == (columns,), qweight, qzeros, scales)
    _check(scales.shape == (num_groups, PER_WORD * qzeros.shape[1]), qweight, qzeros, scales)
    _check(scales.shape[1] == qweight.shape[1], qweight, qzeros, scales)
    plain = tuple(range(PER_WORD))
    levels = _columns(qweight.t(), plain)  # [N, H]
    zeros = _columns(qzeros, plain).to(torch.float32) + (0.0 if is_v2 else 1.0)
    groups = g_idx.long()
    group_size = -(-columns // num_groups)
    is_in_order = torch.equal(groups, torch.arange(columns, device=groups.device) // group_size)
    return Grouped(
        levels.contiguous(),
        scales.t().to(torch.float32).contiguous(),
        zeros.t().contiguous(),
        groups=None if is_in_order and columns % num_groups == 0 else groups,
    )


@dataclass(frozen=True, slots=True)
class Packing:
    """How a checkpoint packs matrices: `method` awq or gptq; each is so many tensors of `parts`.

    `group_size`: columns that share a scale; None: a whole row.
    """

    method: str
    group_size: int | None = 128
    is_v2: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """Last parts of the names of one matrix's tensors."""
        more = ("g_idx",) if self.method == "gptq" else ()
        return ("qweight", "qzeros", "scales", *more)

    def names(self, names: Iterable[str]) -> list[str]:
        """The names that `tensors` gives out."""
        made = []
        for name in names:
            base, _, last = name.rpartition(".")
            if last not in self.parts:
                made.append(name)
            elif last == "qweight":
                made.append(f"{base}.weight")
        return made

    def tensors(
        self, tensors: Iterable[tuple[str, Tensor]]
    ) -> Iterator[tuple[str, Tensor | Grouped]]:
        """Packed matrices, once all their parts have come, and all else as it is.

        Raises:
            CheckpointError: a part is missing, or the parts do not fit together.
        """
        waiting: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors:
            base, _, last = name.rpartition(".")
            if last not in self.parts:
                yield name, tensor
                continue
            found = waiting.setdefault(base, {})
            found[last] = tensor
            if len(found) == len(self.parts):
                yield f"{base}.weight", self._read(waiting.pop(base))
        if waiting:
            base, found = next(iter(waiting.items()))
            missing = [part for part in self.parts if part not in found]
            raise CheckpointError(f"the packed matrix {base} lacks {', '.join(missing)}")

    def _read(self, found: dict[str, Tensor]) -> Grouped:
        words = (found["qweight"], found["qzeros"], found["scales"])
        if self.method == "awq":
            return read_awq(*words)
        return read_gptq(*words, found["g_idx"], is_v2=self.is_v2)


def read_packing(folder: Path) -> Packing | None:
    """How `folder/config.json` says that matrices are packed; None where they are not.

    Raises:
        CheckpointError: packed in another way (named), or nothing that says how.
    """
    path = folder / "config.json"
    if not path.exists():
        return None
    raw = json.loads(path.read_text(encoding="utf-8")).get("quantization_config")
    if raw is None:
        return None
    if not isinstance(raw, dict):
        raise CheckpointError(f"quantization_config of config.json must be an object, not {raw!r}")
    method, bits, version = raw.get("quant_method"), raw.get("bits"), raw.get("version", "gemm")
    if method not in ("awq", "gptq"):
        raise CheckpointError(f"weights packed as {method!r} can not be read; awq and gptq can")
    if bits != BITS:
        raise CheckpointError(f"{method} with {bits} bits can not be read; with {BITS} it can")
    if method == "awq" and str(version).lower() != "gemm":
        raise CheckpointError(f"awq packed for {version!r} can not be read; for 'gemm' it can")
    group_size = raw.get("group_size", 128)
    if not isinstance(group_size, int):
        raise CheckpointError(f"{method} with a group_size of {group_size!r}: it is a whole number")
    return Packing(
        method,
        group_size=group_size if group_size > 0 else None,
        is_v2=raw.get("checkpoint_format") == "gptq_v2",
    )


def _columns(words: Tensor, order: tuple[int, ...]) -> Tensor:
    """[R, C] int32 -> [R, 8 C] uint8: column i of a word lies at bit 4 * order[i]."""
    shifts = BITS * torch.tensor(order, device=words.device)
    parts: Tensor = (words[..., None] >> shifts) & (LEVELS - 1)
    return parts.flatten(1).to(torch.uint8)


def _check(fits: bool, *tensors: Tensor) -> None:
    if not fits:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
        raise CheckpointError(f"quantized tensors do not fit together: {shapes}")
