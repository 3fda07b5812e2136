"""What made users say: whole turns, what they hum while they listen, how they interrupt.

Slots in braces are drawn from `SLOTS`. Training and held-out sentences share no pattern; the hums
and the shortest calls are few in any language and common to both.
"""

from __future__ import annotations

import functools
import json
import random
from dataclasses import dataclass, replace
from importlib import resources

SLOTS = {
    "place": ("Paris", "the kitchen", "the station", "Berlin", "my office", "the old harbour"),
    "thing": ("a train ticket", "the red bicycle", "my phone", "a birthday cake", "some flowers"),
    "person": ("my sister", "the doctor", "Peter", "our neighbour", "a friend of mine", "Maria"),
    "time": ("tomorrow", "at seven", "next week", "on Monday", "after lunch", "this evening"),
    "topic": ("the weather", "black holes", "old music", "the news", "cooking", "football"),
}
FILLERS = ("um", "uh", "er", "well", "hm", "erm", "let me see")
TRAILING = ("and", "so", "because", "but", "or", "that", "with", "for", "to", "the", "then", "if")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Sentences of one use. `turns` have slots, the others are said as they stand.

    `is_held_out`: said by voices that no judge was trained on.
    """

    is_held_out: bool
    turns: tuple[str, ...]
    backchannels: tuple[str, ...]
    interruptions: tuple[str, ...]
    side_speech: tuple[str, ...]


_HUMS = ("mm hm", "uh huh", "yeah", "right", "okay", "mm", "yes", "I see", "sure", "oh")
CALLS_OFTEN = 10  # among interruptions in the model's words
_CALLS = ("Wait.", "Stop.", "Stop, please.", "Hold on a second.")

TRAINING = Pool(
    is_held_out=False,
    turns=(
        "What is {topic} like {time}?",
        "Can you tell me something about {topic}?",
        "I would like to buy {thing} for {person}.",
        "Please remind me to call {person} {time}.",
        "How do I get from here to {place}?",
        "We are going to {place} with {person} {time}.",
        "Who invented {topic}?",
        "I think that {person} forgot {thing} in {place}.",
        "Turn on the light in {place}.",
        "Do you know whether {person} will be in {place} {time}?",
        "My favourite subject is {topic}.",
        "It has been a long day and I am tired.",
        "Could you explain to me how {topic} works?",
        "Yesterday I saw {person} in front of {place}.",
        "Set a timer for twenty minutes.",
        "Thank you very much for your help.",
        "Where did I put {thing}?",
        "Let us talk about {topic}.",
        "I have never been to {place}.",
        "That sounds good to me.",
        "No, I meant the other one.",
        "Is it too late to order {thing}?",
        "The meeting with {person} starts {time}.",
        "Tell {person} that I will be late.",
        "What is the capital of Portugal?",
        "How old is {person}?",
        "Give me three ideas for a present.",
        "If it rains {time}, we stay at home.",
        "Read the last message from {person} again.",
        "I am looking for {thing}, and it should be cheap.",
        "Are there any restaurants near {place}?",
        "What did {person} say about {thing}?",
        "Spell the word harbour for me.",
        "My name is Anna and I live close to {place}.",
        "Wake me up at half past six.",
        "Count from one to ten.",
        "How much is fifteen times four?",
        "The number is four seven two nine one.",
        "Would you rather have coffee or tea?",
        "Tell me a story about a small dog.",
        "Yes, that is right.",
        "No, thank you.",
        "Yes, please.",
        "I do not think so.",
        "In {place}, {time}.",
        "Two of them.",
        "What is this in my hand?",
        "Which colour is {thing}?",
        "And what about {person}?",
        "Book a table for four {time}.",
        "I was wondering if you could help me with {topic}.",
        "Really, you can do that?",
        "Okay, then tell me more about {topic}.",
        "Can we do that {time} instead?",
        "My daughter wants to know why the sky is blue.",
        "Turn the volume down a little.",
    ),
    backchannels=(
        *_HUMS,
        *("mhm", "aha", "ah", "hm", "okay okay", "yeah yeah", "oh wow", "oh really", "of course"),
        *("true", "good", "great", "nice", "wow", "all right", "ah yes", "oh I see", "exactly"),
    ),
    interruptions=(
        *_CALLS,
        "Wait, that is not what I meant.",
        "No no, the other one.",
        "Actually, can you tell me something else?",
        "Sorry, let me ask another question.",
        "That is enough, thank you.",
        "But what about tomorrow?",
        "Hang on, I have a question.",
        "Can you repeat that?",
        "Stop talking.",
        "Wait a moment, who said that?",
        "Excuse me, what was the name again?",
        "No, I want to go on Tuesday.",
        "Let me stop you there.",
        "What do you mean by that?",
        "Please be quiet now.",
        "I did not ask for that.",
        "Never mind, forget it.",
        "Could you speak more slowly?",
        "How much does it cost?",
        "Hold on, I do not understand.",
        "Okay, but how do I get there?",
        "Yeah, but that is too expensive.",
        "One moment, please.",
        "Thanks, I know that already.",
        "Hey, listen to me.",
        "Why is that so?",
        "Where is that?",
        "Give me a shorter answer.",
        "I meant my other brother.",
        "Tell me about the second one.",
        "Skip that part.",
    ),
    side_speech=(
        "Dinner is ready in ten minutes.",
        "Have you seen my keys anywhere?",
        "I told him that already last week.",
        "The children are coming home soon.",
        "Close the window, it is cold.",
        "And now the weather for the weekend.",
        "Could somebody open the door?",
        "We will be landing in twenty minutes.",
        "She said that she would come later.",
        "Put it over there on the table.",
        "The train on platform four is delayed.",
        "He scored twice in the second half.",
    ),
)
HELD_OUT = Pool(
    is_held_out=True,
    turns=(
        "When does the next bus leave for {place}?",
        "I want to learn more about {topic} before {time}.",
        "Play something quiet while {person} is sleeping.",
        "Why is {thing} so expensive?",
        "She told me that {person} lost {thing} {time}.",
        "Show me a picture of {place}.",
        "How many people live in {place}?",
        "I do not understand {topic} at all.",
        "Write a short message to {person} about {thing}.",
        "Should I take an umbrella {time}?",
        "Good morning, how are you?",
        "Add {thing} to my shopping list.",
        "Is there a shorter way to {place}?",
        "Translate the menu into English, please.",
        "My brother borrowed {thing} and never gave it back.",
        "Which of these would {person} like best?",
        "Cancel everything that I have planned {time}.",
        "Not today.",
    ),
    backchannels=(*_HUMS, "yep", "got it", "ah okay", "mm yeah", "oh nice", "fine"),
    interruptions=(
        *_CALLS,
        "Hm, I would rather hear about the first one.",
        "Just a second, somebody is at the door.",
        "Is that really true?",
        "Say it again, please.",
        "I think you misunderstood me.",
        "That was not my question.",
        "When does it open?",
        "Please start from the beginning.",
        "Oh, that reminds me of something.",
        "Do you have anything cheaper?",
        "Quiet, please.",
        "Let us talk about something else.",
    ),
    side_speech=(
        "Did you feed the cat this morning?",
        "The soup needs a little more salt.",
        "Our guests arrive around eight.",
        "Turn left at the next corner.",
        "He has been working there for years.",
        "I will be upstairs if you need me.",
    ),
)


@functools.cache
def of_model(*, is_held_out: bool) -> Pool:
    """The same, but turns and interruptions are what the embedded model knows the words of.

    `benchmarks/word_judges.py` writes them. The two pools share no pattern of the model's grammar
    but "Are you a {}?", 11 of the 1,000 sentences.
    """
    path = resources.files("pipeline.synthetic").joinpath("model_sentences.json")
    found = json.loads(path.read_text(encoding="utf-8"))["held_out" if is_held_out else "training"]
    return replace(
        HELD_OUT if is_held_out else TRAINING,
        turns=tuple(found["turns"]),
        interruptions=(*_CALLS * CALLS_OFTEN, *found["interruptions"]),
    )


def draw(chance: random.Random, pool: Pool = TRAINING) -> str:
    """A whole turn."""
    pattern = chance.choice(pool.turns)
    return pattern.format(**{name: chance.choice(values) for name, values in SLOTS.items()})
