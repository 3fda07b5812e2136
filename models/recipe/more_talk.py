"""More ways to say `phrases.SMALL_TALK`, in training alone: the exam asks what is there."""

from __future__ import annotations

from collections.abc import Mapping

MORE_TALK: Mapping[str, tuple[str, ...]] = {
    "greet": (
        "(hello|hi|hey) [my] (good|old|new|small|kind) friend",
        "(hello there|hi there|hey|hello and good morning) my friend",
        "(hello|hi|hey) [my|good] (friends|people|model|robot|machine)",
        "[hello|hi|hey|and|a very] good (morning|evening|afternoon) [to you|my friend|there]",
        "(hello|hi|hey) (hello|hi|hey|today)",
    ),
    "how": (
        "[and|hey|good morning] how are you [now|my friend|doing now|doing today]",
        "[hello|hi|hey|now|and] how (is it going|do you feel|is it) (now|here|with you|my friend)",
        "(hello|hi|hey|and|now) how (is it going|do you feel)",
        "are you (well|fine|doing well) [today|now]",
        "how (is|was) your (day|night|week|morning)",
    ),
    "fine": (
        "(today|now|oh|hello|hey|thank you|thanks) i am (fine|good|well|great)",
        "i am (very|really) (fine|good|well) [thank you|thanks|today]",
        "i am (fine|good|well|great) (now|today|too|my friend|and you|very much)",
        "[oh|today|now] i (feel|am doing) (fine|good|well|great) [today|now|thank you|thanks]",
        "(oh|very|really|i am) (fine|well) (thanks|today)",
    ),
    "abilities": (
        "(hello|hi|hey|now|and) what can you do [for me|now|here]",
        "what (can you do|do you do) (now|here|today|with me|for people)",
        "[please] say what you can do",
        "how can you help [people|now]",
    ),
    "who": (
        "(hello|hi|hey|now|and) (who|what) are you",
        "(who|what) are you (really|now|my friend)",
        "[please] (tell me|say) (who you are|what you are|your name)",
        "[hello|and] what is your name [please|now]",
    ),
    "thanks": (
        "(oh|great|good|well|hey|hello) (thank you|thanks) [very much|a lot]",
        "(thank you|thanks) (my friend|for that|for your help|for it|today|now)",
        "that (is|was) (kind|nice|good) of you",
        "you are [very|really] kind",
    ),
    "bye": (
        "(goodbye|bye|bye bye) (now|today|people|friends|my good friend|and good night)",
        "(thank you|thanks|well|now|good night) [and] (goodbye|bye|bye bye)",
        "good night (my friend|to you|now|and goodbye)",
        "[well|now|bye] see you (later|tomorrow|soon|today) [my friend]",
        "i (will|want to) go now",
    ),
    "hear": (
        "(hello|hi|hey|now|and) are you (there|here|listening) [now|my friend]",
        "(hello|hi|hey|now|and) (can|do) you hear me [now|well]",
        "are you (there|here|listening) (my friend|please|today|to me)",
        "are you (here|with me)",
        "do you (hear|listening) [me] (now|there|here)",
    ),
    "meet": (
        "(hello|hi|hey|oh) (nice|good|great|pleased|glad) to meet you",
        "(nice|good|great|pleased|glad) to meet you (too|today|my friend|here)",
    ),
    "help": (
        "(hello|hi|hey|oh|now) (help me|can you help me|i need your help|i need help)",
        "(help me|i need help) (now|today|here|my friend|with something)",
        "can you help (me now|me today|me with something)",
    ),
    "joke": (
        "(hello|hi|hey|now) tell me a [good|new|short] joke",
        "i (want|like|need) a [good|new] joke [please|now]",
        "[please] (say|do) (a joke|something to make me laugh)",
        "do you (have|remember) a [good] joke",
    ),
    "alive": (
        "(hello|hey|now|and) are you (a (person|human|machine|robot|model)|real)",
        "are you (really|not) a (person|human|machine|robot|model)",
        "are you (human|a real person|really real)",
    ),
    "fun": (
        "(oh|hello|hey|now|today) i (am|feel) (bored|tired|sad)",
        "i (am|feel) (very|really) (bored|tired|sad) [today|now]",
    ),
    "good": (
        "(oh|great|hey) (well done|very good|that is right|you are right)",
        "(well done|very good|you are right) (my friend|now|today)",
        "that (is|was) (good|great|very good|very well done)",
        "you are [very|really] (good|great)",
    ),
    "call": (
        "(no|hey|but|please|sorry|okay) (stop|wait|hold on|listen|one moment)",
        "(stop|wait) (stop|wait) [please]",
        "(hey|please|now) listen [to me]",
        "(sorry|excuse me|wait|no|okay) [but] i have a [small|good] question",
        "(quiet|be quiet|stop talking) [please|now|my friend]",
        "(wait|no|sorry|but) that is not (it|right|what i want)",
    ),
    "yes": (
        "(oh|well|and|hello) (yes|yeah|okay|sure|wow)",
        "(yes|yeah|okay|all right) (that is (right|good|true)|i know|thank you|very good|now)",
        "oh (really|i see|wow|okay)",
    ),
    "no": (
        "(oh|well|but|and) (no|not really|never)",
        "no (i am not|that is not true|never|my friend|i do not think so|not today)",
    ),
}
