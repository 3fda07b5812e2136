"""What is said to the embedded model, and what it says: the data of `models.recipe.dialogues`.

Patterns are those of `models.recipe.grammar`. Prompts are lower case without punctuation, as they
are spoken; replies are written as a person would write them. The vocabulary of the checkpoint
follows from here.
"""

from __future__ import annotations

from collections.abc import Mapping

NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"),
    *("eighteen", "nineteen", "twenty"),
)
TENS = ("twenty", "thirty", "forty", "fifty")
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "black", "white")
SHAPES = ("circle", "square", "triangle", "star")
SIDES = ("left", "right")
NAMES = (
    *("Anna", "Peter", "Maria", "David", "Sarah", "Thomas", "Julia", "Michael", "Laura", "Daniel"),
    *("Emma", "Robert", "Sophie", "Martin", "Alice", "Simon", "Helen", "George", "Nora", "Oscar"),
)

# Names that are typed and not known: the voice can not say them.
OTHER_NAMES = (
    *("Bob", "Paul", "Linda", "Kevin", "Yuki", "Chen", "Omar", "Ivan", "Lena", "Max", "Zoe"),
    *("Hannah", "Lucas", "Amir", "Priya", "Carlos", "Elena", "Frank", "Grace", "Henry", "Isabel"),
    *("Jack", "Karin", "Liam", "Mei", "Noah", "Olga", "Pavel", "Quinn", "Rosa", "Stefan", "Tom"),
    *("Uma", "Victor", "Wendy", "Xavier", "Yasmin", "Ben", "Chloe", "Diego", "Eric", "Fatima"),
    *("Gina", "Hugo", "Ingrid", "James", "Kate", "Leo", "Mia", "Nick", "Otto", "Ruth", "Sam"),
    *("Tina", "Vera", "William", "Alex", "Andrea", "Patrick", "Dora", "Simone", "Martha", "Nina"),
)

# What the system part may say; none of it changes an answer.
INSTRUCTIONS = (
    "You are a friendly voice assistant. Answer briefly, in the language that you are spoken to.",
    "You are a helpful assistant.",
    "You are Omni, a small model that can hear, see and talk. Be kind and brief.",
    "Answer in one short sentence.",
    "Talk like a good friend. Use the tools when you are asked to do something.",
)

# Prompts that have one answer, whatever was said before.
SMALL_TALK: Mapping[str, tuple[tuple[str, ...], str]] = {
    "greet": (
        ("(hello|hi|hey) [there]", "good (morning|evening|afternoon)", "(hello|hi) my friend"),
        "Hello! How can I help you?",
    ),
    "how": (
        ("[hello|hi] how are you [today|doing]", "how (is it going|do you feel) [today]"),
        "I am fine, thank you. How are you?",
    ),
    "fine": (
        ("i am (fine|good|well|great) [thank you|thanks]", "(fine|very well) thank you"),
        "I am glad to hear that.",
    ),
    "abilities": (
        ("what can you do [for me]", "[please] tell me what you can do", "how can you help me"),
        "I can talk, count, remember things, look at pictures and set a timer.",
    ),
    "who": (
        ("who are you", "what are you", "(what is|tell me) your name", "do you have a name"),
        "I am a small model. My name is Omni.",
    ),
    "thanks": (
        ("(thank you|thanks) [very much|a lot]", "[thank you] that (is|was) (very|really) kind"),
        "You are welcome.",
    ),
    "bye": (
        (
            "(goodbye|bye|bye bye) [for now|my friend]",
            "see you [later|tomorrow|soon]",
            "good night",
        ),
        "Goodbye! See you soon.",
    ),
    "hear": (
        ("can you hear me [now|well]", "are you (there|listening) [now]", "do you hear me [well]"),
        "Yes, I can hear you well.",
    ),
    "meet": (
        ("[it is] (nice|good|great) to meet you", "(pleased|glad) to meet you"),
        "Nice to meet you too.",
    ),
    "help": (
        ("[please] help me [please]", "can you help me [please]", "i need [your] help [now]"),
        "Of course. What can I do for you?",
    ),
    "joke": (
        ("[please] tell me a joke [now]", "do you know a [good] joke", "make me laugh"),
        "Why is six afraid of seven? Because seven eight nine!",
    ),
    "alive": (
        ("are you a (person|human|machine|robot|model)", "are you real"),
        "I am a machine, but I like to talk.",
    ),
    "fun": (
        ("i am (bored|tired|sad) [today|now]", "i feel (bored|tired|sad) [today]"),
        "I am sorry to hear that. Shall I tell you a joke?",
    ),
    "good": (
        ("(well done|very good|that is right|you are right)", "(good|great) (job|work)"),
        "Thank you, I am doing my best.",
    ),
    "call": (
        (
            "stop [please|now|talking|it]",
            "wait [a moment|please|a second]",
            "hold on [please|a moment|a second]",
            "(one moment|excuse me|be quiet) [please|now]",
            "[but] i have a question",
        ),
        "Of course. What can I do for you?",
    ),
    "yes": (
        (
            "yes [yes|please|sure|i see|of course|it is]",
            "(yeah|okay|sure|exactly|wow) [yeah|okay|sure|great|good|i see]",
            "(i see|of course|all right|that is true)",
        ),
        "I am glad to hear that.",
    ),
    "no": (
        ("no [no|not now|not really|i do not|it is not]", "(not really|never|i do not think so)"),
        "I am sorry to hear that. Shall I tell you a joke?",
    ),
}

# Things that are told and asked for later: what tells, the reply, what asks, the answer, and the
# answer where nothing was told.
MEMORY: Mapping[str, tuple[tuple[str, ...], str, tuple[str, ...], str, str]] = {
    "name": (
        ("[hello|hi] my name is {}", "[hello|hi] i am {}", "(you can|please) call me {}"),
        "Hello {}, nice to meet you.",
        (
            "what is my name",
            "do you (know|remember) my name",
            "[please] tell me my name",
            "who am i",
        ),
        "Your name is {}.",
        "You did not tell me your name yet.",
    ),
    "colour": (
        (
            "my (favourite|best) colour is {}",
            "i like {} (best|most)",
            "[i think] i love [the colour] {}",
        ),
        "I will remember that you like {}.",
        (
            "what is my (favourite|best) colour",
            "(what|which) colour do i like [best|most]",
            "do you (know|remember) my [favourite] colour",
        ),
        "Your favourite colour is {}.",
        "You did not tell me your favourite colour yet.",
    ),
    "number": (
        (
            "[please] remember the number {}",
            "my [lucky|favourite] number is {}",
            "the number is {}",
        ),
        "I will remember the number {}.",
        (
            "(what|which) number did i (say|tell you)",
            "what (is|was) (my|the) [lucky|favourite] number",
            "do you (know|remember) (my|the) number",
        ),
        "The number is {}.",
        "You did not tell me a number yet.",
    ),
}

COUNT = ("[please|can you] count [up] to {} [please]", "[please] count from one to {}")
SUM = (
    "(what is|how much is|tell me) {a} (plus|and) {b}",
    "[please] add {a} and {b}",
    "{a} plus {b}",
)
DIFFERENCE = (
    "(what is|how much is|tell me) {a} minus {b}",
    "[please] take {b} from {a}",
    "{a} minus {b}",
)
BEYOND_SUM = "(what is|how much is|tell me|) {a} (times|divided by) {b}"
REPEAT = ("[please] repeat [after me] {}", "[please|now] say {}", "[can you] say after me {}")

# What is repeated: every sentence of these, a large part of the vocabulary.
REPEATED = (
    "(the|a|my|your) (red|green|blue|yellow|black|white|small|big|old|new) "
    "(house|car|cat|dog|ball|book|cup|tree|door|table)",
    "i (like|love|need|want) (music|coffee|tea|water|bread|apples|the sea|the sun|the rain)",
    "(today|tomorrow|now) (is|was) (a good|a bad|a long|my best) (day|night|week)",
    "(good|hello|nice|thank you) (friends|people|mother|father|children|teacher)",
    "the (sun|moon|rain|snow|wind) is (cold|warm|bright|strong|white)",
    "(she|he|it) (likes|has|sees|wants) (a|the|my) (dog|cat|book|cup|garden|window)",
    "(we|they|you) (walk|run|go|drive) to the (park|school|city|river|shop|station)",
)

SEE_COLOUR = (
    "(what|which) (colour|color) (is|has) (this|that|it)",
    "(what|which) colour do you see",
    "[please] tell me the colour [of this|of that]",
    "what is the colour of (this|that|it)",
)
SEE_SHAPE = (
    "(what|which) shape (is|has) (this|that|it)",
    "(what|which) shape do you see",
    "[please] tell me the shape [of this|of that]",
)
SEE_THING = (
    "what (is this|is that|is it|do you see|can you see) [now|here]",
    "what am i (showing|holding)",
    "[please] tell me what you (see|can see)",
    "[please] describe (this|the picture|what you see)",
)
SEE_COUNT = (
    "how many {} (do you see|can you see|are there|are in the picture) [now]",
    "[please] count the {} [for me]",
)
THINGS = ("things", "objects", "shapes")
SEE_SIDE = (
    "(what|which thing) is on the {} [side]",
    "what do you see on the {} [side]",
    "[please] tell me what is on the {} [side]",
)
WHERE = (
    "where is the {} [now]",
    "on which side is the {}",
    "is the {} on the left or on the right",
)
SEE_DIGIT = (
    "(what|which) (number|digit) (is this|is that|is it|do you see|can you see) [now]",
    "[please] (read|tell me) (this|the) (number|digit)",
)
CHANGED = (
    "what [has] changed [now]",
    "what is (different|new) [now]",
    "what did i (change|do) [now]",
)
NO_CAMERA = "I can not see anything. Please turn on the camera."

TIMER = (
    "[please] (set|start) a timer for {} (minutes|minute)",
    "[please] set a {} (minutes|minute) timer",
    "(wake me|call me|tell me) in {} (minutes|minute)",
)
LIGHT = (
    "[please] (turn|switch) {} the (light|lights|lamp)",
    "[please] (turn|switch) the (light|lights|lamp) {}",
)
TEMPERATURE = (
    "[please] set the (temperature|heating) to {} [degrees]",
    "[please] make it {} degrees [warm|in here]",
    "i want {} degrees [in here]",
)
TIME = (
    "what time is it [now|please]",
    "[please|can you] tell me the time [now]",
    "what is the time [now]",
    "do you know (what time it is|the time)",
)
NO_TOOLS = "I am sorry, I can not do that here."
TOOL_FAILED = "I am sorry, I can not do that now."
NOT_UNDERSTOOD = "I am sorry, I did not understand that."

# Sentences of no use to the model: it says that it did not understand. Patterns for English, and
# sentences of other languages.
OUT_OF_DOMAIN = (
    "the (committee|parliament|ministry|professor|lawyer|journalist|manufacturer|archbishop) "
    "(published|rejected|financed|postponed|criticised|translated) "
    "(a|another) (contract|proposal|treaty|budget|dictionary|constitution)",
    "several (hundred|thousand) (demonstrators|passengers|volunteers|customers|employees) "
    "(gathered|protested|waited) outside the (embassy|factory|hospital|stadium|courthouse)",
    "(photosynthesis|fermentation|electrolysis|combustion) (converts|releases|requires) "
    "(carbon dioxide|hydrogen|complex carbohydrates|chemical energy)",
    "his (grandfather|neighbour|colleague|brother) (repaired|collected|sold|painted) "
    "(antique clocks|bicycles|violins|wooden furniture) (near the border|in a village|for decades)",
    "our (flight|delivery|performance|appointment) was (delayed|cancelled|interrupted) "
    "because of (technical problems|heavy traffic|a thunderstorm|the strike)",
    "engineers (measured|reduced|increased) the (pressure|voltage|vibration) "
    "inside the (hydraulic cylinder|turbine|battery|reactor)",
    "(shakespeare|mozart|napoleon|cleopatra) probably (wrote|composed|finished|destroyed) "
    "this (tragedy|symphony|manuscript|cathedral)",
    "every (customer|tenant|student|witness) must (sign|submit|return) the "
    "(agreement|application|questionnaire) before the end of (february|august|september)",
    "how (expensive|reliable|dangerous) is (a second hand|an electric|the latest) "
    "(motorcycle|helicopter|dishwasher|typewriter)",
    "why did the (inflation|temperature of the ocean|unemployment|population) (rise|fall) "
    "(last century|during the war|since march)",
    "(recommend|translate|summarise|download) (the following paragraph|an italian restaurant|"
    "this spreadsheet|some detective novels)",
    "which (planet|mineral|insect|composer) (orbits|contains|pollinates|influenced) "
    "(jupiter|aluminium|orchids|beethoven)",
    "[could you] (order|deliver|cook|bake) (us|them) (pizza|sandwiches|spaghetti|breakfast) "
    "[with (mushrooms|cheese|onions)]",
    "(send|forward|write) (an email|a message|a postcard) to (john|our boss|my sister|grandma)",
    "(remind|warn|notify) (us|everybody) to (buy milk|phone the dentist|pay the rent) "
    "on (friday|monday)",
    "(book|cancel|reserve) (a flight|a hotel|tickets|a taxi) to (london|berlin|madrid|tokyo)",
    "(call|inform) (the police|an ambulance|our neighbours) (immediately|quickly)",
    "what is the (capital|population|currency|history) of (france|italy|brazil|rome)",
    "what will the weather be like in (paris|vienna|oslo) (this weekend|on sunday)",
    "(play|download|skip) (some jazz|the next song|my favourite playlist|a podcast)",
    "(open|close|lock) the (garage|curtains|front door|trunk)",
    "who (won|invented|discovered|directed) (the world cup|electricity|america|that film)",
)
# More of these, as people ask assistants; never held out, so that the exam stays what it was.
MORE_OUT_OF_DOMAIN = (
    "(order|get|bring|make) me (a|some|another) (pizza|sandwich|burger|salad|beer|cocktail|coffee)",
    "(tell me|explain|what do you know) about (quantum physics|black holes|the roman empire|"
    "football|artificial intelligence|dinosaurs|history|politics|cooking|philosophy)",
    "(how do i|can you help me) (cook|fix|install|learn|write|clean) (rice|my bicycle|python|"
    "spanish|a letter|the kitchen|pasta|a computer)",
    "(navigate|drive me|take me|show me the way) to the (airport|nearest hospital|gas station|"
    "supermarket|office|hotel)",
    "(play|put on|stop) (some music|a song by the beatles|the radio|my playlist|the news)",
    "what is the (weather|forecast|news|traffic) (like|today|tomorrow|this weekend)",
    "will it (rain|snow|be sunny|get cold) (tomorrow|tonight|on sunday|next week)",
    "(call|text|message) (my wife|my husband|mom|dad|the office|peter)",
    "(increase|lower|raise|mute) the (volume|brightness|speed|window)",
    "(where|when) (does|did) the (train|bus|movie|concert|game|meeting) (leave|start|end)",
    "(search|look) for (restaurants|shoes|a parking spot|cheap flights|a pharmacy) [nearby]",
    "(what|who) is the (president|king|tallest mountain|fastest car|prime minister)",
    "(add|put) (milk|eggs|bread|batteries) (to|on) (my shopping list|the list)",
    "(schedule|move|cancel) my (appointment|meeting|call) (for|with|at) (friday|sarah|noon)",
    "(write|sing|recite) (a poem|a story|a song) about (love|autumn|the ocean|robots)",
    "(how much|how far|how tall) (does a ticket cost|is the moon|is mount everest|is it to rome)",
    "(is|are) there (any good restaurants|a gas station|police|traffic jams) (near me|ahead)",
    "(do you think|are you sure|why do you say) (people are good|god exists|money matters)",
    "(start|stop|lock) the (engine|car wash|vacuum cleaner|washing machine|oven)",
    "(i feel|i am) (hungry|tired|sick|bored|lonely|excited) (today|right now|because of work)",
)
# Words that the model knows, in questions that it does not.
NEAR_DOMAIN = (
    "(where|who|how) (is|was) (my|your|the) "
    "(mother|father|teacher|dog|cat|friend|car|house|book|city|school)",
    "do (you|they|people) (like|need|want|have) (music|coffee|tea|water|bread|apples|a dog|a car)",
    "can you (drive|walk|run|go) to the (park|school|city|river|shop|station)",
    "is the (sea|sun|water|tea|coffee|wind|river|house|snow) (cold|warm|strong|bright|old|new)",
    "(what is|tell me|do you know) the name of (my|your|the) (dog|cat|mother|teacher|city|river)",
    "how (old|big|long|cold|strong) (are you|is the house|is my car|is the river|is the city)",
    "(who|what|which dog) (likes|wants|has|sees) (the|a|my) (book|cup|garden|window|house|cat)",
    "i (want|need|like) to (walk|run|go|drive) to the (park|school|city|river|shop|station)",
    "which (city|school|book|music|day|week) (is|was) (the best|very good|really bad|your best)",
    "(turn|switch|take|set) the (door|car|dog|music|window|garden) (on|off|up|to the left)",
)
FOREIGN: Mapping[str, tuple[str, ...]] = {
    "de": (
        "wo ist hier der nächste bahnhof",
        "das wetter ist heute sehr schön",
        "wie viel kostet eine fahrkarte nach hamburg",
        "meine schwester arbeitet im krankenhaus",
        "können sie mir bitte die rechnung bringen",
        "ich verstehe nur bahnhof",
    ),
    "fr": (
        "où est la gare la plus proche",
        "il fait très beau aujourd'hui",
        "combien coûte un billet pour marseille",
        "ma soeur travaille à l'hôpital",
        "pouvez vous m'apporter l'addition",
        "je voudrais un café au lait",
    ),
    "es": (
        "dónde está la estación de tren",
        "hoy hace muy buen tiempo",
        "cuánto cuesta un billete para sevilla",
        "mi hermana trabaja en el hospital",
        "puede traerme la cuenta por favor",
        "quiero una taza de café",
    ),
    "it": (
        "dove si trova la stazione",
        "oggi fa molto bello",
        "quanto costa un biglietto per firenze",
        "mia sorella lavora in ospedale",
        "può portarmi il conto per favore",
        "vorrei un bicchiere di vino",
    ),
}
