"""What a reply is made with: its samplers, its limits and its voice.

Made from the checkpoint's generation settings and the reply's own options; makes nothing of the
reply itself.
"""

from __future__ import annotations

import secrets
from dataclasses import replace

import torch

from models.chat import ChatFormat
from models.content import ReplyOptions
from models.context import Context
from models.generation import GenerationSettings
from models.qwen3_omni.model import Qwen3Omni
from models.qwen3_omni.talker import SpecialText
from models.sampling import Sampler, SamplingSettings
from models.speaking import Voice
from models.stepping.stepped_voice import SteppedVoices


class ReplyParts:
    """See the module's docstring. `stepped`: makes the voices, where speech goes by steps."""

    def __init__(
        self,
        model: Qwen3Omni,
        chat: ChatFormat,
        generation: GenerationSettings,
        stepped: SteppedVoices | None = None,
    ) -> None:
        self._model = model
        self._chat = chat
        self._generation = generation
        self._special: SpecialText | None = None
        self._stepped = stepped

    def most_tokens(self, options: ReplyOptions, script_ids: list[int] | None) -> int:
        """How long a reply's text may become; a script is never cut."""
        if script_ids is not None:
            return len(script_ids) + 1
        limit = self._generation.thinker.max_new_tokens
        return limit if options.max_tokens is None else options.max_tokens

    def text_sampler(self, options: ReplyOptions) -> Sampler:
        """Draws the text.

        Raises:
            RequestError: an option is out of its range.
        """
        thinker = self._generation.thinker
        settings = thinker.sampling
        if options.temperature is not None:
            settings = replace(settings, do_sample=True, temperature=options.temperature)
        if options.top_p is not None:
            settings = replace(settings, do_sample=True, top_p=options.top_p)
        device = self._model.thinker.device
        return _sampler(settings, options, device, end_ids=tuple(thinker.eos_ids))

    def voice(self, context: Context, options: ReplyOptions) -> Voice:
        """The voice of a reply, behind the user's messages in the talker's cache."""
        cache, talker = context.talker_cache, self._model.talker
        assert cache is not None
        assert talker is not None
        assert context.voice is not None
        settings = self._generation
        make = Voice if self._stepped is None else self._stepped.voice
        return make(
            model=self._model,
            cache=cache,
            position=context.talker_next,
            speaker=context.voice,
            special=self._special_text(),
            code_sampler=_sampler(settings.talker.sampling, options, talker.device),
            residual_sampler=_sampler(settings.predictor, options, talker.device),
            max_codes=settings.talker.max_new_tokens,
        )

    def _special_text(self) -> SpecialText:
        """The projected text around every reply, made at the first one."""
        thinker, talker = self._model.thinker, self._model.talker
        assert talker is not None
        if self._special is None:
            self._special = talker.special_text(
                lambda ids: thinker.embed(ids.to(thinker.device)),
                self._chat.assistant_header_ids(),
            )
        return self._special


def _sampler(
    settings: SamplingSettings,
    options: ReplyOptions,
    device: torch.device,
    *,
    end_ids: tuple[int, ...] = (),
) -> Sampler:
    generator = torch.Generator(device)
    seed = secrets.randbits(62) if options.seed is None else options.seed
    generator.manual_seed(seed)
    if options.greedy:
        settings = replace(settings, do_sample=False)
    return Sampler(settings, generator, end_ids=end_ids)
