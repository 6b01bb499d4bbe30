"""The steps of the guided tour as HTML. All of them are in the page at once; `tab.js` shows one after the other."""

from __future__ import annotations

import json

from panels.formats import percent
from panels.tabs.tour.tour import DIMENSIONS, Tour
from panels.templates import render

STEPS = ("Tokens", "Embeddings", "Layers", "Attention", "Odds", "Next token")

TOUR = """
{% macro to(tab, words, into='', press='', choose='', if_empty=false) %}
<p class="more"><a href="#{{ tab }}" data-opens="{{ tab }}"
  {% if into %}data-into="{{ into }}" data-text="{{ tour.text }}"{% endif %}
  {% if choose %}data-choose="{{ choose }}"{% endif %} {% if press %}data-press="{{ press }}"{% endif %}
  {{ 'data-if-empty' if if_empty }}><b>{{ tab }}</b> {{ words }}</a></p>
{% endmacro %}
{% macro begin(number) %}
<article class="step" aria-labelledby="tour-step-{{ number }}"{{ ' hidden' if number > 1 }}>
  <h2 id="tour-step-{{ number }}" tabindex="-1">{{ number }}. {{ steps[number - 1] }}</h2>
{% endmacro %}
{% macro token(label) %}<span class="token">{{ label }}</span>{% endmacro %}
<section class="tour" aria-label="Guided tour" data-seed="{{ tour.draw.seed }}" data-text="{{ tour.text }}">
  <nav aria-label="Steps of the tour"><ol>
  {% for name in steps %}
    <li><button type="button" data-step="{{ loop.index0 }}"{{ ' aria-current=step' if loop.first }}><i>{{
      loop.index }}</i> <span>{{ name }}</span></button></li>
  {% endfor %}
  </ol></nav>

  {{ begin(1) }}
  <p>A language model does not read letters. Its tokenizer cuts the text into <b>tokens</b>: pieces of text, each with a
    number, its id. This one knows {{ number(tour.vocabulary) }} of them, and the ids are all that the model gets.</p>
  <p class="tokens" dir="auto">{% for each in tour.tokens %}<span class="token{{ ' added' if each.is_added }}">{{
    each.label }}<small>{{ each.token_id }}</small></span>{% endfor %}</p>
  <p class="quiet">{{ counted(tour.text | length, 'character') }} became {{ counted(own, 'token') }}; ␣ is a space, ↵ a
    line break.{% for each in tour.tokens if each.is_added %} The model puts {{ token(each.label) }} in front of every
    text, as a sign that one begins.{% endfor %}</p>
  {{ to('Tokens', 'shows how the tokenizer made these pieces, merge by merge', '#tokens-text') }}
  </article>

  {{ begin(2) }}
  <p>Each id selects one row of a table that the training has filled: the token's <b>embedding</b>, a vector of {{
    number(tour.width) }} numbers. Tokens that occur in similar places get similar vectors. Behind each token are the
    tokens most like it, with the cosine similarity of the two vectors: 1 for the same direction, 0 for a right
    angle.</p>
  <div class="scroll"><table class="vectors" data-numbers="{{ numbers }}">
    <thead><tr><th scope="col">token</th><th scope="col">{{ 'its numbers' if shown == tour.width else
      'the first ' ~ shown ~ ' of its numbers' }}</th><th scope="col">most similar tokens</th></tr></thead>
    <tbody>
    {% for each in tour.tokens %}
      <tr><th scope="row">{{ token(each.label) }}</th>
      <td><canvas aria-hidden="true"></canvas><small>{% for value in tour.embeddings[loop.index0].numbers[:3] %}{{
        '%.2f' | format(value) | replace('-', '−') }}, {% endfor %}…</small></td>
      <td>{% for label, cosine in tour.embeddings[loop.index0].nearest %}<span class="similar">{{ token(label) }} {{
        '%.2f' | format(cosine) | replace('-', '−') }}</span> {% endfor %}</td></tr>
    {% endfor %}
    </tbody>
  </table></div>
  <p class="quiet">Teal stands for positive numbers, orange for negative ones, and the darker, the further from 0.</p>
  {{ to('About', 'shows how much of the model this table is') }}
  </article>

  {{ begin(3) }}
  {% if lens %}
  <p>The vectors pass through {{ counted(lens | length - 1, 'layer') }}, and each layer adds something to them. What the
    model will say next is read off the vector of the <b>last token</b>, {{ token(tour.tokens[-1].label) }}. The
    <b>logit lens</b> reads it after every layer already, as if that were the last one: watch the prediction form.</p>
  <div class="scroll"><table class="layers">
    <thead><tr><th scope="col">after</th><th scope="col" colspan="{{ lens[0] | length }}">most likely next tokens</th>
    </tr></thead><tbody>
    {% for row in lens %}
      <tr><th scope="row">{{ 'the embedding' if loop.first else 'layer ' ~ loop.index0 }}</th>
      {% for label, share, text in row %}<td style="--share:{{ '%.3f' | format(share) }}">{{ token(label) }} <small>{{
        text }}</small></td>{% endfor %}</tr>
    {% endfor %}
    </tbody>
  </table></div>
  <p class="quiet">The last row is the model's answer; step 5 shows more of it. {{ '' if lens[0][0][0] !=
    tour.tokens[-1].label else 'Before the first layer the likeliest token is the last one itself: its vector is its own
    embedding.' }}</p>
  {% else %}<p class="missing">This model does not let us look: {{ tour.layers }}.</p>{% endif %}
  {{ to('Inside', 'shows this for every token: its view Logit lens', '#inside-text', '#look-inside', 'Logit lens') }}
  </article>

  {{ begin(4) }}
  {% if attention %}
  <p>How does the last token, {{ token(tour.tokens[-1].label) }}, come to know what stands before it? By
    <b>attention</b>: in every layer, each of {{ counted(tour.attention.heads, 'head') }} takes information from the
    tokens up to here and weighs them, so that the weights add up to 100 %. The table has the mean over the heads.</p>
  <div class="scroll"><table class="attended">
    <thead><tr><th scope="col">token</th>
    {% for row in attention %}<th scope="col">layer {{ loop.index }}</th>{% endfor %}</tr></thead><tbody>
    {% for each in tour.tokens %}{% set place = loop.index0 %}
      <tr><th scope="row">{{ token(each.label) }}</th>{% for row in attention %}<td style="--share:{{
        '%.3f' | format(row[place]) }}">{{ '%.0f' | format(100 * row[place]) }} %</td>{% endfor %}</tr>
    {% endfor %}
    </tbody>
  </table></div>
  {% if tour.attention.strongest %}
  <p class="quiet">Single heads are more particular than their mean. The strongest one in each layer, the first and the
    last token apart:
    {% for head, place, weight in tour.attention.strongest %}layer {{ loop.index }}, head {{ head + 1 }}, takes {{
      percent(weight) }} from {{ token(tour.tokens[place].label) }}{{ '.' if loop.last else '; ' }}{% endfor %}</p>
  {% endif %}
  {% else %}<p class="missing">This model does not let us look: {{ tour.attention }}.</p>{% endif %}
  {{ to('Inside', 'shows each head for each token: its view Attention', '#inside-text', '#look-inside', 'Attention') }}
  </article>

  {{ begin(5) }}
  <p>Behind the last layer, the vector becomes one score, a <b>logit</b>, for each of the {{ number(tour.vocabulary) }}
    tokens, and the softmax function turns the scores into probabilities: the odds of the <b>next token</b>. Before one
    is drawn, the sampler changes them: {{ sampler }}</p>
  <table class="odds">
    <thead><tr><th scope="col">next token</th><td></td><th scope="col">model</th><th scope="col">sampler</th></tr>
    </thead>
    <tbody>
    {% for each in tour.following %}
      <tr class="{{ 'cut' if not each.sampled }}"><th scope="row">{{ token(each.label) }}</th>
      <td class="bars" aria-hidden="true"><i style="width:{{ hundredths(each.probability / widest) }}%"></i><i
        style="width:{{ hundredths(each.sampled / widest) }}%"></i></td>
      <td>{{ percent(each.probability) }}</td><td>{{ percent(each.sampled) if each.sampled else 'cut' }}</td></tr>
    {% endfor %}
    </tbody>
    <tfoot><tr><th scope="row">the others</th><td></td><td>{{ percent(others[0]) }}</td><td>{{ percent(others[1])
    }}</td></tr></tfoot>
  </table>
  <p class="quiet">The sampler may draw {{ counted(tour.kept, 'token') }} of {{ number(tour.vocabulary) }} here.</p>
  {{ to('Write', 'redraws these odds while you move temperature, top-k and top-p', '#document', if_empty=true) }}
  </article>

  {{ begin(6) }}
  {% if tour.draw.uniform is none %}
  <p>At temperature 0 nothing is left to chance: the most likely token is taken.</p>
  {% else %}
  <p>Now chance decides. The sampler's tokens lie side by side on a line from 0 to 1, each as long as its probability. A
    random number is drawn, <b>{{ '%.4f' | format(tour.draw.uniform) }}</b> (with the seed {{ tour.draw.seed }}), and
    the token where it falls is the next one: {{ token(tour.draw.label) }}, which had a chance of {{
    percent(tour.draw.probability) }}.</p>
  <div class="line" role="img" aria-label="The random number {{ '%.4f' | format(tour.draw.uniform) }} falls on {{
    tour.draw.label }}">
    {% for each in tour.draw.segments %}<span class="{{ 'drawn' if each.is_drawn }}" style="width:{{
      hundredths(each.end - each.start) }}%" title="{{ each.label }}"><b>{{ each.label }}</b></span>{% endfor %}
    <i style="left:{{ hundredths(tour.draw.uniform) }}%"></i>
  </div>
  <ol class="segments">{% for each in tour.draw.segments %}
    <li class="{{ 'drawn' if each.is_drawn }}">{{ token(each.label) }} <small>{{ '%.4f' | format(each.start) }} – {{
      '%.4f' | format(each.end) }}</small></li>
  {% endfor %}</ol>
  {% endif %}
  {% if tour.draw.text is not none %}
  <p class="result" dir="auto">{{ tour.text }}<b>{{ tour.draw.text[tour.text | length:] }}</b></p>
  <p>The token goes behind the text, and all begins again at step 1. That is how a text is written: one token at a
    time.</p>
  {% elif tour.draw.ends_text %}
  <p>This token ends a text: the model would stop here.</p>
  {% else %}
  <p>This token is only a part of a character, or none that is shown: the next tokens complete it.</p>
  {% endif %}
  <p class="again">
    {% if tour.draw.text is not none %}
    <button type="button" data-again="append">Go on with this token</button>
    {% endif %}
    {% if tour.draw.uniform is not none %}
    <button type="button" data-again="draw">Draw again</button>
    {% endif %}
  </p>
  {{ to('Write', 'does this again and again, and keeps the odds of every token', '#document', if_empty=true) }}
  </article>

  <div class="walk">
    <button type="button" data-walk="back" disabled>Back</button>
    <button type="button" data-walk="on">Next: <span>{{ steps[1] }}</span></button>
    <button type="button" data-walk="leave">Leave the tour</button>
  </div>
</section>
"""


def render_tour(tour: Tour) -> str:
    """All steps of a tour; the first is the one that is shown."""
    shown = min(DIMENSIONS, tour.width)
    most = max(abs(value) for each in tour.embeddings for value in each.numbers) or 1.0
    listed = [
        sum(shares) for shares in zip(*((each.probability, each.sampled) for each in tour.following), strict=True)
    ]
    return render(
        TOUR,
        tour=tour,
        steps=STEPS,
        own=sum(not each.is_added for each in tour.tokens),
        shown=shown,
        numbers=json.dumps([[round(100 * value / most) for value in each.numbers] for each in tour.embeddings]),
        lens=None
        if isinstance(tour.layers, str)
        else [[(label, share, percent(share)) for label, share in row] for row in tour.layers],
        attention=None if isinstance(tour.attention, str) else tour.attention.mean,
        sampler=describe_sampler(tour),
        widest=max(max(each.probability, each.sampled) for each in tour.following),
        others=[max(0.0, 1 - share) for share in listed],
        percent=percent,
        number="{:,}".format,
        hundredths=lambda share: f"{100 * share:.3f}",
        counted=lambda count, unit: f"{count:,} {unit}{'' if count == 1 else 's'}",
    )


def describe_sampler(tour: Tour) -> str:
    """What the sampler's settings do, in one or two sentences."""
    settings = tour.settings
    if settings.temperature == 0:
        return "at temperature 0 it always takes the most likely one."
    found = []
    if settings.temperature != 1:
        change = "likely tokens become likelier" if settings.temperature < 1 else "unlikely tokens become likelier"
        found.append(f"a temperature of {settings.temperature:g} divides the logits, so that {change}")
    if settings.top_k:
        found.append(f"top-k keeps the {settings.top_k} most likely tokens")
    if settings.top_p < 1:
        found.append(
            f"top-p keeps the most likely tokens up to a total of {100 * settings.top_p:g} % and cuts the others"
        )
    return f"{', and '.join(found)}." if found else "here it leaves them as they are."
