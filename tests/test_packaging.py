"""What is installed equals what lies in the tree.

Packages, data files, reasons of dependencies, the wheel.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("models", "pipeline", "daemon", "clients", "configs")
PAGE = {"index.html", "app.js", "style.css"}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def packages() -> set[str]:
    found = (path.parent for folder in FOLDERS for path in (ROOT / folder).rglob("__init__.py"))
    return {".".join(path.relative_to(ROOT).parts) for path in found}


def test_package_list_is_the_tree(project: dict[str, Any]) -> None:
    listed = project["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(packages())


def test_each_python_file_lies_in_a_package() -> None:
    known = packages()
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    outside = [path for path in files if ".".join(path.parent.relative_to(ROOT).parts) not in known]
    assert outside == []


def test_each_dependency_says_why_and_from_when() -> None:
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    dependencies = [line for line in lines if re.match(r'^ {4}"[a-z]', line) and "gpu:" not in line]
    dependencies = [line for line in dependencies if re.search(r"[<>=]=?\d", line)]
    assert len(dependencies) > 20
    assert [line for line in dependencies if not re.search(r"#\s*\S", line)] == []
    assert [line for line in dependencies if ">=" not in line] == []


def test_data_is_readable_from_the_packages() -> None:
    presets = [
        entry for entry in resources.files("configs").iterdir() if entry.name.endswith(".toml")
    ]
    assert presets
    for preset in presets:
        assert tomllib.loads(preset.read_text(encoding="utf-8"))
    page = {entry.name for entry in resources.files("clients.browser").iterdir()}
    assert page >= PAGE
    assert (resources.files("clients.bench") / "question.wav").read_bytes()[:4] == b"RIFF"


def test_page_loads_nothing_from_elsewhere() -> None:
    page = ROOT / "clients" / "browser"
    html = (page / "index.html").read_text(encoding="utf-8")
    for _, target in re.findall(r'\b(src|href)="([^"]+)"', html):
        assert (page / target).is_file(), target
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", html), (
        "inline script or style"
    )
    for script in page.glob("*.js"):
        text = script.read_text(encoding="utf-8")
        for target in re.findall(r'from "([^"]+)"', text):
            assert (page / target).is_file(), f"{script.name}: {target}"
        assert not re.search(r"https?://(?!localhost)[a-z]", text), script.name


def test_wheel_holds_code_and_data(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", "77", reason="builds the wheel without the network")
    source = tmp_path / "source"
    source.mkdir()
    for folder in FOLDERS:
        shutil.copytree(
            ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    for file in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / file, source)
    flags = [
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--quiet",
        "--wheel-dir",
        str(tmp_path),
    ]
    command = [sys.executable, "-m", "pip", "wheel", str(source), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    held = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    files = [path for folder in FOLDERS for path in (source / folder).rglob("*") if path.is_file()]
    wanted = {path.relative_to(source).as_posix() for path in files}
    assert {"clients/browser/app.js", "clients/bench/question.wav"} <= wanted
    assert wanted <= held, sorted(wanted - held)
