"""What encoders will have made of sounds and pictures once they have learnt: rows of known words.

The audio encoder learns to write each word's embedding where it is spoken and the placeholder's
between words (`models.recipe.hearing`); the vision encoder learns to write colour and name of a
thing where its middle is (`models.recipe.sight`). So the decoder can learn from such rows alone,
with mistakes like theirs: by a voice that is new to it the ear takes words for others that sound
alike, or writes something between the two.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor

from models.recipe import phrases
from models.recipe.heard_words import SPAN, HeardWords
from models.recipe.learner import Learner
from models.recipe.lessons import View
from models.recipe.phonemes import words_alike
from models.recipe.pictures import HEIGHT, WIDTH, Thing, places
from models.recipe.sheets import Grid, Sheet, Sound

HEARD_SHARE = 0.5  # of sounds, where it is known what the ear writes
STRANGE_SHARE = 0.6  # of sounds that are not the model's: whole, as they were once heard
NEW_VOICE_SHARE = 0.35  # of sounds: by voices that are hard to understand
MISHEARD_SHARES = (0.015, 0.08)  # of words; of such voices
LEFT_OUT_SHARES = (0.01, 0.035)
ADDED_SHARES = (0.003, 0.02)
UNSURE_SHARES = (0.05, 0.2)  # something between a word and one that sounds like it
FILLING = 140.0  # pixels from a thing's middle to its side, of a picture of 320 x 240
MIDDLE = 0.08  # of a picture's width, to both sides of the middle
GRAIN = 0.25  # spread of what is added to every value; embeddings have 0.5


def imagined_rows(
    learner: Learner, sheet: Sheet, chance: random.Random, heard: HeardWords | None = None
) -> tuple[Tensor, Tensor]:
    """Rows of a sheet's sounds [a, hidden] and of its grids [v, hidden].

    heard: what the ear writes of words, for a part of the sounds.
    """
    none = learner.table.new_zeros(0, learner.table.shape[1])
    sounds = [
        _sound_rows(learner, sound, chance)
        if heard is None
        else _rows_as_heard(learner, sound, chance, heard)
        for sound in sheet.sounds
    ]
    grids = [_sight_rows(learner, grid, chance) for grid in sheet.grids]
    generator = torch.Generator().manual_seed(chance.getrandbits(31))
    return _grained(torch.cat([none, *sounds]), generator), _grained(
        torch.cat([none, *grids]), generator
    )


def grid_rows(learner: Learner, grid: Grid) -> Tensor:
    """[rows * columns, hidden]: the placeholder's embedding, but where a thing's middle is."""
    blank = learner.table[learner.config.thinker.video_id]
    made = blank.repeat(grid.num_tokens, 1)
    for cell, thing in marked_cells(grid.view, grid.size):
        colour, name = thing_ids(learner, thing)
        made[cell] = learner.table[colour] + learner.table[name]
        side = side_of(cell, grid.size)
        if side is not None:
            made[cell] += learner.table[side_ids(learner)[side]]
    return made


def side_of(cell: int, size: tuple[int, int]) -> int | None:
    """0 for a token on the left, 1 on the right, None in the middle: of what is looked up by its
    name, the place is not to be had from where it was found.
    """
    columns = size[1] // 2
    middle = (cell % columns + 0.5) / columns - 0.5
    if abs(middle) < MIDDLE:
        return None
    return int(middle > 0)


def side_ids(learner: Learner) -> tuple[int, int]:
    """Ids of the words for both sides."""
    (left,), (right,) = (learner.chat.encode(f" {side}") for side in phrases.SIDES)
    return left, right


def marked_cells(view: View, size: tuple[int, int]) -> list[tuple[int, Thing]]:
    """The token of each thing's middle; `size` is the grid's, in patches."""
    rows, columns = size[0] // 2, size[1] // 2
    found = []
    for thing, (x, y, _) in zip(view.scene.things, places(view.scene, view.camera), strict=True):
        row = min(rows - 1, max(0, int(y * rows / HEIGHT)))
        column = min(columns - 1, max(0, int(x * columns / WIDTH)))
        found.append((row * columns + column, thing))
    return found


def thing_ids(learner: Learner, thing: Thing) -> tuple[int, int]:
    """Ids of a thing's colour and name; a digit's name is its number."""
    name = phrases.NUMBERS[int(thing.shape)] if thing.shape.isdigit() else thing.shape
    (colour,) = learner.chat.encode(f" {thing.colour}")
    (word,) = learner.chat.encode(f" {name}")
    return colour, word


def _sight_rows(learner: Learner, grid: Grid, chance: random.Random) -> Tensor:
    """What fills the picture has no middle that can be seen: it is written wherever it is."""
    made = grid_rows(learner, grid)
    scene, camera = grid.view.scene, grid.view.camera
    if len(scene.things) == 1 and places(scene, camera)[0][2] > FILLING:
        colour, name = thing_ids(learner, scene.things[0])
        share = chance.uniform(0.5, 1.2)
        is_written = torch.tensor([chance.random() < share for _ in made])
        made[is_written] = learner.table[colour] + learner.table[name]
    return made


def _sound_rows(learner: Learner, sound: Sound, chance: random.Random) -> Tensor:
    blank = learner.config.thinker.audio_id
    row_ids = [blank] * sound.num_tokens
    is_new = chance.random() < NEW_VOICE_SHARE
    words = _misheard(sound.words, learner, is_new, chance)
    edges = sorted(chance.sample(range(sound.num_tokens), min(len(words), sound.num_tokens)))
    for place, word in zip(edges, words, strict=False):
        row_ids[place] = word
        if place + 1 < sound.num_tokens and row_ids[place + 1] == blank and chance.random() < 0.2:
            row_ids[place + 1] = word
    made = learner.table[torch.tensor(row_ids, dtype=torch.long)]
    alike = words_alike(learner)
    for place, word in enumerate(row_ids):
        others = alike.get(word, ())
        if others and chance.random() < UNSURE_SHARES[is_new]:
            made[place].lerp_(learner.table[chance.choice(others)], chance.uniform(0.1, 0.55))
    doubt = torch.tensor([chance.uniform(0.0, 0.35) for _ in row_ids])[:, None]
    return torch.lerp(made, learner.table[blank].expand_as(made), doubt)


def _rows_as_heard(
    learner: Learner, sound: Sound, chance: random.Random, heard: HeardWords
) -> Tensor:
    is_strange = learner.unknown_id in sound.words
    if is_strange and chance.random() < STRANGE_SHARE:
        clip = heard.draw_strange(chance)
        if clip is not None:
            return _fitted(learner, clip, sound.num_tokens, chance)
    if chance.random() < HEARD_SHARE:
        return _heard_rows(learner, sound, chance, heard)
    return _sound_rows(learner, sound, chance)


def _fitted(learner: Learner, clip: Tensor, num_tokens: int, chance: random.Random) -> Tensor:
    """So many rows of a clip, or all of it among blanks."""
    if len(clip) >= num_tokens:
        return clip[:num_tokens]
    made = learner.table[learner.config.thinker.audio_id].repeat(num_tokens, 1)
    first = chance.randint(0, num_tokens - len(clip))
    made[first : first + len(clip)] = clip
    return made


def _heard_rows(learner: Learner, sound: Sound, chance: random.Random, heard: HeardWords) -> Tensor:
    """Each word as it was once heard; what was cut out around one does not cover another."""
    made = learner.table[learner.config.thinker.audio_id].repeat(sound.num_tokens, 1)
    num_words = min(len(sound.words), sound.num_tokens)
    places = sorted(chance.sample(range(sound.num_tokens), num_words))
    for place, word in zip(places, sound.words, strict=False):
        rows = heard.draw(word, chance)
        if rows is None:
            made[place] = learner.table[word]
            continue
        for token, row in enumerate(rows, place - SPAN // 2):
            if token == place or (0 <= token < sound.num_tokens and token not in places):
                made[token] = row
    return made


def _misheard(
    words: tuple[int, ...], learner: Learner, is_new: bool, chance: random.Random
) -> list[int]:
    made = []
    unknown, alike = learner.unknown_id, words_alike(learner)
    for word in words:
        draw = chance.random()
        if chance.random() < ADDED_SHARES[is_new]:
            made.append(chance.choice(words))
        if word == unknown and draw < 0.35:  # foreign words sound like some of ours
            made.append(chance.randrange(256, learner.vocabulary.size - 60))
        elif draw < MISHEARD_SHARES[is_new]:
            others = alike.get(word, ())
            made.append(chance.choice((unknown, *(others * 2 or words))))
        elif draw > LEFT_OUT_SHARES[is_new] + MISHEARD_SHARES[is_new]:
            made.append(word)
    if not words and chance.random() < 0.3:  # noise may sound like something
        made.append(unknown)
    return made


def _grained(rows: Tensor, generator: torch.Generator) -> Tensor:
    return rows + GRAIN * torch.randn(rows.shape, generator=generator)
