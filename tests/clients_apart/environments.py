"""Makes an environment for each client whose pins do not fit ours: `.clients/NAME`.

Run by `make test`, before pytest; standard library only. An environment is made once and again when
its list of packages changes (its stamp holds both, and the interpreter's version). Where a registry
is out of reach it says which client will not be tested, and goes on: the tests decide whether that
is a failure (`OMNID_REQUIRE_CLIENTS`, set in CI) or a skip.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
FOLDER = HERE.parent.parent / ".clients"
NODE = "node"
INSTALL_S = 300


def names() -> list[str]:
    """All clients: a file of requirements each, and Node's."""
    return [*sorted(file.stem for file in (HERE / "requirements").glob("*.txt")), NODE]


def is_made(name: str) -> bool:
    """Whether the environment is there, as its list wants it."""
    stamp = FOLDER / name / "stamp"
    return stamp.is_file() and stamp.read_text() == _stamp(name)


def python_of(name: str) -> Path:
    """The interpreter of an environment."""
    return FOLDER / name / "bin" / "python"


def make(name: str) -> str | None:
    """Make one environment; what went wrong, or None."""
    if is_made(name):
        return None
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        (_make_node if name == NODE else _make_python)(name, folder)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        return str(said).strip().splitlines()[-1]
    (folder / "stamp").write_text(_stamp(name))
    return None


def _sources(name: str) -> list[Path]:
    if name == NODE:
        return [HERE / "node" / "package.json", HERE / "node" / "package-lock.json"]
    return [HERE / "requirements" / f"{name}.txt"]


def _stamp(name: str) -> str:
    digest = hashlib.sha256(repr(sys.version_info[:2]).encode())
    for source in _sources(name):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _make_python(name: str, folder: Path) -> None:
    venv.create(folder, with_pip=False)
    # the pip that runs this installs into it: bringing pip along costs seconds for each
    pip = [sys.executable, "-m", "pip", "--python", str(python_of(name)), "install", "--quiet"]
    _run([*pip, "--no-compile", "--no-deps", "-r", str(_sources(name)[0])])


def _make_node(_: str, folder: Path) -> None:
    for source in _sources(NODE):
        shutil.copy(source, folder)
    _run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder)])


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_S)


def main() -> None:
    """Make all that are missing, two at a time."""
    missing = [name for name in names() if not is_made(name)]
    if not missing:
        return
    print(f"Installing clients to test against: {', '.join(missing)} ...", flush=True)
    began_s = time.monotonic()
    with ThreadPoolExecutor(max_workers=2) as pool:
        for name, fault in zip(missing, pool.map(make, missing), strict=True):
            if fault is not None:
                print(f"The client '{name}' will not be tested: {fault}", file=sys.stderr)
    print(f"... in {time.monotonic() - began_s:.0f} s", flush=True)


if __name__ == "__main__":
    main()
