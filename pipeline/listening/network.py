"""A small fully connected network in numpy: features in, probabilities of classes out.

The judges' weights lie beside this file: `judges.npz` (made by `pipeline.synthetic.train`) for
sound alone, `word_judges.npz` (`benchmarks/word_judges.py`) for sound and words.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from importlib import resources

import numpy as np

from pipeline.listening.prosody import Floats
from pipeline.messages import Reading

WORD_JUDGES = "word_judges.npz"

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

    @classmethod
    def mean_of(cls, networks: Sequence[Network]) -> Network:
        """One whose log odds are the mean of those of others, which were fitted to the same."""
        return cls(
            mean=networks[0].mean,
            scale=networks[0].scale,
            first=np.concatenate([each.first for each in networks], axis=1),
            first_bias=np.concatenate([each.first_bias for each in networks]),
            second=np.concatenate([each.second / len(networks) for each in networks]),
            second_bias=np.mean([each.second_bias for each in networks], axis=0),
        )


def of_words(reading: Reading) -> Floats:
    """What an engine has read, as features."""
    return np.array(astuple(reading), np.float32)


def log_odds(probability: float) -> float:
    """Of a probability, but for what is all but certain."""
    inner = min(max(probability, 1e-4), 1 - 1e-4)
    return float(np.log(inner / (1 - inner)))


@functools.cache
def load(name: str, file_name: str = "judges.npz") -> Network:
    """A network of a file, in float32."""
    path = resources.files("pipeline.listening").joinpath(file_name)
    with path.open("rb") as file, np.load(file) as stored:
        fields = Network.__dataclass_fields__
        return Network(**{key: stored[f"{name}.{key}"].astype(np.float32) for key in fields})
