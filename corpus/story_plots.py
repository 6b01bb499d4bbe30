"""The plots of the story world: how a story opens, what goes wrong or right in it, and how it ends.

Roles that run through all of it: `hero`, `friend` (the other main person), `colour` and `thing` (what it is about) and
`owner` (who holds it when the story ends). The notation is explained in `corpus/story_grammar.py`. Names never open a
paragraph or a quotation, so that a name is one and the same token wherever it stands.
"""

from corpus import story_words as w
from corpus.story_grammar import Grammar, Options, phrases


def _someone(role: str) -> Options:
    """A new person who plays a role: how she or he is, what she or he is, and a name."""
    return phrases(f"[a quality] [kind:{role}_kind] [called] [name:{role}]")


GENERAL = {
    "story": phrases("[opening]\n\n[plot]"),
    "hero": _someone("hero"),
    "friend": _someone("friend"),
    "third": _someone("third"),
    "called": phrases("called", "named"),
    "said": phrases("said", "answered", "replied", "declared"),
    "cried": phrases("cried", "said", "laughed", "called"),
    "hero_keeps_it": phrases("{owner=hero}{owner_kind=hero_kind}\n\n[thing_ending]"),
    "friend_keeps_it": phrases("{owner=friend}{owner_kind=friend_kind}\n\n[thing_ending]"),
    "they_part": phrases("\n\n[friends_ending]"),
}
OPENING = {
    "opening": phrases(
        "One [weather] [day] [daytime], [hero] was [doing] [where] [scene] [place].",
        "Once upon a time there lived, [where] [scene] [place], [hero] who loved [topic] and [food].",
        "In [a trait] [colour] house [where] [place] lived [hero]. {hero.He} liked [topic], [food] and [weather] [day]s.",
        "It was [a weather] [daytime] in [month]. [A quality] [kind:hero_kind] [called] [name:hero] was [doing] [where] "
        "[scene] [place].",
        "On the [ordinal] of [month], [hero] was [doing] [where] [scene] [place].",
        "Everybody [where] [scene] [place] knew [name:hero], [a quality] [kind:hero_kind] with [a colour] [thing] and "
        "[number] [quality] cousins.",
        "Do you know [name:hero], the [quality] [kind:hero_kind] from the [scene] [place]? One [weather] [day] {hero.he} "
        "was [doing] [where] [place].",
        "Not long ago, on [a weather] [daytime] in [month], [hero] was [doing] [where] [place].",
        "There was once [hero] who had [number] [food], [a colour] [thing] and a lot of time.",
    ),
}
PLOT = {
    "plot": phrases(
        "Then {hero.he} saw that {hero.his} [trait] [colour:colour] [thing:thing] was gone. [search]",
        "Somewhere on the way {hero.he} had lost {hero.his} [trait] [colour:colour] [thing:thing]. [search]",
        "But all at once [a colour] [critter:thief] snatched {hero.his} [trait] [colour:colour] [thing:thing] and made off "
        "with it. [chase]",
        "It was the birthday of {hero.his} [kin] [name:friend], [a quality] [kind:friend_kind], and there was still no gift. "
        "[gift]",
        "In [number] days {hero.his} [kin] [name:friend], [a quality] [kind:friend_kind], would be [number] years old. [gift]",
        "{hero.He} wanted to bake [a taste] [flavour:flavour] [baked:dish] for {hero.his} [kin] [name:friend], [a quality] "
        "[kind:friend_kind], but there was no [ingredient:ingredient] in the house. [errand]",
        "{hero.He} was tired of {hero.his} [trait] [colour:colour] [thing:thing]. [trade]",
        "Suddenly somebody cried for help. It was [friend], stuck [trap]. [rescue]",
        '"Help!" cried a voice [where] [scene] [place]. It was [friend], stuck [trap]. [rescue]',
        "{hero.He} packed [number] [food], [a colour] [thing] and [a trait] [colour:colour] [thing:thing], and set off to "
        "visit {hero.his} [kin] [name:friend], [a quality] [kind:friend_kind]. [journey]",
        'A letter came from {hero.his} [kin] [name:friend], [a quality] [kind:friend_kind]. "Please come on [day]," it said, '
        '"and bring me [a trait] [colour:colour] [thing:thing]." [journey]',
        "That day there was [a contest] [where] [scene] [place]. The prize was [a trait] [colour:colour] [thing:thing]. "
        "[contest_day]",
        'A sign on the wall said: "Great [contest] on [day]! First prize: [a trait] [colour:colour] [thing:thing]." '
        "[contest_day]",
        "{hero.He} had a secret: [a trait] [colour:colour] [thing:thing] lay [hidden] [where] [scene] [place]. [secret]",
        "Then the sky grew dark, and a great storm blew down [number] trees and carried off {hero.his} [trait] "
        "[colour:colour] [thing:thing]. [shelter]",
        "All of a sudden {hero.his} [trait] [colour:colour] [breakable:thing] broke in two. [mend]",
        "{hero.He} wanted to build [a trait] [built:built], but had only [number] [parts]. [build]",
        'There, [hidden], lay an old map. "Go [number] steps past the [place], turn left at the [place] and dig [where] '
        '[scene] [place]," it said. [treasure]',
        'Just then [friend] came along. "May I borrow your [trait] [colour:colour] [thing:thing]?" {friend.he} asked '
        '[manner]. "I will bring it back on [day:promise]." [lend]',
        "More than anything {hero.he} wished for [a trait] [colour:colour] [thing:thing]. [earn]",
    ),
    # lost and stolen
    "search": phrases(
        "{hero} looked [where] [place], [where] [place] and [where] [scene] [place], but it was not there. [ask]",
        "{hero.He} searched the [place] and the [place], but found only [number] [food] and [a colour] [thing]. [ask]",
        "For [number] [unit] {hero} searched [where] [place] and [where] [scene] [place]. [ask]",
    ),
    "ask": phrases(
        '"Have you seen my {colour} {thing}?" {hero.he} asked [friend]. [answer]',
        'Then {hero.he} met [friend]. "Have you seen {a colour} {thing}?" {hero} asked. [answer]',
    ),
    "answer": phrases(
        '"I saw [a critter:thief] carry it to the [scene] [place]," {friend} [said] [manner]. They ran there together, and '
        "the {thief} gave it back for [number] [food].[hero_keeps_it]",
        '"Look [hidden]," {friend} [said] [manner]. And there it was, next to [number] [food] and [a colour] [thing]!'
        "[hero_keeps_it]",
        '"Is it this [colour] one?" {friend} asked [manner]. "No, mine is {colour}," {hero} [said]. So they searched '
        "together and found it [hidden] [where] [place].[hero_keeps_it]",
        '"I found it [hidden] on [day]," {friend} [said] [manner], and {hero} thanked {friend.him} with [number] [food].'
        "[hero_keeps_it]",
    ),
    "chase": phrases(
        "The {thief} raced past the [place], the [place] and the [scene] [place], until [friend] stopped it with [number] "
        "[food]. [thanks]",
        "{hero} followed it as far as the [scene] [place]. There [friend] caught the {thief} with [a colour] [thing]. "
        "[thanks]",
    ),
    "thanks": phrases(
        '"[exclaim]!" {hero} [cried] [manner] and hugged the {thing}.[hero_keeps_it]',
        "So {hero} got the {thing} back, and {friend} got [number] [food].[hero_keeps_it]",
    ),
    # gift
    "gift": phrases(
        "At the market {hero} saw [a colour:colour] [thing:thing] for [number] coins and [a trait] [colour:colour2] "
        "[thing:thing2] for [number]. {hero.He} took the [taken]",
        "{hero} had only [number] coins, so {hero.he} swapped [number] [food] and [a colour] [thing] for [a trait] "
        "[colour:colour] [thing:thing]. [give]",
        "For [number] [unit] {hero} worked in secret, with [stuff], [stuff] and [stuff], and made [a trait] [colour:colour] "
        "[thing:thing]. [give]",
    ),
    "taken": phrases("{thing}. [give]", "{thing2}. {colour=colour2}{thing=thing2}[give]"),
    "give": phrases(
        '{friend} opened the box [manner]. "[exclaim]!" {friend.he} [cried]. "{A colour} {thing} is just what I wanted."'
        "[friend_keeps_it]",
        '"[exclaim]!" {friend} [cried] and put the {colour} {thing} [spot] at once.[friend_keeps_it]',
    ),
    # baking
    "errand": phrases(
        "So {hero} knocked at the door of [third], who gave {hero.him} [number] spoons of {ingredient}. [eat]",
        '"Take [number] spoons of mine," [said] [third], "but save me a piece of that {dish}." [eat]',
        "Luckily [third] had plenty of {ingredient} and gave {hero.him} some for [number] [food]. [eat]",
    ),
    "eat": phrases(
        "At [hour] o'clock the {flavour} {dish} was ready. {friend} ate [number] pieces, and {third} ate [number].[they_part]",
        "{friend} came with [number] [food], {third} brought [a colour] [thing], and together they ate the whole {dish}."
        "[they_part]",
        '"It smells of [flavour] and {flavour}," {friend} [said] [manner], and {hero.his} other guests, {third}, [name] and '
        "[name], wanted [number] pieces each.[they_part]",
    ),
    # trade
    "trade": phrases(
        "So {hero.he} swapped it with [friend] for [a trait] [colour:colour2] [thing:thing2]. [trade_on]",
        '"I will give you my [colour:colour2] [thing:thing2] for it," [said] [friend] [manner]. {hero} agreed. [trade_on]',
    ),
    "trade_on": phrases(
        "Then {hero.he} swapped the {thing2} with [third] for [a trait] [colour:colour3] [thing:thing3]. So now {friend} has "
        "the {thing}, {third} has the {thing2}, and {hero} has the {thing3}.{colour=colour3}{thing=thing3}[hero_keeps_it]",
        "But by [day] {hero.he} missed the {colour} {thing}. {friend} gave it back for [number] [food], and kept the {thing2} "
        "too.[hero_keeps_it]",
        "On [day] {hero.he} used the {thing2} [where] [place], and {friend} took the {thing} to the [scene] [place]. Both were "
        "happy.{colour=colour2}{thing=thing2}[hero_keeps_it]",
    ),
    # rescue
    "rescue": phrases(
        "{hero} ran to the [place] and came back with [a trait] [tool:tool] and [third]. They pulled [manner], and after "
        "[number] minutes {friend} was free. [reward]",
        "{hero} held out [a trait] [tool:tool], but it was too short. So {hero.he} fetched [a trait] [tool:tool2], and "
        "{friend} held on to the {tool2} until {friend.he} was safe. [reward]",
    ),
    "reward": phrases(
        '"Please take my [trait] [colour:colour] [thing:thing]," {friend} [said] [manner].[hero_keeps_it]',
        '"I will bring you [number] [food] every [day]," {friend} [said] [manner].[they_part]',
    ),
    # journey
    "journey": phrases(
        "{hero} walked for [number] [unit], past the [place], the [place] and the [scene] [place]. [arrive]",
        "On the way {hero.he} met [a quality] [kind:third_kind] who wanted the {thing}. \"No,\" {hero} [said] [manner], \"it is "
        'for {friend}." [arrive]',
        "At the [scene] [place] {hero} lost the way, but [third] showed {hero.him} a path behind the [place]. [arrive]",
    ),
    "arrive": phrases(
        '{friend} was [doing] when {hero} arrived. "[exclaim]!" {friend.he} [cried] and put the {colour} {thing} [spot].'
        "[friend_keeps_it]",
        '"[exclaim]!" {friend} [cried] when {hero} gave {friend.him} the {colour} {thing}, and they ate [number] [food].'
        "[friend_keeps_it]",
    ),
    # contest
    "contest_day": phrases(
        "{hero} practised for [number] [unit], but [friend] was just as good. [finish]",
        "There were [number] others, and the best of them was [friend]. [finish]",
    ),
    "finish": phrases(
        'In the end {hero} won by [number] points. "You were [quality] and [quality]," {friend} [said] [manner].'
        "[hero_keeps_it]",
        "In the end {friend} won by [number] points, and {hero} shook hands with {friend.him} [manner].[friend_keeps_it]",
        "In the end they both had [number] points. So {hero} has the {colour} {thing} on [day]s, and {friend} has it on "
        "[day]s.[they_part]",
    ),
    # secret
    "secret": phrases(
        'On [day] {hero} showed it to [friend]. "I will tell nobody," {friend.he} [said] [manner]. [promise_kept]',
        "Only [friend] knew about it. [promise_kept]",
    ),
    "promise_kept": phrases(
        "But on [day] the {thing} was gone! \"I put it [spot],\" {friend} [said] [manner], \"so that it would not get wet.\""
        "[hero_keeps_it]",
        "For [number] [unit] {friend} kept the secret. Then {hero} gave the {colour} {thing} to {friend.him} for being so "
        "[quality] and [quality].[friend_keeps_it]",
    ),
    # storm
    "shelter": phrases(
        "{hero} ran to the house of [friend] and got [number] [food], hot [vegetable] soup and [a colour] blanket. [afterwards]",
        '"Come in!" [cried] [friend]. They ate [vegetable] soup and talked about [topic] and [topic]. [afterwards]',
    ),
    "afterwards": phrases(
        "On [day] they found the {thing} [hidden] [where] [scene] [place].[hero_keeps_it]",
        "The {thing} was gone for good, but {friend} gave {hero.him} [a trait] [colour:colour] [thing:thing] instead."
        "[hero_keeps_it]",
    ),
    # repair
    "mend": phrases(
        '"I can mend it with [stuff] and [stuff]," [said] [friend] [manner]. It took [number] [unit]. [pay]',
        "{hero} tried [stuff], [stuff] and [stuff], but nothing held. Then [friend] mended it with [stuff]. [pay]",
    ),
    "pay": phrases(
        '"What do I owe you?" {hero} asked. "Just [number] [food]," {friend} [said] [manner].[hero_keeps_it]',
        "{hero} gave {friend.him} [number] [food] and [a colour] [thing] for the work.[hero_keeps_it]",
    ),
    # building
    "build": phrases(
        "On [day] [friend] brought [number] [parts], on [day] [third] brought [number] [parts], and [name] had [colour:colour] "
        "paint. [done]",
        '"I have [number] [parts]," [said] [friend]. "And I have [number] [parts] and [colour:colour] paint," [said] [third]. '
        "[done]",
    ),
    "done": phrases(
        "After [number] [unit] the {built} was ready, {colour} all over. \"[exclaim]!\" {friend} [cried] [manner].[they_part]",
        "They worked for [number] [unit]. Now the {colour} {built} stands [where] [scene] [place].[they_part]",
    ),
    # treasure
    "treasure": phrases(
        "{hero} fetched [friend] and a spade. After [number] [unit] they found a box with [number] coins and [a trait] "
        "[colour:colour] [thing:thing]. [share]",
        "{hero} dug with [friend] until [hour] o'clock. All they found was [a trait] [colour:colour] [thing:thing] and "
        "[number] buttons. [share]",
    ),
    "share": phrases(
        "{hero} kept the {thing}, and {friend} took the rest.[hero_keeps_it]",
        "{friend} kept the {thing}, and {hero} took the rest.[friend_keeps_it]",
    ),
    # loan
    "lend": phrases(
        "{hero} lent it to {friend.him}. And on {promise}, at [hour] o'clock, {friend} was back with the {thing} and [number] "
        "[food].[hero_keeps_it]",
        "But on {promise} nobody came. {hero} waited for [number] [unit]. \"[A critter] had hidden it [hidden],\" {friend} [said] "
        "when {friend.he} brought it back at last.[hero_keeps_it]",
    ),
    # work
    "earn": phrases(
        '"Wash my [number] windows and pick [number] [food], and you can have mine," [said] [friend] [manner]. [earned]',
        "{hero} worked for [friend], painted [number] fences, fed [number] hens and picked [number] [food]. [earned]",
    ),
    "earned": phrases(
        "After [number] [unit] the {colour} {thing} was {hero.his} own.[hero_keeps_it]",
        '"[exclaim]!" {hero} [cried] when {friend} gave {hero.him} the {colour} {thing} on [day].[hero_keeps_it]',
    ),
}
ENDING = {
    "friends_ending": phrases(
        "After that, {hero} and {friend} met every [day] [where] [place] and talked about [topic] and [topic].",
        "They sang until [hour] o'clock, and then {hero} walked home past the [scene] [place], [feeling] and [feeling].",
        "That night {hero} dreamed of [topic], [topic] and [a colour] [thing].",
        '"[A quality] friend is worth more than [number] [food]," {hero} [said] [manner].',
        "And since that [day] they have been best friends, the [quality] {hero_kind} and the [quality] {friend_kind}.",
    ),
    "thing_ending": phrases(
        "To this day {owner} keeps the {colour} {thing} [spot], next to [a trait] [colour] [thing].",
        "That night the {colour} {thing} lay [spot], and {owner} dreamed of [topic] and [topic].",
        "If you ever pass the [scene] [place], look for {a owner_kind} with {a colour} {thing}, and say hello to {owner}.",
        "Since then the {thing} has had its place [spot], and every [day] {owner} shows it to [name] and [name].",
        '"[A quality] friend is worth more than [number] [food]," {hero} told {friend} [manner].',
        "And if the {colour} {thing} has not got lost, {owner} still has it [spot], between [a colour] [thing] and [number] "
        "[food].",
        "From then on {hero} and {friend} met every [day] [where] [place] and talked about [topic] and [topic].",
    ),
}
WORDS = {name.lower(): options for name, options in vars(w).items() if isinstance(options, Options)}
GRAMMAR = Grammar(GENERAL | OPENING | PLOT | ENDING | WORDS, w.PRONOUNS, start="story")
