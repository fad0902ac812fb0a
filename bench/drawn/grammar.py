# ruff: noqa: E501 -- phrases are kept on one line each
"""Phrases from which wrappers are put together: `{a|b}` is a choice, `~` the place of the query."""

ROLES = (
    "{expert|senior|careful|patient|meticulous|seasoned|precise|resourceful} {data analyst|software engineer|tutor|"
    "reviewer|research assistant|support agent|editor|consultant|mathematician|planner|technical writer|operator}"
)
PREAMBLES = [
    f"You are {{a|an exceptionally|our}} {ROLES}{{.| who {{never skips details|values rigour|knows the field|is brief}}.}}",
    f"Act as {{a|the}} {ROLES} {{working for|inside|at}} {{a small team|our company|a busy office|a laboratory}}.",
    f"{{Assume|Take}} the role of {{a|one}} {ROLES}.",
    "{Below|Next|In what follows|Here} {is|comes} {one|another|a single} {item|request|entry|case} {from|out of|off} {our|the|today's} {queue|list|backlog|inbox}.",
    "{Handle|Process|Treat} the {following|next} {input|request|item} {with care|as a professional would|thoroughly}.",
    "{This is|You are|We are at} {part|one step|a stage} of a {larger|longer|bigger} {project|workflow|pipeline}; {stay|remain|be} {consistent|accurate|careful}.",
]
DEMANDS = {
    "math_reasoning": [
        "{Solve|Work out} the {problem|exercise} and {justify|explain} {each|every} step.",
        "Derive the result {line by line|in full} and {check|verify} it at the end.",
    ],
    "cot_elicitation": [
        "{Write|Lay} out your {complete|whole|full} {reasoning|train of thought} before the answer.",
        "{Think aloud|Narrate your thinking} {from start to end|without omissions}, then {conclude|answer}.",
    ],
    "coding": [
        "{Write|Provide|Implement} {complete|working|tested} code and {explain|comment on} the {choices|design}.",
        "{Return|Give} a {full|correct} program {with|including} {edge cases|tests|error handling}.",
    ],
    "agentic_coding": [
        "{Find|Locate} the {cause|place} in the repository, {edit|change} the files and {run|check} the tests.",
        "{Plan|List} the {edits|steps}, then {apply|make} them and {report|show} the diff.",
    ],
    "tool_use": [
        "{Choose|Select} the {right|best} {function|tool}, {fill|give} its arguments and {say|explain} why.",
        "{Call|Use} the {available|given} {functions|tools} {one after another|step by step} until the {task|goal} is done.",
    ],
    "data_analysis": [
        "{Analyse|Examine} the data, {write|give} the query and {interpret|discuss} the {result|finding}.",
        "{Combine|Join} statistical {rigour|care} with {domain|subject} knowledge and {show|report} the {method|steps}.",
    ],
    "computer_use": [
        "{State|Give} the next {action|click} in the browser and {why|the reason for it}.",
        "{Navigate|Move} through the {site|pages} and {list|record} {every|each} action until the {goal|objective} is met.",
    ],
    "vision": [
        "{Describe|Examine} the {image|picture} in detail and {answer|derive the answer} from what is {visible|shown}.",
        "{List|Name} the objects, their {places|positions} and {relations|interactions}.",
    ],
    "grading": [
        "{Score|Rate|Grade} the {response|answer} from {1 to 5|1 to 10|0 to 100} {against|by} the {criteria|rubric} and {justify|explain} it.",
        "{Compare|Weigh} the {answers|candidates} and {name|pick} the better one with {reasons|arguments}.",
    ],
    "sensitive_rewrite": [
        "{Rewrite|Answer} this so that it is {safe|acceptable|neutral} and {still helpful|complete}.",
        "{Give|Provide} a {balanced|careful} reply that {avoids|leaves out} {banned|delicate} {topics|words}.",
    ],
    "other": [
        "{Answer|Complete|Do} the {following|task below} {fully|as well as you can}.",
        "{Respond|Reply} {helpfully|in detail} to the {instruction|message}.",
    ],
}
FORMATS = [
    "{Return|Reply with|Output|Give|Send back|Produce} {JSON|a JSON object|valid JSON|one JSON record} {with|that has|holding|made of}"
    " {the |}{keys|fields|members} {answer|result|label|category|summary|text} {and|plus|next to} {notes|reason|score|source|confidence}.",
    "{Put|Write|Place|Give|State} the {final|last|main|short} {answer|result|verdict} {on its own line|after ####|in <answer> tags|in a box|first}.",
    "{Use|Prefer|Write|Choose} {Markdown|plain text|numbered steps|short paragraphs|a table|bullets} {only|throughout|where it helps|all the way}.",
    "{Keep|Hold|Leave} {it|the text|everything|your reply} {under|below|within|to} {120|200|300|400|600|1000} {words|tokens|characters|lines}.",
    "{Begin|Start|Open} with {a summary|the plan|the key facts|the headline} and {end|finish|close|stop} {with|on|at} {the answer|a check|a conclusion|next steps}.",
    "{Separate|Split|Part|Divide} {analysis|working|notes|thought} {and|from} {answer|verdict|summary|reply} {by|with|using} a {blank line|heading|rule|dash}.",
]
CLOSINGS = [
    "{Do not|Never|Please don't} {ask|come back with|return with|pose} {questions|clarifications|doubts}.",
    "{Be|Stay|Remain|Sound} {precise|honest|concise|complete|brief}{.| and {polite|neutral|thorough|calm|warm}.}",
    "{If|Where|When} {information|something|a detail|a value} is {missing|unclear|absent}, {say so|state your assumption|make a sensible choice|skip it}.",
    "{Never|Do not|Don't} {mention|refer to|repeat|quote} {these|the|such} {instructions|rules|notes}.",
    "{Double-check|Verify|Confirm|Review} {the numbers|your work|the facts|names|units} {first|before you reply|at the end|twice}.",
]
LABELS = ["Input:", "Request:", "Task:", "Question:", "### Item", "<input>", "Query >>", "[[", "Text:", "Case:"]
PRODUCTS = [
    "{Classify|Sort|Route} the {message|ticket|text}.",
    "{Summarise|Shorten} the {text|document|note} for {a manager|a customer|our site}.",
    "{Translate|Localise} the {strings|text} and keep {names|keys}.",
    "{Answer|Reply to} the {customer|visitor|user} from {our|the} {help pages|documents|policy}.",
    "{Extract|Pull out} the {fields|facts|dates} that {matter|we store}.",
    *(d for pair in DEMANDS.values() for d in pair),
]

# One item of each list that is drawn makes a paraphrased wrapper; order, number and place are drawn as well.
REWORDED = {
    "en": {
        "open": [
            "{hi|hello|hey|good morning|} {there|team|all|}{,|} {I'm|we are|I am} {stuck on|looking at|curious about|preparing} {this|something|the thing below}",
            "{my|a} {colleague|friend|brother|student|neighbour} {sent|showed|gave} me {this|the text here|one of these} {yesterday|today|last week|}",
            "{for|in} {my|our} {course|blog|job|notes|meeting|exam|report} {I need|we want|it would help to have} {a hand|some help|your view}",
            "{quick|small|another|one more|serious} {question|request|thing}{:|,| --|}",
            "{suppose|imagine|say|let's pretend} {you|someone} {had to teach|must defend|were asked about} {this|it} {to a beginner|in public|on the spot}",
        ],
        "want": [
            "{could|would|can} you {please|kindly|} {take|walk|guide|lead} me {through|along} {how|the way} {you|one} {get|arrive|come} {there|to it|at the result}",
            "{what|which} {steps|moves|considerations} {lead|bring you|take one} to {the answer|a solution|the end}?",
            "{please|do} {tell|show} {me|us} {not only|more than} {what|the result} but {why|the thinking behind it|how it comes about}",
            "{I'd|we'd} {love|like|prefer} {to see|reading} {every|each|all} {bit|piece|stage} of {the work|it|your method}",
            "{explain|unpack|spell out|break down} {it|everything|this} {slowly|carefully|from scratch|as you go}{, no shortcuts|, please|}",
            "{how|in what way} would {you|a professional|an insider} {tackle|approach|deal with|settle} {it|that|this one}?",
        ],
        "form": [
            "{a|some} {list|few paragraphs|short essay|table} {is|would be} {fine|best|ideal}",
            "{mark|flag|highlight} {the|your} {final|last} {line|word|verdict} {clearly|somehow|in bold}",
            "{length|style|format} {doesn't matter|is up to you|is free}",
            "{finish|end|round off} {by|with} {checking|testing|a sanity check of} {the outcome|it}",
            "{plain|simple|everyday|technical} {words|language|terms} {please|preferred|only}",
        ],
        "end": [
            "{thanks|cheers|many thanks|thank you} {a lot|in advance|so much|}",
            "{no|there's no} {rush|hurry}",
            "{sorry|apologies} for the {long|messy|odd} {message|wording|text}",
            "{I|we} {will|can|shall} {compare|share|reuse} it {later|tomorrow|tonight}",
        ],
    },
    "de": {
        "open": ["{hallo|guten Tag|servus}, {ich brauche|wir suchen} {Hilfe|Rat} {hierbei|dazu|bei folgendem}", "{mein|ein} {Kollege|Freund|Schüler} {fragt|schrieb} {mir|uns} {das hier|folgendes}"],
        "want": ["{bitte|} {erkläre|zeige|beschreibe} {genau|ausführlich|Schritt für Schritt}, {wie|warum} {man|du} {dazu kommst|darauf kommt}", "{welche|was für} {Überlegungen|Schritte} {führen|bringen} {dich|einen} {zum Ziel|ans Ende}?"],
        "form": ["{gern|am besten} {als Liste|in ganzen Sätzen|kurz und klar}", "{am Ende|zum Schluss} {das Ergebnis|die Antwort} {hervorheben|nennen}"],
        "end": ["{danke|vielen Dank} {schon mal|im Voraus|}", "{keine Eile|es eilt nicht}"],
    },
    "es": {
        "open": ["{hola|buenas}, {tengo|me queda} {una duda|algo pendiente} {con esto|aquí}", "{un|mi} {amigo|jefe|alumno} {me pasó|preguntó} {lo siguiente|esto}"],
        "want": ["{explica|cuéntame|muestra} {con detalle|poco a poco} {cómo|por qué} {se llega|llegas} {al resultado|ahí}", "¿{qué|cuáles} {pasos|razones} {te llevan|conducen} a {la respuesta|eso}?"],
        "form": ["{mejor|si puede ser} {en lista|en párrafos|con ejemplos}", "{al final|para acabar} {resume|comprueba} {todo|el resultado}"],
        "end": ["{gracias|mil gracias} {de antemano|}", "{sin prisa|cuando puedas}"],
    },
    "zh": {
        "open": ["{你好|您好|大家好}，{我|我们}{在|正}{看|准备|研究}{这个|下面的内容}", "{朋友|同事|学生}{昨天|刚才|}{问了|发来}{我|}{这个|一件事}"],
        "want": ["{请|麻烦}{详细|一步步|慢慢}{说明|解释|讲讲}{你的思路|怎么得出|理由}", "{想知道|希望看到}{每一步|全部过程|背后的原因}"],
        "form": ["{最好|可以}{分点|用表格|用简单的话}{写|回答}", "{最后|结尾}{给出|标出}{结论|答案}"],
        "end": ["{谢谢|多谢|辛苦了}", "{不急|慢慢来}"],
    },
}  # fmt: skip
FOLLOW_UPS = [
    "{can|could} you {make|keep} {it|that} {shorter|simpler|more formal|longer|clearer}?",
    "{why|how come} {did you|does it} {use|pick|need} {the|that} {second|first|last} {one|option|part}?",
    "{it|that} {still|now} {fails|breaks|complains} {with|at} {line|step|case} #",
    "{go on|continue|next|more please|keep going}",
    "{what|how} about {the case|an example} {with|where} # {items|rows|people|files}?",
    "{ok|great|thanks}{,|} {now|and then} {add|remove|rename|check} {tests|the header|the second part|the table|item #}",
    "{are you|how} sure {about|of} {that|the last part|number #}?",
    "{give|show} me {an|another|a different} {example|version|way} {please|}",
]
TALK = {
    "chat": [["Sure,", "Here is", "In short,", "Good question:", "Of course.", "Let me see:"], ["the main point is", "it helps to know that", "most people would say", "you could try"]],
    "code": [["Here is the change:", "I edited the file so that", "This function now", "The test failed because"], ["it returns early when", "the loop handles", "the import resolves", "def main() keeps"]],
    "math": [["Step 1:", "First,", "Let x be the unknown.", "We start with"], ["so the total is", "which gives", "therefore the answer is", "and dividing yields"]],
    "grade": [["Score: 4.", "Rating: 2/5.", "The first answer is better.", "Verdict: pass."], ["It follows the rubric but", "The reasoning omits", "Coverage is good and", "Both texts mention"]],
}  # fmt: skip
