"""`omnid checkpoint` and `omnid doctor`."""

from __future__ import annotations

import argparse
from importlib import metadata
from pathlib import Path

import pytest

from models.commands import checkpoint, doctor
from models.commands.doctor import Requirement, parse_requirement
from models.errors import CheckpointError, RequestError
from models.hub import EMBEDDED, EMBEDDED_FOLDER
from models.recipe.stages import run_stages


def parsed(module: object, *arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return parser.parse_args(arguments)


def test_checkpoint_tiny(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def write(folder: Path, *, seed: int, force: bool) -> None:
        asked.append((folder, seed, force))
        (folder / "weights").write_bytes(bytes(2048))

    monkeypatch.setattr(checkpoint, "write_tiny_checkpoint", write)
    assert checkpoint.run(parsed(checkpoint, "tiny", str(tmp_path))) == 0
    assert checkpoint.run(parsed(checkpoint, "tiny", str(tmp_path), "--seed", "3", "--force")) == 0
    assert asked == [(tmp_path, 0, False), (tmp_path, 3, True)]
    assert "2 kiB, seed 3. It babbles." in capsys.readouterr().out


def test_checkpoint_needs_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(checkpoint)
    assert "COMMAND" in capsys.readouterr().err


def test_requirements_are_read_from_the_metadata() -> None:
    line = 'torch<2.14,>=2.11; platform_system == "Linux" and extra == "model"'
    assert parse_requirement(line) == Requirement(
        name="torch", specification="torch<2.14,>=2.11", extra="model"
    )
    assert parse_requirement("numpy>=2.0").extra is None


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What pip would say is installed; tests change it."""
    have = {"omnid": "0.1.0", "torch": "2.13.0", "numpy": "2.4", "fastapi": "1"}
    lines = [
        "numpy>=2.0",
        'fastapi>=0.115; extra == "server"',
        'torch<2.14,>=2.11; extra == "model"',
        'rich>=13; extra == "bench"',
        'triton>=3; extra == "gpu"',
    ]

    def version(name: str) -> str:
        if name not in have:
            raise metadata.PackageNotFoundError(name)
        return have[name]

    def requires(name: str) -> list[str]:
        version(name)
        return lines

    monkeypatch.setattr(doctor.metadata, "version", version)
    monkeypatch.setattr(doctor.metadata, "requires", requires)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    return have


def test_doctor_on_a_good_machine(
    packages: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor.run(parsed(doctor)) == 0
    out = capsys.readouterr().out
    assert "omnid 0.1.0, Python 3." in out
    assert "torch 2.13.0" in out
    assert " GiB free of " in out
    assert "float32" in out
    assert "`omnid serve` would work here." in out
    assert "bench (optional): rich" in out
    assert "pip install 'rich>=13'" in out
    assert "apt-get install flite" in out
    assert "triton" not in out


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("torch", "'torch<2.14,>=2.11'"),
        ("fastapi", "'fastapi>=0.115'"),
        ("numpy", "'numpy>=2.0'"),
        ("omnid", "-e ."),
    ],
)
def test_doctor_names_what_serving_lacks(
    name: str, command: str, packages: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    del packages[name]
    assert doctor.run(parsed(doctor)) == 1
    out = capsys.readouterr().out
    assert f"Missing for `omnid serve`: {name}" in out
    assert f"-m pip install {command}" in out
    assert "would not work here" in out


def test_doctor_looks_for_gpu_packages_only_where_there_is_one(
    packages: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert doctor.run(parsed(doctor)) == 0
    out = capsys.readouterr().out
    assert "gpu (optional): triton" in out
    assert "apt-get" not in out


def test_checkpoint_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        checkpoint, "run_stages", lambda *given, **named: asked.append((given, named))
    )
    folder = str(tmp_path)
    assert checkpoint.run(parsed(checkpoint, "train", folder, "--stage", "codec", "--resume")) == 0
    flags = ("--minutes", "5", "--rate", "0.3", "--from", EMBEDDED)
    assert checkpoint.run(parsed(checkpoint, "train", folder, *flags)) == 0
    (first, resumed), (every, fresh) = asked
    assert first == (tmp_path, ["codec"])
    assert resumed == {
        "seed": 0,
        "minutes": 60.0,
        "rate": 1.0,
        "is_resumed": True,
        "begin_with": None,
    }
    assert every[1][:2] == ["data", "codec"]
    begin_with = EMBEDDED_FOLDER
    assert fresh == {
        "seed": 0,
        "minutes": 5.0,
        "rate": 0.3,
        "is_resumed": False,
        "begin_with": begin_with,
    }


@pytest.mark.parametrize("flag", ["--rate", "--minutes"])
@pytest.mark.parametrize("number", ["0", "-1", "nan", "inf", "much"])
def test_how_long_and_how_fast_to_train_are_positive(
    flag: str, number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parsed(checkpoint, "train", "folder", flag, number)
    assert f"{flag}: must be a number above 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    [("measure", "work", "--stage", "vocoder", "--number"), ("exam", "folder", "--sixties")],
)
def test_how_many_are_at_least_one(
    flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parsed(checkpoint, *flags, "0")
    assert f"{flags[-1]}: must be a whole number from 1, not 0" in capsys.readouterr().err


def test_an_exam_needs_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="can not make the folder"):
        checkpoint.run(parsed(checkpoint, "exam", str(tmp_path / "file")))


def test_nothing_is_exported_from_nowhere(tmp_path: Path) -> None:
    nowhere = tmp_path / "work"
    with pytest.raises(CheckpointError, match="no such work folder"):
        checkpoint.run(parsed(checkpoint, "export", str(nowhere), str(tmp_path / "made")))
    assert not nowhere.exists()


def test_a_file_is_no_folder_to_train_in(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(CheckpointError, match="can not be a folder"):
        run_stages(file, ["data"], seed=0, minutes=1, is_resumed=False)


def test_doctor_plans_a_models_memory(
    packages: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("models.devices.cpu_memory", lambda: (64 * 2**30, 60 * 2**30))
    flags = ("--device", "cpu", "--dtype", "bfloat16", "--sessions", "2")
    assert doctor.run(parsed(doctor, "--model", "full", *flags)) == 1
    out = capsys.readouterr().out
    assert "2 conversations of 8192 tokens" in out
    assert "thinker on cpu: weights 59.1 GiB, caches 1.5 GiB" in out
    assert "It does not fit; it would fit with experts = int8." in out
    assert doctor.run(parsed(doctor, "--model", "full", *flags, "--experts", "int4")) == 0
    out = capsys.readouterr().out
    assert "thinker on cpu: weights 20.3 GiB" in out
    assert "It fits." in out
    with pytest.raises(CheckpointError, match="no such checkpoint folder: nowhere"):
        doctor.run(parsed(doctor, "--model", "nowhere"))
    with pytest.raises(RequestError, match="at least 1"):
        doctor.run(parsed(doctor, "--sessions", "0"))
