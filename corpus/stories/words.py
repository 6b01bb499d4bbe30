"""The words of the story world: who and what there is, where it stands, how it looks.

Each list is drawn from uniformly, and within a story no word is drawn twice, except where a list says so. Within a list
no word begins with another.
"""

from corpus.stories.grammar import words

WOMEN = words("""Ada, Bella, Flora, Molly, Nina, Rosa""")
MEN = words("""Albert, Carl, Emil, Hugo, Leo, Otto""")
NAME = words(", ".join(WOMEN.templates + MEN.templates))

_SHE = {"he": "she", "him": "her", "his": "her", "He": "She"}
_HE = {"he": "he", "him": "him", "his": "his", "He": "He"}
PRONOUNS = {name: _SHE if name in WOMEN.templates else _HE for name in NAME.templates}

KIND = words("""badger, baker, beaver, cook, donkey, farmer, fox, gardener, hedgehog, miller, rabbit, sailor""")
VIRTUE = words("""bold, brave, bright, calm, careful, cheerful, clever, generous, gentle, graceful, helpful, honest,
    jolly, kind, lively, merry, modest, nimble, patient, playful, polite, quick, quiet, sensible, strong, thoughtful,
    tidy, wise""")
QUALITY = words("""bold, brave, bright, busy, calm, careful, cheerful, clever, clumsy, curious, dreamy, eager, earnest,
    forgetful, friendly, generous, gentle, graceful, grumpy, happy, helpful, honest, hopeful, humble, hungry, jolly,
    kind, lively, lonely, lucky, merry, messy, modest, nervous, nimble, noisy, old, patient, playful, plump, polite,
    proud, quick, quiet, restless, sensible, shy, silly, sleepy, slow, small, solemn, strong, stubborn, tall, thin,
    thoughtful, thrifty, tidy, tired, wise, young""")
KIN = words("""best friend, cousin, neighbour, old friend, pen friend, oldest cousin, youngest cousin, godchild, dancing
    partner, chess partner""")
CRITTER = words("""calf, colt, cow, crow, ferret, gull, heron, hound, jackdaw, kitten, magpie, monkey, ox, parrot,
    piglet, puppy, raccoon, ram, rat, rooster, stork, weasel""")

THING = words("""banjo, bell, blanket, clock, coat, cup, drum, fiddle, hat, kite, ladle, lamp, map, mirror, pillow,
    quilt, sled, teapot, umbrella, whistle""")
BREAKABLE = words("""banjo, bell, clock, cup, drum, fiddle, kite, ladle, lamp, mirror, sled, teapot, umbrella,
    whistle""")
TRAIT = words("""beautiful, big, charming, cheap, clean, dainty, dusty, elegant, fancy, fine, funny, handsome, handy,
    little, lovely, magnificent, neat, new, odd, old, plain, pretty, rare, shiny, simple, small, special, splendid,
    strange, sturdy, tiny, useful, wonderful""")
COLOUR = words("""black, blue, brown, green, grey, orange, purple, red, white, yellow""")

PLACE = words("""bakery, barn, beach, bookshop, brewery, bridge, canal, castle, cave, chapel, church, cottage, dairy,
    dam, factory, farm, ferry, fountain, garden, gate, greenhouse, harbour, hedge, hill, inn, lake, library, lighthouse,
    market, meadow, mill, monastery, museum, oak, observatory, orchard, palace, park, pier, playground, pond, post
    office, quarry, river, school, shipyard, smithy, stable, statue, swamp, tavern, temple, theatre, tower, toyshop,
    tunnel, vineyard, wall, waterfall, well, willow, windmill, workshop, zoo""")
SCENE = words("""ancient, beautiful, big, charming, cold, cosy, dark, enchanted, famous, forgotten, gloomy, grand,
    great, haunted, hidden, humble, huge, little, lonely, lovely, magic, misty, modest, mysterious, new, old, peaceful,
    pretty, quiet, remote, royal, secret, shady, silent, sleepy, splendid, strange, sunny, tiny, wonderful""")
WHERE = words(
    """behind the, beside the, beyond the, by the, close to the, near the, next to the, opposite the""",
    once=False,
)
HIDDEN = words("""behind a barrel, behind a bush, between two stones, in a basket, in a bird's nest, in a flower pot, in
    a heap of leaves, in a hollow log, in a puddle, in the hay, in the long grass, in the mud, in the sand, on a branch,
    on a fence, on a rock, under a bench, under a ladder, under a cart, under a hedge, under a tree""")
SPOT = words("""above the door, above the stove, behind the curtain, behind the sofa, beside the bed, beside the
    fireplace, by the window, in a corner, in a drawer, in a glass box, in the attic, in the cellar, in the cupboard, in
    the hall, in the kitchen, in the wardrobe, next to the clock, next to the mirror, on the balcony, on the shelf, on
    the stairs, on the table, on the windowsill, over the sink, under the bed, under the lamp""")

WEATHER = words("""bright, breezy, chilly, clear, cloudy, cold, cool, damp, dry, fair, foggy, fresh, gloomy, golden,
    grey, hazy, mild, misty, pleasant, rainy, sunny, warm, wet, windy""")
DAY = words("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday")
DAYTIME = words("morning, afternoon, evening")
MONTH = words("January, February, March, April, May, June, July, August, September, October, November, December")
ORDINAL = words("""first, second, third, fourth, fifth, sixth, seventh, eighth, ninth, tenth, eleventh, twelfth,
    twentieth""")
NUMBER = words(
    """two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, twenty, thirty, forty, fifty""",
    once=False,
)
HOUR = words("two, three, four, five, six, seven, eight, nine, ten, eleven, twelve", once=False)
UNIT = words("afternoons, days, evenings, hours, months, mornings, weeks", once=False)

FOOD = words("""apples, apricots, beans, beets, berries, biscuits, buns, carrots, cherries, chestnuts, cookies,
    cucumbers, dates, dumplings, figs, grapes, lemons, melons, muffins, mushrooms, nuts, onions, oranges, pancakes,
    peaches, pears, plums, potatoes, pretzels, pumpkins, radishes, rolls, scones, tarts, tomatoes, turnips, waffles,
    walnuts""")
FLAVOUR = words("""almond, apple, banana, cherry, chestnut, cinnamon, ginger, honey, lemon, nut, orange, peach, pear,
    plum, pumpkin, vanilla""")
BAKED = words("bread, cake, pie, pudding, tart")
INGREDIENT = words("butter, cream, flour, honey, milk, salt, sugar, yeast")

MANNER = words("""boldly, bravely, brightly, briskly, calmly, carefully, cheerfully, dreamily, eagerly, earnestly,
    firmly, gently, gladly, happily, hopefully, kindly, merrily, modestly, patiently, playfully, politely, promptly,
    proudly, quickly, quietly, seriously, shyly, slowly, softly, solemnly, sweetly, thoughtfully, warmly, wisely""")
EXCLAIM = words("""Amazing, At last, Bravo, Fantastic, Good heavens, Goodness, Hooray, How kind, How lovely, How
    wonderful, Hurrah, Imagine that, Just look, Marvellous, My word, Oh joy, Oh my, Perfect, Splendid, Thank you, What a
    surprise, What luck, Wonderful""")
FEELING = words("""cheerful, curious, glad, happy, hopeful, hungry, lucky, merry, proud, quiet, sleepy, thankful,
    thoughtful, tired""")
DOING = words("""chopping wood, counting clouds, dancing, digging, drawing, drinking tea, eating soup, feeding the
    birds, fishing, flying paper planes, humming, juggling, knitting, looking at the sky, making a list, mending a net,
    painting, peeling potatoes, playing cards, reading, resting, sewing, singing, sitting on a bench, skipping, standing
    on one leg, sweeping, thinking, throwing stones, waiting, washing shirts, watching the ants, watering flowers,
    whistling, writing a letter, yawning""")
TOPIC = words("""bees, bells, camels, castles, clouds, comets, crocodiles, dragons, elephants, ghosts, giants, icebergs,
    islands, jokes, kings, lions, mermaids, mountains, parrots, peacocks, penguins, pirates, planets, poems, queens,
    rainbows, rockets, shadows, ships, snowmen, songs, stars, tigers, trains, tunnels, unicorns, volcanoes, waves,
    whales, witches, wizards, wolves""")

BUILT = words("""bed, bench, birdhouse, boat, carousel, chair, cupboard, raft, rocking horse, stage, swing, table, tent,
    tree house, wagon""")
PARTS = words("""boards, bricks, hooks, logs, nails, planks, poles, ropes, screws, sheets, sticks, stones, straps,
    tiles, wheels""")
STUFF = words("""chalk, clay, cloth, copper, cotton, glue, leather, paper, resin, rubber, straw, string, tape, tar,
    thread, tin, varnish, wax, wire, wool""")
TOOL = words("beam, branch, broom, chain, fishing rod, ladder, net, oar, plank, pole, rake, rope")
TRAP = words("""at the bottom of a well, high up in a tree, in a chimney, in a deep hole, in a ditch, in a fishing net,
    in a hollow log, in the mud, on a roof, on a thin branch, on a tiny island, on top of a haystack, under a bench""")
CONTEST = words("""chess, cooking, dancing, drawing, fishing, juggling, jumping, knitting, painting, poetry, riddle,
    rowing, running, sewing, singing, skipping, sweeping, swimming, whistling, yodelling""")
