"""What people ask of assistants and this model knows nothing of: of the exam, in no lesson."""

from __future__ import annotations

REQUESTS = (
    *("why is the sky blue", "flip a coin", "how do you spell rhythm", "find my phone"),
    *("translate good morning into german", "what is the score of the game", "define gravity"),
    *("who painted the mona lisa", "do i need an umbrella", "read my emails", "roll the dice"),
    *("convert fifty dollars to euros", "tell me a bedtime story", "check the tyre pressure"),
    *("how do i get a stain out of my shirt", "what year did the titanic sink", "take a selfie"),
    *("suggest a film for tonight", "how long is the drive to chicago", "feed the hamster"),
    *("did manchester win yesterday", "my back hurts", "help me with my homework"),
    *("how do vaccines work", "what does serendipity mean", "avoid the motorway"),
    *("any messages for me", "record a voice memo", "when does the bank close"),
    *("invite claire to dinner", "i want to reserve a table", "the printer is out of paper"),
    *("how many calories are in a banana", "where did i leave my keys", "sing happy birthday"),
    *("is this mushroom poisonous", "what is the speed limit here", "vacuum the living room"),
    *("how much does a new roof cost", "pair my headphones", "is it safe to swim there"),
    *("what are the symptoms of measles", "turn down the heating upstairs", "pay my credit card"),
    *("who is singing this", "give me directions to the beach", "what happened in parliament"),
    *("how old is the universe", "are dolphins intelligent", "restart the router"),
    *("can i eat cheese while pregnant", "i lost my passport", "show me funny videos"),
    *("name three rivers in africa", "when is the next full moon", "hang up the phone"),
    *("tell grandpa that we will be late", "what should i wear to the wedding"),
    *("is there life on mars", "how do i reset my password", "the dishwasher is leaking"),
    *("what is the square root of nine hundred", "which bus goes to the museum"),
)
