"""A small fully connected network in numpy: features in, probabilities of classes out.

The judges' weights lie in `judges.npz` beside this file; `pipeline.synthetic.train` makes them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources

import numpy as np

from pipeline.listening.prosody import Floats

CLIP = 4.0  # standard deviations: what lies further out says no more


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One hidden layer. Attributes: [features] mean and scale; [features, hidden] first, [hidden]
    bias; [hidden, classes] second, [classes] bias.
    """

    mean: Floats
    scale: Floats
    first: Floats
    first_bias: Floats
    second: Floats
    second_bias: Floats

    def __call__(self, features: Floats) -> Floats:
        """features: [..., features] -> probabilities [..., classes]."""
        logits = self.hidden(features) @ self.second + self.second_bias
        raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return np.asarray(raised / raised.sum(axis=-1, keepdims=True), np.float32)

    def hidden(self, features: Floats) -> Floats:
        """features: [..., features] -> [..., hidden]."""
        normal = np.clip((features - self.mean) / self.scale, -CLIP, CLIP)
        return np.asarray(np.tanh(normal @ self.first + self.first_bias), np.float32)


@functools.cache
def load(name: str) -> Network:
    """A network of `judges.npz`, in float32."""
    path = resources.files("pipeline.listening").joinpath("judges.npz")
    with path.open("rb") as file, np.load(file) as stored:
        fields = Network.__dataclass_fields__
        return Network(**{key: stored[f"{name}.{key}"].astype(np.float32) for key in fields})
