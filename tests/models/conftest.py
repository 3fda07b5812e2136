"""Fixtures of the model tests: one oracle for the whole session, and our model with its weights."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

# Before anything imports triton: without a GPU its kernels run in its interpreter.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

sys.path.append(str(Path(__file__).parent))  # `oracle.py` stands beside the tests

from oracle import Oracle, build_oracle

from models.config import read_config
from models.qwen3_omni.model import Qwen3Omni
from models.weights import load_model

torch.set_num_threads(1)  # more threads on a busy machine are many times slower


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    """The tiny reference model, saved once in the published format."""
    folder = tmp_path_factory.mktemp("checkpoint")
    model = build_oracle()
    model.save_pretrained(folder)
    return Oracle(model=model, folder=folder, config=read_config(folder))


@pytest.fixture(scope="session")
def ours(oracle: Oracle) -> Qwen3Omni:
    """Our model with the oracle's weights, float32 on the CPU."""
    return load_model(oracle.folder, oracle.config, device=torch.device("cpu"), dtype=torch.float32)
