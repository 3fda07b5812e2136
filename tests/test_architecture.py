"""The arrows between the folders, held by walking every import: who may know whom.
clients -> daemon.protocol       daemon -> pipeline       pipeline/worker.py -> models
   (configs: data)
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("models", "pipeline", "daemon", "clients", "configs")
ALLOWED = {
    "models": {"models"},
    "pipeline": {"pipeline"},
    "daemon": {"daemon", "pipeline"},
    "clients": {"clients"},
    "configs": set(),
}
WORKER = "pipeline/worker.py"
PROTOCOL = "daemon.protocol"
HEAVY = ("torch", "aiortc", "av", "fastapi", "uvicorn", "onnxruntime", "transformers")


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of each import, relative ones resolved.

    `from a import b` counts as `a`, and as `a.b`.
    """
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (above, node.module) if part)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def is_allowed(path: Path, module: str) -> bool:
    folder, target = path.relative_to(ROOT).parts[0], module.split(".")[0]
    if target in ALLOWED[folder]:
        return True
    if name(path) == WORKER and target == "models":
        return True
    return folder == "clients" and (module + ".").startswith(PROTOCOL + ".")


@pytest.mark.parametrize("folder", OURS)
def test_arrows(folder: str) -> None:
    wrong = [
        f"{name(path)}:{line} imports {module}"
        for path in files(folder)
        for line, module in imports(path)
        if module.split(".")[0] in OURS and not is_allowed(path, module)
    ]
    assert files(folder), folder
    assert wrong == []


def test_torch_stays_with_the_models() -> None:
    wrong = [
        f"{name(path)}:{line}"
        for folder in OURS[1:]
        for path in files(folder)
        for line, module in imports(path)
        if module.split(".")[0] == "torch" and name(path) != WORKER
    ]
    assert wrong == []


def test_transformers_is_only_an_oracle() -> None:
    wrong = [
        f"{name(path)}:{line}"
        for folder in OURS
        for path in files(folder)
        for line, module in imports(path)
        if module.split(".")[0] in ("transformers", "torchvision", "torchaudio", "silero_vad")
    ]
    assert wrong == []


def test_only_settings_read_the_environment() -> None:
    wrong = [
        f"{name(path)}:{line}"
        for folder in OURS
        for path in files(folder)
        if name(path) != "daemon/settings.py"
        for line in environment_reads(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert wrong == []


def environment_reads(tree: ast.AST) -> Iterator[int]:
    """Lines that use `os.environ` or `os.getenv`; setting a variable for a library is no use."""
    written = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store)
    }
    for node in ast.walk(tree):
        is_environment = isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
        if is_environment and id(node) not in written:
            yield node.lineno


@pytest.mark.parametrize("folder", OURS)
def test_each_file_says_what_it_is(folder: str) -> None:
    silent = [
        name(path)
        for path in files(folder)
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []


def test_packages_hold_a_docstring_only() -> None:
    full = [
        name(path)
        for folder in OURS
        for path in files(folder)
        if path.name == "__init__.py" and len(ast.parse(path.read_text(encoding="utf-8")).body) != 1
    ]
    assert full == []


@pytest.mark.parametrize(
    "module", [PROTOCOL, "clients", "clients.bench.latency", "clients.browser"]
)
def test_the_device_part_imports_without_the_rest(module: str) -> None:
    heavy = ", ".join(repr(package) for package in HEAVY)
    code = (
        f"import sys\nfor package in ({heavy}): sys.modules[package] = None\n"
        f"import {module}\n"
        "assert not [m for m in sys.modules if m.split('.')[0] in ('models', 'pipeline')]"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_walk_sees_what_is_forbidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    bad = tmp_path / "daemon" / "bad.py"
    bad.parent.mkdir()
    bad.write_text(
        "def f():\n    from models.engine import Engine\n    from . import worse\n"
        "    import pipeline.x\n"
    )
    found = [(module, is_allowed(bad, module)) for _, module in imports(bad)]
    assert found == [("models.engine.Engine", False), ("daemon.worse", True), ("pipeline.x", True)]
    client = tmp_path / "clients" / "c.py"
    assert is_allowed(client, "daemon.protocol.ServerEvent")
    assert not is_allowed(client, "daemon.protocol_base.ServerEvent")
    assert not is_allowed(client, "daemon.server")
