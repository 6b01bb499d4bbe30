// The sampler of modeling/sampling.py again, in the browser: the same order, meaning and rounding.
// Settings: {temperature, top_k, top_p, min_p, typical_p, repetition_penalty}.
const round = Math.fround;
const SMALLEST = 2 ** -126;

function penalised(logits, seen, penalty) {
  if (penalty === 1 || !seen.length) return logits;
  const scores = Float32Array.from(logits);
  const factor = round(penalty);
  for (const id of new Set(seen)) scores[id] = scores[id] < 0 ? scores[id] * factor : scores[id] / factor;
  return scores;
}

// Ids from the highest score to the lowest; the lower id first where scores are equal.
function ranked(scores) {
  return Uint32Array.from(scores.keys()).sort((one, other) => scores[other] - scores[one] || one - other);
}

// Probabilities of the first `count` ranks.
function softmax(scores, order, count, temperature) {
  const most = scores[order[0]];
  const divisor = round(Math.max(temperature, SMALLEST));
  const weights = new Float32Array(count);
  let total = 0;
  for (let rank = 0; rank < count; rank++) {
    let score = round(scores[order[rank]] - most);
    if (temperature !== 1) score = round(score / divisor);
    weights[rank] = Math.exp(score);
    total += weights[rank];
  }
  for (let rank = 0; rank < count; rank++) weights[rank] /= total;
  return weights;
}

function typical(probabilities, mass) {
  const total = probabilities.reduce((sum, each) => sum + each, 0);
  let entropy = 0;
  for (const each of probabilities) if (each > 0) entropy -= (each / total) * Math.log(each / total);
  const distances = Float64Array.from(probabilities, (each) => Math.abs(-Math.log(each / total) - entropy));
  const order = Uint32Array.from(distances.keys()).sort((one, other) => distances[one] - distances[other]);
  let last = 0;
  for (let sum = 0; last < order.length - 1; last++) {
    sum += probabilities[order[last]] / total;
    if (sum >= mass) break;
  }
  return distances.map((distance) => distance <= distances[order[last]]);
}

// What `sample` needs again for the same logits and penalty: sorting is what takes time.
let sorted = {};

window.scratch.sampler = {
  ranked,

  // {probability: Float32Array over the vocabulary, isKept: Uint8Array, kept: how many tokens there are to draw from}
  sample(logits, settings, seen) {
    const { temperature, top_k: k, top_p: mass, min_p: floor, repetition_penalty: penalty } = settings;
    if (sorted.logits !== logits || sorted.seen !== seen || sorted.penalty !== penalty) {
      const scores = penalised(logits, seen, penalty);
      sorted = { logits, seen, penalty, scores, order: ranked(scores) };
    }
    const { scores, order } = sorted;
    const probability = new Float32Array(logits.length);
    const isKept = new Uint8Array(logits.length);
    if (temperature === 0) {
      probability[order[0]] = isKept[order[0]] = 1;
      return { probability, isKept, kept: 1 };
    }
    let count = order.length;
    if (k > 0 && k < count) {
      count = k;
      while (count < order.length && scores[order[count]] === scores[order[k - 1]]) count++;
    }
    const ranks = softmax(scores, order, count, temperature);
    let cut = count;
    if (mass < 1) {
      cut = 0;
      for (let sum = 0; cut < count; ) {
        sum += ranks[cut++];
        if (sum >= mass) break;
      }
    }
    if (floor > 0) {
      const least = round(round(floor) * ranks[0]);
      while (cut > 0 && ranks[cut - 1] < least) cut--;
    }
    const likeliest = ranks.subarray(0, cut);
    const stays = settings.typical_p < 1 && cut > 1 ? typical(likeliest, settings.typical_p) : null;
    let kept = 0;
    let total = 0;
    for (let rank = 0; rank < cut; rank++) {
      if (stays && !stays[rank]) continue;
      kept++;
      total += likeliest[rank];
      isKept[order[rank]] = 1;
    }
    for (let rank = 0; rank < cut; rank++) if (isKept[order[rank]]) probability[order[rank]] = likeliest[rank] / total;
    return { probability, isKept, kept };
  },

  // The probabilities alone.
  distribution(logits, settings, seen = []) {
    return window.scratch.sampler.sample(logits, settings, seen).probability;
  },
};
