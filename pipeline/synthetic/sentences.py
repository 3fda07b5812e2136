"""What made users say: whole turns, what they hum while they listen, how they interrupt.

Slots in braces are drawn from `SLOTS`. Training and held-out turns share no pattern.
"""

from __future__ import annotations

import random

SLOTS = {
    "place": ("Paris", "the kitchen", "the station", "Berlin", "my office", "the old harbour"),
    "thing": ("a train ticket", "the red bicycle", "my phone", "a birthday cake", "some flowers"),
    "person": ("my sister", "the doctor", "Peter", "our neighbour", "a friend of mine", "Maria"),
    "time": ("tomorrow", "at seven", "next week", "on Monday", "after lunch", "this evening"),
    "topic": ("the weather", "black holes", "old music", "the news", "cooking", "football"),
}
TRAINING = (
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
)
HELD_OUT = (
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
)
FILLERS = ("um", "uh", "er", "well")
BACKCHANNELS = ("mm hm", "uh huh", "yeah", "right", "okay", "mm", "yes", "I see", "sure", "oh")
INTERRUPTIONS = (
    "Wait, that is not what I meant.",
    "Stop, please.",
    "No no, the other one.",
    "Hold on a second.",
    "Actually, can you tell me something else?",
    "Sorry, let me ask another question.",
    "That is enough, thank you.",
    "But what about tomorrow?",
    "Wait.",
    "Stop.",
    "Hang on, I have a question.",
    "Can you repeat that?",
)
SIDE_SPEECH = (
    "Dinner is ready in ten minutes.",
    "Have you seen my keys anywhere?",
    "I told him that already last week.",
    "The children are coming home soon.",
    "Close the window, it is cold.",
)


def draw(chance: random.Random, *, is_held_out: bool = False) -> str:
    """A whole turn."""
    pattern = chance.choice(HELD_OUT if is_held_out else TRAINING)
    return pattern.format(**{name: chance.choice(values) for name, values in SLOTS.items()})
