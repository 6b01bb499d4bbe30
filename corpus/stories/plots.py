"""The plots of the story world: how a story opens, what goes wrong or right in it, and how it ends.

Roles that run through all of it: `hero`, `friend` (the other main person), `colour` and `thing` (what it is about) and
`owner` (who holds it when the story ends). The notation is explained in `corpus/stories/grammar.py`. Names never open a
paragraph or a quotation, so that a name is one and the same token wherever it stands.
"""

from corpus.stories import words as w
from corpus.stories.grammar import Grammar, Options, phrases


def _someone(role: str) -> Options:
    """A new person who plays a role: a name, how she or he is, and what she or he is."""
    return phrases(f"[name:{role}] the [quality] [kind:{role}_kind]")


GENERAL = {
    "story": phrases("[title]\n\n[opening]\n\n[plot]"),
    "title": phrases(
        "The story of [name:hero] the [kind:hero_kind]",
        "A tale of [name:hero] the [kind:hero_kind]",
        "About [name:hero] the [kind:hero_kind]",
        "News of [name:hero] the [kind:hero_kind]",
    ),
    "hero": phrases("[a quality] {hero_kind} [called] {hero}"),
    "friend": _someone("friend"),
    "third": _someone("third"),
    "called": phrases("called", "named"),
    "said": phrases("said", "declared", "announced", "remarked"),
    "cried": phrases("cried", "said", "laughed", "called"),
    "hero_keeps_it": phrases("{owner=hero}\n\n[thing_ending]"),
    "friend_keeps_it": phrases("{owner=friend}\n\n[thing_ending]"),
    "they_part": phrases("\n\n[friends_ending]"),
}
OPENING = {
    "opening": phrases(
        "One [weather] [day] [daytime], [hero] was [doing] [where] [scene] [place].",
        "Once upon [a weather] [day], [hero] who loved [topic] and [food] was [doing] [where] [place].",
        "In [a trait] [colour] house [where] [scene] [place] lived [hero]. {hero} liked [topic], [food] and [weather] "
        "[day]s.",
        "It was [a weather] [daytime] in [month]. [A quality] {hero_kind} [called] {hero} was [doing] [where] [scene] "
        "[place].",
        "On the [ordinal] of [month], [hero] was [doing] [where] [scene] [place].",
        "Everybody [where] [scene] [place] knew {hero}, [a quality] {hero_kind} with [a colour] [thing] and [number] "
        "[quality] cousins.",
        "Do you know {hero}, the [quality] {hero_kind} from the [scene] [place]? One [weather] [day] {hero} was "
        "[doing] [where] [place].",
        "Not long ago, on [a weather] [day] in [month], [hero] was [doing] [where] [scene] [place].",
        "There was once [hero] who had [number] [trait] [food], [a trait] [colour] [thing] and [number] [quality] "
        "cousins.",
    ),
}
PLOT = {
    "plot": phrases(
        "Alas, {hero.his} [trait] [colour:colour] [thing:thing] was gone. [search]",
        "Somewhere {hero} had lost {hero.his} [trait] [colour:colour] [thing:thing]. [search]",
        "But [a colour] [critter:thief] snatched {hero.his} [trait] [colour:colour] [thing:thing] and was gone. "
        "[chase]",
        "It was the birthday of {hero.his} [kin] [name:friend], [a quality] [kind:friend_kind]. [gift]",
        "In [number] days {hero.his} [kin] [name:friend], [a quality] [kind:friend_kind], would have a birthday. "
        "[gift]",
        "Now {hero} wanted to bake [a colour] [flavour] [baked:dish] for {hero.his} [kin] [name:friend], [a quality] "
        "[kind:friend_kind]. [errand]",
        "Now {hero} was tired of {hero.his} [trait] [colour:colour] [thing:thing]. [trade]",
        "Then {hero} heard a cry: [friend] was stuck [trap]. [rescue]",
        '"Help!" cried [friend], stuck [trap] [where] [place]. [rescue]',
        "Now {hero} packed [number] [trait] [food], [a colour] [thing] and [a trait] [colour:colour] [thing:thing], "
        "and set off to visit {hero.his} [kin] [name:friend], [a quality] [kind:friend_kind]. [journey]",
        'A letter came from {hero.his} [kin] [name:friend], [a quality] [kind:friend_kind]. "Come on [day]," it said, '
        '"and bring me [a trait] [colour:colour] [thing:thing]." [journey]',
        "There was [a contest] contest [where] [scene] [place], and the prize was [a trait] [colour:colour] "
        "[thing:thing]. [rival]",
        'A sign said: "Great [contest] contest on [day]! First prize: [a trait] [colour:colour] [thing:thing]." '
        "[rival]",
        "Now {hero} had a secret: [a trait] [colour:colour] [thing:thing] lay [hidden] [where] [scene] [place]. "
        "[secret]",
        "Then a storm carried off [number] trees, [a trait] [colour] [thing] and {hero.his} [trait] [colour:colour] "
        "[thing:thing]. [shelter]",
        "All of a sudden {hero.his} [trait] [colour:colour] [breakable:thing] broke in two. [repair]",
        "Now {hero} wanted to build [a trait] [built:built], but had only [number] [parts]. [build]",
        'An old map lay [hidden]. "Go [number] steps past the [place], turn left at the [place] and dig [where] '
        '[scene] [place]," it said. [treasure]',
        '"May I borrow your [trait] [colour:colour] [thing:thing]?" [friend] asked {hero}. "I will bring it back on '
        '[day:promise]." [loan]',
        "More than anything {hero} wished for [a trait] [colour:colour] [thing:thing]. [work]",
    ),
    "search": phrases(
        "{hero} looked [where] [place], [where] [place] and [where] [scene] [place]. [ask]",
        "{hero} found [number] [trait] [food], [a colour] [thing] and [a trait] [colour] [thing], but no {thing}. "
        "[ask]",
    ),
    "ask": phrases(
        '"Have you seen my {colour} {thing}?" {hero} asked [friend]. [answer]',
        'Then {hero} met [a quality] [kind:friend_kind] [called] [name:friend]. "Have you seen it anywhere?" {hero} '
        "asked. [answer]",
    ),
    "answer": phrases(
        '"Look [hidden] [where] [place]," {friend} [said] [manner]. There it was, next to [number] [trait] '
        "[food]![hero_keeps_it]",
        '"Is it this [colour] one?" {friend} asked [manner]. "No, mine is {colour}," {hero} [said]. They found it '
        "[hidden] [where] [scene] [place].[hero_keeps_it]",
        "{friend} had seen [a colour] [critter:thief] with it, and the {thief} gave it back for [number] [trait] "
        "[food].[hero_keeps_it]",
        '"I found it [hidden] on [day]," {friend} [said] [manner], and got [number] [trait] [food] for '
        "it.[hero_keeps_it]",
    ),
    "chase": phrases(
        "The {thief} raced past the [place], the [place] and the [scene] [place], until [friend] stopped it with "
        "[number] [food]. [thanks]",
        "It hurried to the [scene] [place], where [friend] caught it with [a trait] [colour] [thing]. [thanks]",
    ),
    "thanks": phrases(
        '"[exclaim]!" {hero} [cried] [manner] and hugged {friend}.[hero_keeps_it]',
        "So {hero} got it back, and {friend} got [number] [trait] [food] and [number] [food].[hero_keeps_it]",
    ),
    "gift": phrases(
        "At the market {hero} saw [a colour:colour] [thing:thing] for [number] coins and [a trait] [colour:colour2] "
        "[thing:thing2] for [number]. {hero} took the [taken]",
        "For [number] [trait] [food] and [a colour] [thing], {hero} got [a trait] [colour:colour] [thing:thing] from "
        "[name]. [give]",
        "From [stuff], [stuff] and [stuff], {hero} made [a trait] [colour:colour] [thing:thing] in [number] minutes. "
        "[give]",
    ),
    "taken": phrases("first one. [give]", "second one. {colour=colour2}{thing=thing2}[give]"),
    "give": phrases(
        '"[exclaim]!" {friend} [cried] [manner] and hugged {hero}.[friend_keeps_it]',
        "{friend} opened the box [manner] and danced [where] [place] for [number] minutes.[friend_keeps_it]",
        "{friend} had always wanted one like it, and shared [number] [trait] [food] with {hero}.[friend_keeps_it]",
    ),
    "errand": phrases(
        "It took [number] spoons of [ingredient] from [third] and [number] [trait] [food] from [name]. [eat]",
        '"Take [number] spoons of my [ingredient]," [said] [third] [manner], "but save me [number] pieces." [eat]',
    ),
    "eat": phrases(
        "At [hour] o'clock {friend} ate [number] pieces, {third} ate [number], and [name] ate [number].[they_part]",
        "{friend} brought [number] [trait] [food], {third} brought [a trait] [colour] [thing], and they ate the "
        "{dish} [manner].[they_part]",
    ),
    "trade": phrases(
        "So {hero} swapped it with [friend] for [a trait] [colour:colour2] [thing:thing2]. [trade_on]",
        '"I will give you my [colour:colour2] [thing:thing2] for it," [said] [friend] [manner]. {hero} agreed. '
        "[trade_on]",
    ),
    "trade_on": phrases(
        "Then {hero} swapped that with [third] for [a trait] [colour:colour3] [thing:thing3]. Now {friend} has the "
        "{thing}, {third} has the {thing2}, and {hero} has the {thing3}.{colour=colour3}{thing=thing3}[hero_keeps_it]",
        "But by [day] {hero} missed it, and {friend} gave it back for [number] [trait] [food] and [number] [trait] "
        "[food].[hero_keeps_it]",
    ),
    "rescue": phrases(
        "With [a trait] [tool], [a colour] [tool] and the help of [third], {hero} got {friend} out. [reward]",
        "{hero} pulled for [number] minutes, first with [a trait] [colour] [tool], then with [a trait] [tool], until "
        "{friend} was free. [reward]",
    ),
    "reward": phrases(
        '"Please take my [trait] [colour:colour] [thing:thing]," {friend} [said] [manner].[hero_keeps_it]',
        '"I will bring you [number] [trait] [food] every [day]," {friend} [said] [manner].[they_part]',
    ),
    "journey": phrases(
        "{hero} walked for [number] [weather] hours, past the [place], the [place] and the [scene] [place]. [arrive]",
        "On the way [a quality] [kind] offered {hero} [number] [trait] [food] for the present, but {hero} did not "
        "stop. [arrive]",
    ),
    "arrive": phrases(
        '{friend} was [doing]. "[exclaim]!" {friend} [cried] and put it [spot], with [a colour] '
        "[thing].[friend_keeps_it]",
        '"[exclaim]!" {friend} [cried] when {friend} got it, and they ate [number] [trait] [food].[friend_keeps_it]',
    ),
    "rival": phrases(
        "{hero} had practised for [number] [weather] [unit], but so had [friend]. [finish]",
        "The judges were [name], [name] and [name], and the only rival was [friend]. [finish]",
    ),
    "finish": phrases(
        'In the end {hero} won by [number] points. "You were [virtue] and [virtue]," {friend} [said] '
        "[manner].[hero_keeps_it]",
        "In the end {friend} won by [number] points, and {hero} clapped [manner] and [manner].[friend_keeps_it]",
        "In the end they shared the prize: {hero} has it on [weather] [day]s, {friend} on [weather] [day]s.[they_part]",
    ),
    "secret": phrases(
        "Only [friend] knew. [secret_end]",
        "On [day] {hero} showed it to [friend]. [secret_end]",
    ),
    "secret_end": phrases(
        "For [number] [unit] {friend} told nobody. So {hero} gave {friend} the {thing} for being so [virtue] and "
        "[virtue].[friend_keeps_it]",
        'Then it was gone! "I put it [spot], with my [trait] [colour] [thing]," {friend} [said] '
        "[manner].[hero_keeps_it]",
    ),
    "shelter": phrases(
        "At the house of [friend], {hero} got [flavour] tea, [number] [trait] [food] and [a colour] bathrobe. "
        "[afterwards]",
        '"Come in!" [cried] [friend], and they drank [flavour] tea and talked about [topic] and [topic]. [afterwards]',
    ),
    "afterwards": phrases(
        "On [day] they found the {thing} [hidden] [where] [scene] [place].[hero_keeps_it]",
        "{friend} even gave {hero} [a trait] [colour:colour] [thing:thing] to keep.[hero_keeps_it]",
    ),
    "repair": phrases(
        '"I can mend it with [stuff] and [stuff]," [said] [friend]. It took [number] [unit] and cost [number] [trait] '
        "[food].[hero_keeps_it]",
        "{hero} tried [stuff], [stuff] and [stuff], but only [friend] could mend it, with [stuff] and "
        "[stuff].[hero_keeps_it]",
    ),
    "build": phrases(
        "On [day] [friend] brought [number] [parts], on [day] [third] brought [number] [parts], and [name] had "
        "[colour:colour] paint. [built_up]",
        '"I have [number] [parts]," [said] [friend]. "And I have [number] [parts] and [colour:colour] paint," [said] '
        "[third]. [built_up]",
    ),
    "built_up": phrases(
        "After [number] [weather] [unit] it was ready.[they_part]",
        "Now the {built} stands [where] [scene] [place].[they_part]",
    ),
    "treasure": phrases(
        "After [number] [unit] {hero} and [friend] dug up [number] [trait] coins and [a trait] [colour:colour] "
        "[thing:thing]. [share]",
        "{hero} dug with [friend] and found [number] [trait] buttons and [a trait] [colour:colour] [thing:thing]. "
        "[share]",
    ),
    "share": phrases(
        "{hero} kept the {thing}, and {friend} swapped the rest for [number] [trait] [food].[hero_keeps_it]",
        "{friend} kept the {thing}, and {hero} swapped the rest for [number] [trait] [food].[friend_keeps_it]",
    ),
    "loan": phrases(
        "And on {promise}, at [hour] o'clock, {friend} was back with it, [a trait] [colour] [thing] and [number] "
        "[trait] [food].[hero_keeps_it]",
        "But on {promise} nobody came. [A colour] [critter] had hidden it [hidden], and {friend} needed [number] "
        "[unit] to find it.[hero_keeps_it]",
    ),
    "work": phrases(
        '"Wash my [number] windows and pick [number] [trait] [food], and you can have mine," [said] [friend] '
        "[manner]. [earned]",
        "So {hero} worked for [friend], painted [number] fences, fed [number] hens and picked [number] [trait] "
        "[food]. [earned]",
    ),
    "earned": phrases(
        "After [number] [weather] [unit] it was {hero.his} own.[hero_keeps_it]",
        '"[exclaim]!" {hero} [cried] when {hero} got it one [weather] [day].[hero_keeps_it]',
    ),
}
ENDING = {
    "friends_ending": phrases(
        "Every [day] now {hero} and {friend} talk about [topic], [topic], [topic] and [topic].",
        "That night {hero} dreamed of {friend} and [number] [colour] [topic], and {friend} dreamed of {hero}.",
        '"[A virtue] friend is worth more than [number] [trait] [colour] [topic]," {hero} [said] [manner].',
        "They sang about [topic] and [topic] until [hour] o'clock, and {hero} went home [feeling], and {friend} "
        "[feeling].",
        "For supper {hero} cooked [number] [trait] [food], and {friend} brought [number] [trait] [food] to {hero}.",
    ),
    "thing_ending": phrases(
        "To this day {owner} keeps it [spot], between [a trait] [colour] [thing] and [a trait] [colour] [thing].",
        "That night it lay [spot], and {owner} dreamed of [number] [colour] [topic] and [number] [topic].",
        "If you pass the [scene] [place] on [a weather] [day], look for {owner}: for [number] [trait] [food] you may "
        "see it.",
        "Since then it has its place [spot], and [number] [quality] cousins of {owner} come every [day] to look at it.",
        '"[A virtue] friend is worth more than [number] [trait] [colour] [topic]," {hero} told {friend} [manner].',
        "And where does {owner} keep it? It lies [spot], with [number] [trait] [food] and [a trait] [colour] [thing].",
        "For supper {hero} cooked [number] [trait] [food], and {friend} brought [number] [trait] [food] to {hero}.",
    ),
}
WORDS = {name.lower(): options for name, options in vars(w).items() if isinstance(options, Options)}
GRAMMAR = Grammar(GENERAL | OPENING | PLOT | ENDING | WORDS, w.PRONOUNS, start="story")
