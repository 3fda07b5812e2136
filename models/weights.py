"""A checkpoint's safetensors <-> our modules: strict both ways, never two copies of the weights.

The model is built on the meta device (`models.skeleton`), memory is taken once in the wanted dtype,
and each published tensor is copied from the memory-mapped file straight into its place, or rounded
into it where that is packed. Names and places: `models.tensor_names`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from models.config import OmniConfig
from models.decoder import Decoder
from models.devices import check_fits
from models.errors import CheckpointError
from models.packed_matrices import GROUP, Int4Matrices, ScaledRows
from models.packing import Packing, read_packing
from models.placement import ExpertWeights
from models.quantized import Grouped
from models.qwen3_omni.model import Qwen3Omni
from models.skeleton import set_dtypes, skeleton
from models.tensor_names import Slot, expected_tensors, slots
from models.weight_layout import lay_out_for_decoding

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"

Target = Tensor | ScaledRows | Int4Matrices


def load_model(
    folder: Path,
    config: OmniConfig,
    *,
    device: torch.device,
    dtype: torch.dtype,
    experts: ExpertWeights = "full",
    places: Mapping[str, torch.device] | None = None,
) -> Qwen3Omni:
    """Load the weights in `folder`: in eval mode, without gradients.

    Args:
        places: devices of stages (the model's children) that do not lie on `device`.

    Raises:
        CheckpointError: a file is missing or damaged, or a tensor is missing, left over or of
        another shape. ResourceError: the device has not enough free memory.
    """
    packing = read_packing(folder)
    group = GROUP if packing is None else packing.kept_group
    model = skeleton(config, dtype=dtype, experts=experts, group=group)
    _load(model, folder, packing, device, places)
    lay_out_for_decoding(model)
    for module in model.modules():
        if isinstance(module, Decoder):
            module.prepare_step()
    return model


def load_weights(
    model: nn.Module, folder: Path, *, device: torch.device, dtype: torch.dtype
) -> None:
    """Give a model on the meta device its memory and weights; raises as `load_model` does."""
    set_dtypes(model, dtype)
    _load(model, folder, read_packing(folder), device)


def _load(
    model: nn.Module,
    folder: Path,
    packing: Packing | None,
    device: torch.device,
    places: Mapping[str, torch.device] | None = None,
) -> None:
    files = weight_files(folder)
    found, names = slots(model), _names_in(files)
    _check_names(folder, found, names if packing is None else packing.names(names))
    take_memory(model, device, what=str(folder), places=places)
    targets = _targets(model)
    tensors = (named for path in files for named in _tensors(path))
    for name, tensor in tensors if packing is None else packing.tensors(tensors, names):
        _put(found[name], targets, name, tensor)
    finish(model)


def fill_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Like `load_weights`, from published tensors in memory: float32 on the CPU."""
    places = slots(model)
    _check_names(Path("memory"), places, tensors)
    device = torch.device("cpu")
    set_dtypes(model, torch.float32)
    take_memory(model, device, what="the model")
    targets = _targets(model)
    for name, tensor in tensors.items():
        _put(places[name], targets, name, tensor)
    finish(model)


def take_memory(
    model: nn.Module,
    device: torch.device,
    *,
    what: str,
    places: Mapping[str, torch.device] | None = None,
) -> None:
    """Give every parameter memory, uninitialised, on `device`, or on its child's in `places`.

    Raises:
        ResourceError: a device has not enough free memory.
    """
    parts = [(model, device)]
    if places:
        parts = [(child, places.get(name, device)) for name, child in model.named_children()]
    for place in dict.fromkeys(place for _, place in parts):
        own = (part for part, there in parts if there == place)
        check_fits(place, sum(p.nbytes for part in own for p in part.parameters()), what)
    for part, place in parts:
        part.to_empty(device=place)


def finish(model: nn.Module) -> None:
    """Make what is computed instead of stored, beside the weights, and freeze the model."""
    with torch.no_grad():
        for name, module in model.named_modules():
            build = getattr(module, "build_constants", None)
            if build is not None:
                build(_device_of(model, name))
    model.requires_grad_(False).eval()
    left = [name for name, tensor in _all_tensors(model) if tensor.is_meta]
    assert not left, f"never filled: {left[:3]}"


def save_model(model: nn.Module, folder: Path, *, dtype: torch.dtype, max_shard_bytes: int) -> None:
    """Write the weights under their published names: shards of `max_shard_bytes` and an index."""
    parameters = dict(model.named_parameters())
    places = slots(model)
    save_tensors(
        ((name, slot.view(parameters[slot.parameter].detach())) for name, slot in places.items()),
        expected_tensors(model),
        folder,
        dtype=dtype,
        max_shard_bytes=max_shard_bytes,
    )


def save_tensors(
    tensors: Iterable[tuple[str, Tensor]],
    shapes: Mapping[str, torch.Size],
    folder: Path,
    *,
    dtype: torch.dtype,
    max_shard_bytes: int,
) -> None:
    """Write tensors, in the order of `shapes` as shards and an index, one shard at a time."""
    shards = _plan_shards(shapes, dtype.itemsize, max_shard_bytes)
    source = iter(tensors)
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        content = {name: tensor.to(dtype).contiguous() for name, tensor in _take(source, names)}
        save_file(content, folder / file, metadata={"format": "pt"})
        (folder / file).chmod(0o644)  # the library makes files that only their owner can read
        weight_map.update(dict.fromkeys(names, file))
    total = sum(shape.numel() for shape in shapes.values()) * dtype.itemsize
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def weight_files(folder: Path) -> list[Path]:
    """The files with weights, each once, in the index's order.

    Raises:
        CheckpointError: there are none, one is missing, or the index can not be read.
    """
    index_path = folder / INDEX_FILE
    if not index_path.exists():
        single = folder / SINGLE_FILE
        if not single.exists():
            raise CheckpointError(f"{folder} holds neither {INDEX_FILE} nor {SINGLE_FILE}")
        return [single]
    try:
        weight_map = json.loads(index_path.read_text(encoding="utf-8"))["weight_map"]
        files = [folder / name for name in dict.fromkeys(weight_map.values())]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"can not read {index_path}: {error!r}") from error
    missing = [path.name for path in files if not path.exists()]
    if missing:
        raise CheckpointError(f"{folder} lacks {len(missing)} weight files: {_some(missing)}")
    return files


def _names_in(files: list[Path]) -> list[str]:
    names: list[str] = []
    for path in files:
        with _opened(path) as file:
            names.extend(file.keys())
    return names


def _tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Each tensor as a view of the mapped file: the file's pages, not memory of this process."""
    with _opened(path) as file:
        for name in file.keys():  # noqa: SIM118 (not a mapping)
            yield name, file.get_tensor(name)


def _opened(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


def _check_names(folder: Path, places: Mapping[str, Slot], names: Iterable[str]) -> None:
    have = set(names)
    missing = [name for name in places if name not in have]
    left_over = sorted(have - places.keys())
    faults = [
        f"{len(found)} tensors {what}: {_some(found)}"
        for found, what in ((missing, "missing"), (left_over, "left over"))
        if found
    ]
    if faults:
        raise CheckpointError(f"{folder} does not fit its config.json; {'; '.join(faults)}")


def _device_of(model: nn.Module, name: str) -> torch.device:
    """Where the stage lies that a module belongs to; it may have no weights of its own."""
    stage = model.get_submodule(name.partition(".")[0])
    return next(stage.parameters(), next(model.parameters())).device


def _targets(model: nn.Module) -> dict[str, Target]:
    """What slots name: parameters, and packed matrices."""
    packed = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, ScaledRows | Int4Matrices)
    }
    return {**dict(model.named_parameters()), **packed}


@torch.no_grad()
def _put(slot: Slot, targets: Mapping[str, Target], name: str, tensor: Tensor | Grouped) -> None:
    shape = tensor.levels.shape if isinstance(tensor, Grouped) else tensor.shape
    if shape != slot.shape:
        raise CheckpointError(
            f"tensor {name} has shape {list(shape)}, config.json asks for {list(slot.shape)}"
        )
    target = targets[slot.parameter]
    if not isinstance(target, Tensor):
        assert slot.expert is not None, name
        target.put(slot.expert, slot.start, tensor)
        return
    numbers = tensor.dequantized() if isinstance(tensor, Grouped) else tensor
    slot.view(target).copy_(numbers)


def _plan_shards(
    shapes: Mapping[str, torch.Size], itemsize: int, max_shard_bytes: int
) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    room = max_shard_bytes
    for name, shape in shapes.items():
        size = shape.numel() * itemsize
        if size > room and shards[-1]:
            shards.append([])
            room = max_shard_bytes
        shards[-1].append(name)
        room -= size
    return shards


def _take(source: Iterator[tuple[str, Tensor]], names: list[str]) -> Iterator[tuple[str, Tensor]]:
    for expected in names:
        name, tensor = next(source)
        assert name == expected, (name, expected)
        yield name, tensor


def _all_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
