"""Training of the thinker with its encoders: from what is heard and seen to the reply's text.

Each lesson is one sequence through the engine's own parts (`models.encoding`, `models.pieces`,
`models.prefill`), so what is learnt is what is served. The loss is that of the reply's tokens;
beside it a head that is thrown away later reads the spoken words off the audio tokens (CTC),
because hearing is learnt much faster so. Makes no lessons (`models.recipe.lessons`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.chat import ChatFormat
from models.config import OmniConfig
from models.encoding import MessageEncoder, WindowPolicy
from models.entries import MessageEntry
from models.layout import Layout
from models.pieces import Piece, TokenLog
from models.prefill import deepstack_of, embed_batch
from models.qwen3_omni.images import PixelLimits
from models.qwen3_omni.thinker import Thinker
from models.recipe.batches import build_constants, let_norms_learn
from models.recipe.dialogues import TOOLS, Answered, Returned
from models.recipe.lessons import Heard, Lesson
from models.recipe.run import Pace, Run
from models.recipe.tokenizer import Vocabulary

PACE = Pace(peak_rate=1e-3, warmup_steps=200, rate_halves_after=8000, averaging=0.998)
CTC_WEIGHT = 0.3
CAMERA_LIMITS = PixelLimits(min_pixels=3136, max_pixels=49152)  # 256 x 192: 48 tokens a grid


class TrainedThinker(nn.Module):
    """The thinker and the head that is thrown away."""

    def __init__(self, config: OmniConfig) -> None:
        super().__init__()
        capture_layer = None if config.talker is None else config.talker.accept_hidden_layer
        self.thinker = Thinker(config.thinker, capture_layer=capture_layer)
        decoder = config.thinker.decoder
        self.words = nn.Linear(config.thinker.audio.output_size, decoder.vocab_size + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """A model with what turns lessons into its input."""

    model: TrainedThinker
    encoder: MessageEncoder
    chat: ChatFormat
    vocabulary: Vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Losses of one lesson; `num_right` of `num_replies` would be said exactly so, greedily."""

    text: Tensor
    words: Tensor | None
    num_right: int
    num_replies: int


class PassingCache:
    """A cache of nothing: one pass over a whole sequence, with gradients."""

    length = 0
    num_visible = 0

    def reserve(self, num_tokens: int) -> None:
        """Any length goes."""

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The new positions are all there are."""
        return keys.transpose(0, 1), values.transpose(0, 1)

    def advance(self, num_tokens: int) -> None:
        """Nothing follows."""


def new_learner(config: OmniConfig, chat: ChatFormat, vocabulary: Vocabulary, seed: int) -> Learner:
    """An untrained model."""
    torch.manual_seed(seed)
    model = TrainedThinker(config)
    for name, parameter in model.named_parameters():
        initialise(name, parameter)
    build_constants(model)
    encoder = MessageEncoder(
        thinker=model.thinker,
        config=config,
        chat=chat,
        image_limits=CAMERA_LIMITS,
        frame_limits=CAMERA_LIMITS,
        windows=WindowPolicy(),
    )
    return Learner(model=model, encoder=encoder, chat=chat, vocabulary=vocabulary)


def study(learner: Learner, lesson: Lesson) -> Outcome:
    """Run one lesson, with gradients where they are on."""
    let_norms_learn(learner.model)
    sheet = Sheet(learner)
    sheet.write(lesson)
    thinker = learner.model.thinker
    batch = sheet.log.batch(0, len(sheet.log), thinker.lm_head.weight.device)
    hidden = thinker.model(
        embed_batch(thinker, batch), batch.positions, PassingCache(), deepstack=deepstack_of(batch)
    ).hidden_states
    losses, num_right = [], 0
    for start, ids in sheet.replies:
        logits = thinker.logits(hidden[start - 1 : start - 1 + len(ids)])
        wanted = torch.tensor(ids)
        losses.append(F.cross_entropy(logits, wanted, reduction="sum"))
        num_right += bool((logits.argmax(dim=1) == wanted).all())
    num_tokens = sum(len(ids) for _, ids in sheet.replies)
    return Outcome(
        text=torch.stack(losses).sum() / num_tokens,
        words=_words_loss(learner, sheet.heard),
        num_right=num_right,
        num_replies=len(sheet.replies),
    )


def take_step(run: Run, learner: Learner, lessons: list[Lesson]) -> dict[str, float]:
    """One step on some lessons, one after the other."""
    run.begin_step()
    seen: dict[str, float] = {"text": 0.0, "words": 0.0}
    num_right = num_replies = 0
    for one in lessons:
        outcome = study(learner, one)
        loss = outcome.text
        if outcome.words is not None:
            loss = loss + CTC_WEIGHT * outcome.words
            seen["words"] += outcome.words.item() / len(lessons)
        (loss / len(lessons)).backward()  # type: ignore[no-untyped-call]
        seen["text"] += outcome.text.item() / len(lessons)
        num_right += outcome.num_right
        num_replies += outcome.num_replies
    run.end_step()
    return {**seen, "right": num_right / num_replies}


class Sheet:
    """One lesson laid out as the engine's log.

    Attributes:
        talker_next: position of what follows in the talker's context.
        replies: where each reply's tokens begin, and the tokens, the end token last.
        heard: audio tokens of each spoken message, and the ids of its words.
    """

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self.log = TokenLog()
        self.replies: list[tuple[int, list[int]]] = []
        self.heard: list[tuple[Tensor, list[int]]] = []
        self._next = self.talker_next = 0.0

    def write(self, lesson: Lesson) -> None:
        """Place all turns."""
        chat = self._learner.chat
        system = chat.system_ids("", TOOLS if lesson.has_tools else ())
        self._text(system, in_talker=False)
        for turn in lesson.turns:
            match turn:
                case Heard():
                    self._hear(turn)
                case Returned():
                    self._text(self._returned(turn), in_talker=True)
                case Answered():
                    self._answer(turn)

    def _hear(self, heard: Heard) -> None:
        entry = MessageEntry(layout=Layout(in_talker=True), message=heard.message)
        self._learner.encoder.encode_message(entry)
        self._place(entry.pieces, entry.layout)
        sound = [p.embeds for p in entry.pieces if p.kind == "audio" and p.embeds is not None]
        if heard.transcript and sound:
            words = self._learner.chat.encode(" " + heard.transcript)
            self.heard.append((torch.cat(sound), words))

    def _answer(self, answered: Answered) -> None:
        chat = self._learner.chat
        header = chat.assistant_header_ids()
        closing = chat.close_ids()
        ids = self._trusted(answered.text) if answered.is_call else chat.encode(answered.text)
        self.replies.append((len(self.log) + len(header), [*ids, closing[0]]))
        self._text([*header, *ids, *closing], in_talker=False)

    def _returned(self, returned: Returned) -> list[int]:
        chat = self._learner.chat
        text = f"<tool_response>\n{returned.text}\n</tool_response>"
        return [*chat.open_ids("user"), *self._trusted(text), *chat.close_ids()]

    def _trusted(self, text: str) -> list[int]:
        """Ids of `<tag>...</tag>`, both tags special tokens."""
        opening = text[: text.index(">") + 1]
        closing = text[text.rindex("<") :]
        special = self._learner.vocabulary.special_id
        inner = self._learner.chat.encode(text[len(opening) : -len(closing)])
        return [special(opening), *inner, special(closing)]

    def _text(self, ids: list[int], *, in_talker: bool) -> None:
        layout = Layout(in_talker=in_talker)
        self._place([layout.text(ids)], layout)

    def _place(self, pieces: list[Piece], layout: Layout) -> None:
        for piece in pieces:
            self.log.append(piece, base=self._next, talker_base=self.talker_next)
        self._next += layout.next
        self.talker_next += layout.talker_next


def _words_loss(learner: Learner, heard: list[tuple[Tensor, list[int]]]) -> Tensor | None:
    """CTC; the blank is the id behind the vocabulary. Sentences too long for their sound are
    left out.
    """
    fitting = [(sound, ids) for sound, ids in heard if len(sound) > 2 * len(ids)]
    if not fitting:
        return None
    blank = learner.model.words.out_features - 1
    losses = []
    for sound, ids in fitting:
        scores = learner.model.words(sound).log_softmax(dim=1)[:, None]  # [T, 1, vocab + 1]
        lengths = (torch.tensor([len(sound)]), torch.tensor([len(ids)]))
        losses.append(F.ctc_loss(scores, torch.tensor([ids]), *lengths, blank=blank))
    return torch.stack(losses).mean()


@torch.no_grad()
def initialise(name: str, parameter: Tensor) -> None:
    """First values of a transformer's weight, by its name and shape."""
    if parameter.dim() == 1:
        is_norm = "norm" in name or "ln_" in name
        nn.init.constant_(parameter, 1.0 if is_norm and name.endswith("weight") else 0.0)
        return
    fan_in = parameter.shape[-1] if parameter.dim() == 3 else parameter[0].numel()
    is_table = any(part in name for part in ("embed_tokens", "pos_embed", "codec_embedding"))
    is_branch = name.endswith(("o_proj.weight", "down_proj", "down_proj.weight", "fc2.weight"))
    std = 0.5 if is_table else (0.4 if is_branch else 1.0) * fan_in**-0.5
    nn.init.normal_(parameter, std=std)
