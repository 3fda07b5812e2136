"""From a name to a checkpoint folder: the embedded one, a folder as it is, or a model of the hub.

Sizes are asked first: a download that would not fit on the disk, or weights that would not fit in
any device's memory, are refused before the first byte. Without network a model that is in the
cache is used as it is.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from models.config import read_config
from models.devices import describe_devices, format_bytes
from models.errors import CheckpointError, ResourceError
from models.packing import read_packing

# Whatever HTTP library this version of the hub's client uses, its errors are bases of its own.
_NETWORK_ERRORS: tuple[type[Exception], ...] = (
    OSError,
    *(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)),
)
FILES = ("*.json", "*.jinja", "*.safetensors", "*.txt")
MOST_PACKED = 2.5  # times fewer bytes, with the experts in 4 bits (published: 71 GB, then 29)
EMBEDDED = "embedded"  # what is served when no other model is named; made by `models.recipe`
EMBEDDED_FOLDER = Path(__file__).parent / "embedded"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def resolve_checkpoint(name: str) -> Path:
    """The folder of the checkpoint called `name`: "embedded", a path, or a hub id `OWNER/NAME`.

    May download, with a progress bar on stderr; what was there before a broken download is used
    again.

    Raises:
        CheckpointError: no such folder or model, or the hub can not be reached.
        ResourceError: not enough disk for the download, or memory for the weights.
    """
    if name == EMBEDDED:
        return EMBEDDED_FOLDER
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if not _HUB_ID.fullmatch(name) or name.startswith("."):
        raise CheckpointError(f"no such checkpoint folder: {name}")
    try:
        return _download(name)
    except HfHubHTTPError as error:
        raise CheckpointError(f"{name}: {_why(error)}") from error
    except _NETWORK_ERRORS as error:
        return _cached(name, error)


def check_room(name: str, sizes: Iterable[tuple[str, int]], *, cached_bytes: int = 0) -> None:
    """Refuse what can not be stored or loaded.

    Args:
        sizes: (file name, bytes) of all that would be downloaded.
        cached_bytes: how much of it is on the disk already.

    Raises:
        ResourceError: says need and have.
    """
    sizes = list(sizes)
    need = max(0, sum(size for _, size in sizes) - cached_bytes)
    free = shutil.disk_usage(_existing(Path(constants.HF_HUB_CACHE))).free
    if need > free:
        raise ResourceError(
            f"{name} needs {format_bytes(need)} of disk in {constants.HF_HUB_CACHE}; "
            f"{format_bytes(free)} is free"
        )
    weights = sum(size for file, size in sizes if file.endswith(".safetensors"))
    free = sum(device.free_bytes for device in describe_devices())
    if weights > MOST_PACKED * free:
        raise ResourceError(
            f"{name} has {format_bytes(weights)} of weights; all devices here have"
            f" {format_bytes(free)} free, which is too little also for experts in 4 bits"
        )


def _download(name: str) -> Path:
    info = HfApi().model_info(name, files_metadata=True)
    siblings = info.siblings or []
    sizes = [(s.rfilename, s.size or 0) for s in siblings if _is_wanted(s.rfilename)]
    if not any(file.endswith(".safetensors") for file, _ in sizes):
        raise CheckpointError(f"{name} has no safetensors weights")
    check_room(name, sizes, cached_bytes=_cached_bytes(name))
    # Whether it can be read at all is told before 70 GB of it have come.
    begun = Path(snapshot_download(name, revision=info.sha, allow_patterns=["config.json"]))
    read_config(begun)
    read_packing(begun)
    files = [file for file, _ in sizes]
    return Path(snapshot_download(name, revision=info.sha, allow_patterns=files))


def _cached(name: str, error: Exception) -> Path:
    """The newest snapshot in the cache, for a machine without network."""
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError:
        raise CheckpointError(
            f"no folder {name} here, none in the cache, and the hub can not be reached: {error}"
        ) from error


def _cached_bytes(name: str) -> int:
    """Bytes of a model that earlier downloads left in the cache, broken ones included."""
    blobs = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "blobs"
    return sum(file.stat().st_size for file in blobs.glob("*")) if blobs.is_dir() else 0


def _is_wanted(file: str) -> bool:
    return "/" not in file and any(Path(file).match(pattern) for pattern in FILES)


def _existing(path: Path) -> Path:
    """`path` or its nearest parent that exists."""
    return next(parent for parent in (path, *path.parents) if parent.exists())


def _why(error: HfHubHTTPError) -> str:
    """One line for the answers that people meet."""
    status = error.response.status_code
    if status in (401, 403, 404):
        return "no such folder here, and no such model on the hub (or no access to it)"
    return f"the hub answered with status {status}"
