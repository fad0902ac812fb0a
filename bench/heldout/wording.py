"""Words of our own: honest small talk, a grammar of instruction wrappers, a grammar of paraphrases."""

from __future__ import annotations

import random
import re


def listed(text: str, by: str | None = None) -> list[str]:
    """The words of a text, or its parts."""
    return text.split(by)


NAMES = listed(
    "Amara Bruno Chiara Dimitri Elif Farid Greta Hugo Ines Jonas Kofi Lena Mateo Nadia Oskar Priya Quentin Rosa "
    "Samir Tamsin Ulrich Vera Wanda Xenia Yusuf Zofia Anselm Beatriz Callum Daria Emeka Freya Goran Hana Ivo Jun"
)
OPENERS = (
    "hey, quick one:", "Hi!", "So I was reading about {f} and", "For {p}'s project:", "context: {f}.", "please help,",
    "I'm stuck on this one.", "Follow-up to yesterday ({f}):", "My colleague {p} says {f}, but", "ok so", "Question {n}.",
    "not sure how to phrase this:", "Given {f}, and {g},", "We have about {n} of these.", "draft {n}:", "{p} sent me this:",
    "Can you look at this?", "I need it for {f}.", "before the meeting with {p}:", "[{f}]", "thinking about {f} —",
    "Here is what I have so far.", "for a talk on {f}:", "urgent!!", "Sorry, another one.", "re: {f}", "As {p} asked,",
    "From the notes ({g}):", "case {n}", "I tried {f} and it failed.", "Continuing with {f}.", "Let's go on.",
)  # fmt: skip
CLOSERS = (
    "Thanks!", "Keep it under {n} words.", "Mention {f} if it matters.", "thx", "Write it for {p}.", "What about {f}?",
    "Is {g} relevant here?", "short please", "and tell me why.", "in plain words", "Make it a list of {n} at most.",
    "I'd rather avoid {f}.", "No jargon.", "Give me two options.", "Same tone as before.", "also: {f}", "(for {p})",
    "Could you double check?", "Don't change anything else.", "Then compare it with {f}.", "Use a table.", "any ideas?",
    "in german if you can", "The deadline is day {n}.", "It is about {f}, after all.", "What would {p} say?", "ty",
)  # fmt: skip
FRAMES = (
    "what does {f} mean", "can you explain {f} like I'm new to {g}?", "is there a difference between {f} and {g}?",
    "write {p} a short note about {f}", "my {n} page report covers {f}; what should I say on {g}?", "why {f}?",
    "rewrite this: {f}, {g}", "give me a title for a post on {f}", "how would you plan a trip around {f}?", "{f}??",
    "summarise the argument that {f} while {g}", "make a checklist for {f}", "correct my grammar: {f} because {g}",
    "what do people get wrong about {f}?", "I have {n} minutes, teach me {f}", "recipe idea with {f}", "{f} vs {g}",
    "is it true that {f}?", "help me answer {p}: {f}", "pros and cons of {f}", "a joke about {f}", "define {f}",
    "what comes after {f} in {g}?", "suggest a gift for {p} who likes {f}", "how old is {f}", "where can I find {f}",
    "turn it into a poem: {f} / {g}", "explain the link from {f} to {g}", "what is the best way to learn {f}",
    "I think {f}. Am I wrong?", "{p} and I disagree on {f}. Who is right?", "fill in: {f} ____ {g}",
    "what changed about {f} since {g}", "draft an email to {p} about {f}, mention {g}", "name ideas: {f}, {g}, {n}",
)  # fmt: skip
CONSTRAINTS = (
    "Assume that {f}.", "Take {f} into account.", "Suppose {n} units are involved.", "Ignore {g}.", "Limit: {n} steps.",
    "The user is called {p}.", "Consider the case of {f} as well.", "Extra condition: {f}.", "Use {n} as the seed.",
    "Do it for {p} first.", "Treat {f} as given.", "There are {n} such cases.", "Add a variant about {g}.",
)  # fmt: skip

ROLE = (
    "You are {adj} {who} with {years} in {field}.", "Act as {adj} {who} who knows {field}.",
    "Your role: {who}, {field}.", "Imagine a panel of {who}s in {field}; speak for it.", "This desk is run by {adj} {who}.",
    "You work as {who} on {field}.", "Assume the voice of {adj} {who}; background: {field}.",
)  # fmt: skip
ADJECTIVES = listed(
    "a meticulous,a senior,a patient,an exacting,a plain-spoken,a seasoned,a sceptical,a well-read", ","
)
WHO = {
    "work": "support agent,case handler,copy editor,claims reader,product writer,account assistant,clerk,desk lead",
    "lore": "mathematician,engineer,examiner,tutor,analyst,research lead,reviewer,annotator,problem setter,scholar",
}
FIELDS = {
    "work": "retail returns,insurance mail,hotel bookings,payroll questions,spare parts,tenant letters,clinic admin,fleet care",
    "lore": "quantitative reasoning,software craft,formal methods,empirical work,tool orchestration,language quality,"
    "structured data,interactive systems",
}
YEARS = listed("two decades,ten years,long practice,a career,thirty years,deep training", ",")
METHODS = {
    "work": "Read the message and decide what the customer wants.|Stay with our policy; never promise a refund.|"
    "Pull the order number out if there is one.|If a fact is missing, ask for it once.|Be warm and short.|"
    "Escalate anything legal.|Sort the message into one of our queues.|Quote the paragraph you rely on.|"
    "Keep the house style: no exclamation marks.|Do not mention other vendors.|Mask personal numbers.",
    "lore": "Work from first principles and write each inference down.|Lay out the complete line of thought before you conclude.|"
    "State a plan, carry it out, then verify it.|Name every assumption you rely on.|Try a second route and compare.|"
    "Keep false starts in the text, with the reason they failed.|Show intermediate results in full.|"
    "Judge against the criteria one at a time.|Choose the tool call, give its arguments, and justify both.|"
    "Check edge cases before the final version.|Write so that a learner could repeat it.|Skip no step, however small.",
}
FORMATS = {
    "work": "Reply with the text only.|Return JSON with keys queue and reply.|At most {k} sentences.|Sign as {brand}.|"
    "Give a subject line, then the body.|Answer in the customer's language.|Output one label.|Use {k} bullets.",
    "lore": "Put the reasoning under [{tag}] and the result under [{tag}-END].|End with a line starting {tag}:.|"
    "Return an object with fields {tag}_steps and {tag}_answer.|Number the steps from 1.|Use {k} sections at least.|"
    "Wrap the derivation in <{tag}> tags.|Close with a confidence between 0 and {k}.|First '{tag}', then the answer.",
}
INTROS = listed(
    "Input follows.|Item:|Here it is.|The material:|--- begin ---|>>>|Task text below.|Given:|Case in hand:|##", "|"
)
SYLLABLES = listed("ar bel cor dun el fir gal hex ion jun kel lum mor nex ol pra qui ros sil tor ul vin wex yar zan")


def coin(r: random.Random, parts: int = 3) -> str:
    """A made-up name."""
    return "".join(r.choice(SYLLABLES) for _ in range(parts))


def compose(r: random.Random, bank: str, brand: str = "") -> tuple[str, str]:
    """One instruction wrapper of the bank (`work` or `lore`): the text before the item, and after it."""
    tag, k = coin(r, 2).upper(), r.randint(2, 7)
    name = brand or coin(r)
    role = r.choice(ROLE).format(
        adj=r.choice(ADJECTIVES),
        who=r.choice(WHO[bank].split(",")),
        years=r.choice(YEARS),
        field=r.choice(FIELDS[bank].split(",")),
    )
    lines = r.sample(METHODS[bank].split("|"), r.randint(2, 4)) + r.sample(FORMATS[bank].split("|"), r.randint(1, 2))
    lines = [line.format(tag=tag, k=k, brand=name) for line in lines]
    r.shuffle(lines)
    if brand and r.random() < 0.7:
        lines.insert(r.randint(0, 1), f"We are {brand}.")
    cut = r.choice((len(lines), len(lines), len(lines) - 1))
    glue = r.choice((" ", "\n", "\n- "))
    head = glue.join([role, *lines[:cut]]) if r.random() < 0.85 else glue.join(lines[:cut])
    return f"{head}\n{r.choice(INTROS)}", glue.join(lines[cut:]).strip()


GRAMMAR = {
    "ask": ("$polite$verb$object.", "$polite$verb$object, $manner.", "$want $object $manner.", "$manner, $verb$object."),
    "polite": ("", "", "please ", "could you ", "kindly ", "if you can, ", "would you ", "go ahead and "),
    "want": ("i'd like", "what i need is", "i want", "we're after", "looking for", "what would help:", "i could use"),
    "manner": (
        "$slow", "with $every $step $shown", "$shown $all", "not leaving $bits out", "and $tell $reason", "$slow, $tell $reason",
        "so that $reader can $follow", "$first the $why, $then the $end", "$check before the $end",
    ),
    "slow": ("bit by bit", "stage by stage", "in order", "from the ground up", "piecewise", "at an easy pace", "one move a time"),
    "every": ("every", "each", "any", "each single", "all of the"),
    "step": ("step", "move", "inference", "line of work", "stage", "turn in the argument"),
    "shown": ("written out", "on paper", "visible", "spelled out", "made explicit", "laid bare", "on show"),
    "all": ("throughout", "from top to bottom", "the whole way", "everywhere", "start to finish"),
    "bits": ("anything", "the middle", "detail", "the dull parts", "half-steps", "what seems obvious"),
    "tell": ("tell me", "say", "let me see", "note", "share", "mention", "walk me through"),
    "reason": ("why it holds", "the thinking", "how you got there", "what led you on", "the grounds", "your logic"),
    "reader": ("a beginner", "someone else", "my students", "a tired person", "the team", "a non-expert"),
    "follow": ("redo it", "follow", "check it", "learn from it", "retrace it", "audit it"),
    "first": ("first", "start with", "to begin,", "up front,"),
    "then": ("then", "after that", "next", "and only later"),
    "why": ("rationale", "working", "thought process", "derivation", "argument"),
    "end": ("result", "answer", "outcome", "conclusion", "final bit", "verdict"),
    "check": ("double-check", "test it", "sanity-check", "look twice", "verify", "try to break it"),
    "lead": ("", "", "so:", "this one:", "next up,", "today's:", "here goes.", "hm,", "another:", "case:", "look at this —"),
}  # fmt: skip
OBJECTS = {
    "math_reasoning": "solve|work out|settle|crack|figure out/ the problem| this exercise| what is asked| that puzzle| it",
    "cot_elicitation": "reason about|think through|untangle|argue out/ the question| this| that one| the choice| it",
    "coding": "code|implement|program|build|write/ a solution| what is described| this feature| the routine| it",
    "tool_use": "name|pick|find|choose|propose/ an interface that does it| the right call| a fitting library| the api",
    "computer_use": "plan|script|list|map out|describe/ the clicks| the browser actions| how to do it on the site| the route",
    "data_analysis": "query|analyse|examine|pull/ the figures| what the tables say| this request| the data",
    "sensitive_rewrite": "respond to|reword|answer|handle/ the remark| this message| that question| it gently",
    "other": "answer|do|complete|carry out|handle/ the job| this task| the request| that one| it",
}
SYNONYMS = tuple(
    tuple(group.split("|"))
    for group in listed(
        "find|determine|identify|establish;make|create|produce|put together;write|compose|draft;use|employ|apply|rely on;"
        "many|a lot of|numerous;number|count|figure;how many|what number of|what count of;each|every;total|overall|combined;"
        "give|provide|supply;show|display|present;get|obtain|fetch;buy|purchase|pick up;start|begin|commence;end|finish|close;"
        "big|large|sizeable;small|little|minor;need|require|must have;want|would like|wish;people|persons|folks;"
        "money|cash|funds;left|remaining|still there;day|calendar day;week|seven days;month|four weeks or so;year|twelve months;"
        "list|array|series|sequence;function|routine|method|procedure;string|piece of text|text value;given|provided|supplied;"
        "example|instance|sample;following|next|below;explain|clarify|set out;describe|depict|outline;compare|contrast|weigh;"
        "different|distinct|unlike;same|identical|equal;new|fresh|recent;old|aged|earlier;best|top|ideal;good|decent|fine;"
        "between|in the range from;more|additional|further;less|fewer|not as much;all|every one of;some|a few|certain;"
        "then|after that|next;because|since|as;if|in case|provided;when|at the time that|once;and|as well as|plus;but|yet|though;"
        "also|in addition|too;only|just|merely;about|around|roughly;image|picture|photo;website|web page|site;search|look up;"
        "click|press|hit;select|choose|pick;classify|categorise|sort;model|system|network;data|records|information;"
        "answer|reply|response;question|query|matter;sentence|statement|line;word|term|expression;return|give back|yield;"
        "calculate|compute|work out;convert|turn|transform;takes|needs|consumes;costs|is priced at|sells for;has|owns|holds;"
        "goes|heads|travels;sold|handed over|let go of;bought|acquired|got;made|produced|built;child|kid|youngster;"
        "children|kids|youngsters;friend|pal|buddy;house|home|place;school|academy;car|vehicle|auto;shop|store;work|job|task;"
        "program|script|application;remove|delete|drop;add|append|include;check|verify|test;sort|order|arrange;user|person|visitor",
        ";",
    )
)
WORD_TO_GROUP = {group[0]: group for group in SYNONYMS}
WORDS = re.compile(r"\b(?:how many|" + "|".join(w for w in WORD_TO_GROUP if " " not in w) + r")\b")
DIGITS = listed("zero one two three four five six seven eight nine ten eleven twelve")
SMALL_NUMBER = re.compile(r"(?<![\d.,$:/])\b(?:1[0-2]|[2-9])\b(?![\d.,%:/])")
STEM = re.compile(
    r"\s*(?:A: )?Let's think step by step\.?\s*$|^Q: |^OBJECTIVE: |\s*URL: \S*\s*$"
    r"|\n?Write a python program[^\n]*$|^Return your final response within [^.]*\. "
)
SPACED = re.compile(r", | \(|; ")


def _tables() -> dict[str, dict[str, tuple[str, ...]]]:
    """The grammar with each capability's own verbs and objects."""
    tables = {}
    for capability, text in OBJECTS.items():
        verbs, objects = text.split("/")
        tables[capability] = GRAMMAR | {"verb": tuple(verbs.split("|")), "object": tuple(objects.split("|"))}
    return tables


TABLES = _tables()
SYMBOL = re.compile(r"\$(\w+?)(?=\$|\W|$)")


def expand(capability: str, r: random.Random) -> str:
    """A random instruction of the grammar."""
    table, text = TABLES.get(capability, TABLES["other"]), "$ask"
    while "$" in text:
        text = SYMBOL.sub(lambda m: r.choice(table[m[1]]), text)
    return re.sub(r" {2,}", " ", text).strip()


def paraphrase(text: str, capability: str, salt: int) -> str:
    """The item said anew, with an instruction that hardly ever comes twice."""
    r = random.Random(salt)
    ask = expand(capability, r)
    if r.random() < 0.6:
        ask = ask[0].upper() + ask[1:]
    body = STEM.sub("", text)
    body = WORDS.sub(lambda m: r.choice(WORD_TO_GROUP[m[0]]) if r.random() < 0.85 else m[0], body)
    if r.random() < 0.7:
        body = SMALL_NUMBER.sub(lambda m: DIGITS[int(m[0])] if r.random() < 0.6 else m[0], body)
    body = re.sub(r"\b[A-Z][a-z]{3,8}(?='s|\b (?:has|is|was|had|wants|buys|makes))", lambda m: r.choice(NAMES), body)
    body = SPACED.sub(lambda m: r.choice((m[0], m[0], " - ", ", well, ")) if m[0] == ", " else m[0], body)
    pieces = [body, ask] if r.random() < 0.5 else [ask, body]
    lead = r.choice(GRAMMAR["lead"])
    return r.choice(("\n", " ", "\n\n")).join([lead, *pieces] if lead else pieces)
