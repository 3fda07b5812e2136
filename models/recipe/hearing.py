"""Learning to hear: the audio encoder alone, from sounds to the words in them.

The thinker reads an audio token as it reads a word's embedding. So the encoder learns to write just
these: connectionist temporal classification whose classes are the rows of the embedding table
(which stays as it was drawn), with the placeholder of an audio token for what is between words.
What the decoder learns from words meanwhile (`models.recipe.language`) is then true of sound.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from models.qwen3_omni.audio_encoder import AudioAttention, AudioEncoder, AudioEncoderLayer
from models.recipe.learner import Learner
from models.recipe.mel_noise import LOUD, disturbed_features, features
from models.recipe.phonemes import word_phonemes
from models.recipe.quick_types import quick_types
from models.recipe.run import Pace, Run
from models.recipe.utterances import Utterance

PACE = Pace(peak_rate=1.5e-3, warmup_steps=300, rate_halves_after=6000, averaging=0.998)
UTTERANCES_PER_STEP = 48
SCALE = 0.25  # of the products with embeddings, which have a length of about 8
MIXTURE_WEIGHT = 0.01
FLAT_START_STEPS = 1200
FLAT_WEIGHT = 0.1
SOUNDS_WEIGHT = 0.5
MOMENTS = 2  # of a token, for its sounds
TOKENS_PER_FRAME = 0.13
WINDOW_FRAMES = (800, 800, 200)  # as heard alone, or beside a camera


@dataclass(frozen=True, slots=True, kw_only=True)
class Ears:
    """What hears, and what is to be written.

    Attributes:
        table: [vocabulary, hidden], the rows that it writes. blank: the row between words.
        letters: [vocabulary], how long each is.
        phonemes: numbers, from 1 on, of the sounds of each word's id.
    """

    encoder: AudioEncoder
    table: Tensor
    blank: int
    letters: Tensor
    phonemes: Mapping[int, tuple[int, ...]]


class Pupil(nn.Module):
    """The encoder, and a head that is thrown away: sounds of the language, two moments a token.

    Words have few sounds in common with the eye, all with the ear: read off half-way through the
    encoder, they are learnt long before words are.
    """

    def __init__(self, encoder: AudioEncoder, num_phonemes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.sounds = nn.Linear(encoder.config.hidden_size, MOMENTS * (num_phonemes + 1))


def ears_of(learner: Learner) -> Ears:
    """The encoder of a learner, and the table of its decoder."""
    thinker = learner.thinker
    return Ears(
        encoder=thinker.audio_tower,
        table=learner.table,
        blank=learner.config.thinker.audio_id,
        letters=learner.letters,
        phonemes=word_phonemes(learner),
    )


def hear_batch(
    encoder: AudioEncoder, mels: Sequence[Tensor], windows: Sequence[int]
) -> tuple[list[Tensor], list[Tensor]]:
    """Encode several clips as `AudioEncoder.forward` does one, with gradients.

    Args:
        mels: [bins, frames] each. windows: frames of each clip's attention windows.

    Returns:
        [tokens, output_size] of each clip, and [tokens, hidden] half-way.
    """
    rows = _downsampled(encoder, mels)
    segments = [
        part
        for tokens, frames in zip(rows, windows, strict=True)
        for part in torch.split(tokens, encoder.window_chunks(frames) * encoder.chunk_tokens)
    ]
    places = _Places.of([len(part) for part in segments])
    hidden = torch.cat(rows)
    half_way = hidden
    for index, layer in enumerate(cast(Iterable[AudioEncoderLayer], encoder.layers)):
        half_way = hidden if 2 * index == len(encoder.layers) else half_way
        normed = layer.self_attn_layer_norm(hidden)
        hidden = hidden + _attended(layer.self_attn, normed, places)
        hidden = hidden + layer.fc2(F.gelu(layer.fc1(layer.final_layer_norm(hidden))))
    out: Tensor = encoder.proj2(F.gelu(encoder.proj1(encoder.ln_post(hidden))))
    counts = [len(tokens) for tokens in rows]
    return list(torch.split(out, counts)), list(torch.split(half_way, counts))


def take_step(
    run: Run, ears: Ears, batch: Sequence[Utterance], chance: random.Random
) -> dict[str, float]:
    """One step on some utterances, each disturbed anew."""
    pupil = run.module
    assert isinstance(pupil, Pupil)
    run.begin_step()
    mels = [disturbed_features(one.mel, chance) for one in batch]
    windows = [chance.choice(WINDOW_FRAMES) for _ in batch]
    ids = [one.ids for one in batch]
    with quick_types():
        tokens, half_way = hear_batch(ears.encoder, mels, windows)
        words, scores = words_loss(ears, tokens, ids)
        losses = {"words": words}
        if not run.begun:  # a head that knows nothing yet would lead astray what has learnt
            losses["sounds"] = sounds_loss(pupil, ears, half_way, ids)
        loss = words + SOUNDS_WEIGHT * losses.get("sounds", 0.0)
        share = 1 - run.step / FLAT_START_STEPS
        if share > 0:
            loss = loss + FLAT_WEIGHT * share * flat_start_loss(ears, mels, tokens, ids)
    loss.backward()  # type: ignore[no-untyped-call]
    run.end_step()
    right = [
        written(ears, s[: len(t)]) == one.ids
        for s, t, one in zip(scores, tokens, batch, strict=True)
    ]
    means = {name: one.item() for name, one in losses.items()}
    return {**means, "right": sum(right) / len(right)}


def sounds_loss(
    pupil: Pupil, ears: Ears, half_way: Sequence[Tensor], ids: Sequence[Sequence[int]]
) -> Tensor:
    """CTC of the phonemes; what holds a foreign word counts nothing."""
    known = [
        (rows, [sound for word in words for sound in ears.phonemes[word]])
        for rows, words in zip(half_way, ids, strict=True)
        if words and all(word in ears.phonemes for word in words)
    ]
    if not known:
        return half_way[0].new_zeros(())
    padded = pad_sequence([rows for rows, _ in known], batch_first=True)
    scores = pupil.sounds(padded).unflatten(2, (MOMENTS, -1)).flatten(1, 2)  # [B, 2 T, P + 1]
    return F.ctc_loss(
        scores.float().log_softmax(dim=2).transpose(0, 1),
        torch.tensor([sound for _, sounds in known for sound in sounds]),
        torch.tensor([MOMENTS * len(rows) for rows, _ in known]),
        torch.tensor([len(sounds) for _, sounds in known]),
        reduction="none",
        zero_infinity=True,
    ).mean()


def words_loss(
    ears: Ears, tokens: Sequence[Tensor], ids: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor]:
    """The loss of audio tokens that should say these words, and their scores [B, T, vocabulary].

    A sentence that is too long for its sound counts nothing. Tokens are also drawn towards the
    mixture of embeddings that they are read as.
    """
    padded = pad_sequence(list(tokens), batch_first=True)  # [B, T, H]
    scores = (SCALE * padded @ ears.table.T).float()
    chances = scores.log_softmax(dim=2)
    lengths = torch.tensor([len(one) for one in tokens])
    wanted = torch.tensor([word for sentence in ids for word in sentence], dtype=torch.long)
    counts = torch.tensor([len(sentence) for sentence in ids])
    losses = F.ctc_loss(
        chances.transpose(0, 1),
        wanted,
        lengths,
        counts,
        blank=ears.blank,
        reduction="none",
        zero_infinity=True,
    )
    flat = torch.cat(list(tokens)).float()
    read_as = (SCALE * flat @ ears.table.T.float()).softmax(dim=1).detach() @ ears.table
    mixture = (flat - read_as).square().sum(dim=1).mean()
    return losses.mean() + MIXTURE_WEIGHT * mixture, scores.detach()


def flat_start_loss(
    ears: Ears, mels: Sequence[Tensor], tokens: Sequence[Tensor], ids: Sequence[Sequence[int]]
) -> Tensor:
    """The loss where each word is said where its letters lie between a clip's first and last sound.

    Nearly right, and enough to leave the long plateau on which nothing but blanks is written.
    """
    wanted = [
        torch.tensor(flat_alignment(ears, mel, len(rows), words))
        for mel, rows, words in zip(mels, tokens, ids, strict=True)
    ]
    scores = SCALE * torch.cat(list(tokens)).float() @ ears.table.T.float()
    return F.cross_entropy(scores, torch.cat(wanted)) * len(scores) / len(tokens)


def flat_alignment(ears: Ears, mel: Tensor, num_tokens: int, words: Sequence[int]) -> list[int]:
    """The id that each token should say."""
    energy = mel.mean(dim=0)
    loud = (energy > energy.min() + LOUD * (energy.max() - energy.min())).nonzero()[:, 0]
    made = [ears.blank] * num_tokens
    if not words or not len(loud):
        return made
    first, last = int(loud[0]) * TOKENS_PER_FRAME, (int(loud[-1]) + 1) * TOKENS_PER_FRAME
    ends = ears.letters[torch.tensor(words)].cumsum(0)
    for place in range(num_tokens):
        share = (place + 0.5 - first) / max(1e-6, last - first)
        if 0 <= share < 1:
            made[place] = words[int(torch.searchsorted(ends, share * ends[-1], right=True))]
    return made


def written(ears: Ears, scores: Tensor) -> tuple[int, ...]:
    """What [T, vocabulary] scores say: the best of each token, repetitions and blanks left out."""
    best = torch.unique_consecutive(scores.argmax(dim=1)).tolist()
    return tuple(word for word in best if word != ears.blank)


@torch.no_grad()
def num_heard_right(ears: Ears, exam: Sequence[Utterance]) -> int:
    """Utterances whose words all come out, undisturbed."""
    count = 0
    for one in exam:
        tokens = ears.encoder(features(one.mel.float()))
        count += written(ears, tokens @ ears.table.T) == one.ids
    return count


def _downsampled(encoder: AudioEncoder, mels: Sequence[Tensor]) -> list[Tensor]:
    """Tokens of each clip before the transformer; whole chunks of all clips at once."""
    length = encoder.chunk_frames
    counts = [-(-mel.shape[1] // length) if mel.shape[1] >= length else 0 for mel in mels]
    chunks = [
        F.pad(mel, (0, count * length - mel.shape[1])).view(-1, count, length).transpose(0, 1)
        for mel, count in zip(mels, counts, strict=True)
        if count
    ]
    together = encoder.convolve(torch.cat(chunks)) if chunks else torch.zeros(0)
    whole = iter(torch.split(together, [count for count in counts if count]))
    return [
        (next(whole).flatten(0, 1) if count else encoder.convolve(mel[None])[0])[
            : encoder.num_tokens(mel.shape[1])
        ]
        for mel, count in zip(mels, counts, strict=True)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Places:
    """Where the rows of segments lie in a padded table [S, L]: flat index, and which are keys."""

    index: Tensor
    shape: tuple[int, int]
    mask: Tensor

    @classmethod
    def of(cls, lengths: list[int]) -> _Places:
        longest = max(lengths)
        kept = torch.arange(longest) < torch.tensor(lengths)[:, None]  # [S, L]
        return cls(
            index=kept.flatten().nonzero()[:, 0],
            shape=(len(lengths), longest),
            mask=kept[:, None, None],
        )


def _attended(attention: AudioAttention, hidden: Tensor, places: _Places) -> Tensor:
    """[n, hidden] -> the same shape; every segment by itself."""
    qkv = attention.qkv_proj(hidden)
    padded = qkv.new_zeros(math.prod(places.shape), qkv.shape[1]).index_copy(0, places.index, qkv)
    heads = padded.view(*places.shape, 3, attention.num_heads, attention.head_dim)
    query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)  # [S, H, L, D]
    # Plain products: for many short segments the fused kernel's gradient is several times slower.
    scores = query @ key.transpose(2, 3) * attention.head_dim**-0.5
    mixed = scores.masked_fill(~places.mask, -torch.inf).softmax(dim=3) @ value
    rows = mixed.transpose(1, 2).flatten(2).flatten(0, 1)[places.index]  # [n, hidden]
    out: Tensor = attention.out_proj(rows)
    return out
