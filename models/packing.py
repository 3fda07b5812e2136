"""How a published checkpoint packs its matrices: what config.json says, and their tensors' names.

Read: AWQ and GPTQ of 4 bits; compressed-tensors of 4 and 8 bits (`pack-quantized`) and of 8
(`int-quantized`, `float-quantized`, `naive-quantized`); fp8 in blocks. Only what has 4 bits can
stay packed; the rest is unpacked, or rounded again, while loading. The layouts themselves:
`models.quantized`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from models.errors import CheckpointError
from models.packed_matrices import GROUP, KERNEL_GROUPS
from models.quantized import BITS, Grouped, read_awq, read_gptq, read_packed, read_scaled

Method = Literal["awq", "gptq", "packed", "scaled"]
Parts = Mapping[str, Tensor]
COMPRESSED = "compressed-tensors"
PACKED_FORMAT = "pack-quantized"
SCALED_FORMATS = ("int-quantized", "float-quantized", "naive-quantized")
GROUPED_BY_INDEX = ("group", "dynamic", True)  # `actorder` with a group for each column
MATRIX = "weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """How a checkpoint packs matrices: each is so many tensors.

    Attributes:
        method: the last two are compressed-tensors'. bits: of a number.
        parts: last parts of the names of one matrix's tensors. ignored: of what is not needed.
        group_size: columns that share a scale; None: a whole row.
        block: rows and columns that share a scale, where a matrix is scaled in blocks.
        is_v2: GPTQ's zero points are stored as they are, not less one.
    """

    method: Method
    parts: tuple[str, ...]
    bits: int = BITS
    ignored: tuple[str, ...] = ()
    group_size: int | None = 128
    block: tuple[int, int] | None = None
    is_v2: bool = False

    @property
    def kept_group(self) -> int:
        """Columns of a group where experts are kept in four bits: the file's, where its levels can
        stay; ours where they are rounded again or a group is too wide, and so split.
        """
        stays = self.method != "scaled" and self.bits == BITS
        fits = self.group_size is not None and self.group_size <= KERNEL_GROUPS[-1]
        return self.group_size if stays and fits and self.group_size is not None else GROUP

    def names(self, names: Iterable[str]) -> list[str]:
        """The names that `tensors` gives out for a checkpoint with these."""
        have = list(names)
        packed = self._packed(have)
        made = []
        for name in have:
            base, _, last = name.rpartition(".")
            if base not in packed or last not in (*self.parts, *self.ignored):
                made.append(name)
            elif last == self.parts[0]:
                made.append(f"{base}.{MATRIX}")
        return made

    def tensors(
        self, tensors: Iterable[tuple[str, Tensor]], names: Iterable[str]
    ) -> Iterator[tuple[str, Tensor | Grouped]]:
        """Packed matrices, once all their parts have come, and all else as it is.

        Args:
            names: of all that is to come.

        Raises:
            CheckpointError: a part is missing, or the parts do not fit together.
        """
        packed = self._packed(names)
        waiting: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors:
            base, _, last = name.rpartition(".")
            if base not in packed or last not in (*self.parts, *self.ignored):
                yield name, tensor
            elif last in self.parts:
                found = waiting.setdefault(base, {})
                found[last] = tensor
                if len(found) == len(self.parts):
                    yield f"{base}.{MATRIX}", self._read(waiting.pop(base))
        if waiting:
            base, found = next(iter(waiting.items()))
            missing = [part for part in self.parts if part not in found]
            raise CheckpointError(f"the packed matrix {base} lacks {', '.join(missing)}")

    def _packed(self, names: Iterable[str]) -> set[str]:
        """The modules whose matrix is packed: those with a part that nothing else is called."""
        telling = {part for part in self.parts if part != MATRIX}
        split = (name.rpartition(".") for name in names)
        return {base for base, _, last in split if last in telling}

    def _read(self, found: Parts) -> Tensor | Grouped:
        match self.method:
            case "awq":
                return read_awq(*(found[part] for part in self.parts))
            case "gptq":
                words, zeros, scales, groups = (found[part] for part in self.parts)
                return read_gptq(words, zeros, scales, groups, is_v2=self.is_v2)
            case "packed":
                grouped = read_packed(
                    found["weight_packed"],
                    found["weight_scale"],
                    found["weight_shape"],
                    bits=self.bits,
                    zeros=found.get("weight_zero_point"),
                    groups=found.get("weight_g_idx"),
                )
                return grouped if self.bits == BITS else grouped.dequantized()
        numbers, scales = (found[part] for part in self.parts[:2])
        return read_scaled(numbers, scales, zeros=found.get("weight_zero_point"), block=self.block)


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
    if "quant_method" not in raw:
        raise CheckpointError("quantization_config of config.json names no quant_method")
    match method := raw["quant_method"]:
        case "awq":
            return _awq(raw)
        case "gptq":
            return _gptq(raw)
        case "fp8":
            return _float8(raw)
        case "compressed-tensors":
            return _compressed(raw)
    raise CheckpointError(
        f"weights packed as {method!r} can not be read; awq, gptq, fp8 and {COMPRESSED} can"
    )


def _awq(raw: Mapping[str, Any]) -> Packing:
    version = raw.get("version", "gemm")
    if str(version).lower() != "gemm":
        raise CheckpointError(f"awq packed for {version!r} can not be read; for 'gemm' it can")
    return Packing(method="awq", parts=("qweight", "qzeros", "scales"), group_size=_group(raw))


def _gptq(raw: Mapping[str, Any]) -> Packing:
    return Packing(
        method="gptq",
        parts=("qweight", "qzeros", "scales", "g_idx"),
        group_size=_group(raw),
        is_v2=raw.get("checkpoint_format") == "gptq_v2",
    )


def _group(raw: Mapping[str, Any]) -> int | None:
    """Columns that share a scale, of awq and gptq."""
    method, bits, group_size = raw["quant_method"], raw.get("bits"), raw.get("group_size", 128)
    if bits != BITS:
        raise CheckpointError(f"{method} with {bits!r} bits can not be read; with {BITS} it can")
    if not isinstance(group_size, int):
        raise CheckpointError(f"{method} with a group_size of {group_size!r}: it is a whole number")
    return group_size if group_size > 0 else None


def _float8(raw: Mapping[str, Any]) -> Packing:
    """Matrices of float8_e4m3fn with a scale for each block."""
    block = _block(raw.get("weight_block_size"))
    return Packing(
        method="scaled",
        parts=(MATRIX, "weight_scale_inv"),
        bits=8,
        ignored=("input_scale", "activation_scale"),
        group_size=None,
        block=block,
    )


def _compressed(raw: Mapping[str, Any]) -> Packing:
    """What the groups of a compressed-tensors configuration have in common."""
    groups = raw.get("config_groups")
    found = list(groups.values()) if isinstance(groups, dict) else []
    if not found or not all(isinstance(group, dict) for group in found):
        raise CheckpointError(f"{COMPRESSED} without config_groups says nothing of its matrices")
    if raw.get("kv_cache_scheme") is not None or raw.get("transform_config"):
        raise CheckpointError(f"{COMPRESSED} with quantized caches or transforms can not be read")
    schemes = [_scheme(raw, group) for group in found]
    if any(scheme != schemes[0] for scheme in schemes):
        raise CheckpointError(f"{COMPRESSED} with groups of several kinds can not be read")
    return schemes[0]


def _scheme(raw: Mapping[str, Any], group: Mapping[str, Any]) -> Packing:
    layout = group.get("format") or raw.get("format")
    weights = group.get("weights")
    if not isinstance(weights, dict):
        raise CheckpointError(f"{COMPRESSED}: a group of config_groups names no weights")
    bits, strategy = weights.get("num_bits"), weights.get("strategy")
    zeros = () if weights.get("symmetric", True) else ("weight_zero_point",)
    size = weights.get("group_size")
    group_size = size if isinstance(size, int) and size > 0 else None
    ignored = ("input_scale", "input_zero_point", "output_scale", "output_zero_point")
    if layout == PACKED_FORMAT and bits in (BITS, 8) and weights.get("type", "int") == "int":
        index = ("weight_g_idx",) if weights.get("actorder") in GROUPED_BY_INDEX else ()
        return Packing(
            method="packed",
            parts=("weight_packed", "weight_scale", "weight_shape", *zeros, *index),
            bits=bits,
            ignored=ignored,
            group_size=group_size,
        )
    if layout in SCALED_FORMATS and bits == 8:
        return Packing(
            method="scaled",
            parts=(MATRIX, "weight_scale", *zeros),
            bits=8,
            ignored=ignored,
            group_size=None,
            block=_block(weights.get("block_structure")) if strategy == "block" else None,
        )
    kind = weights.get("type", "int")
    raise CheckpointError(
        f"{COMPRESSED} as {layout!r} of {bits!r} bits ({kind}) can not be read; {PACKED_FORMAT!r}"
        f" of {BITS} and 8 bits (int) and {', '.join(SCALED_FORMATS)} of 8 can"
    )


def _block(given: object) -> tuple[int, int] | None:
    """Rows and columns, as a list or as "128x128"."""
    sizes = given.lower().split("x") if isinstance(given, str) else given
    if sizes is None:
        return None
    try:
        rows, columns = (int(size) for size in sizes)  # type: ignore[attr-defined]
    except (TypeError, ValueError, OverflowError):
        rows = columns = 0
    if rows < 1 or columns < 1:
        raise CheckpointError(f"blocks of {given!r} can not be read; two whole numbers can")
    return rows, columns
