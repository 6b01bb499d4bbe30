// The shade of a token, 0 to 4, from its probability: the steps are those of the legend (panels/components/surprise.py).
window.scratch.surprise = {
  bits: (probability) => (probability > 0 ? -Math.log2(probability) : Infinity),
  step(probability) {
    const legend = document.querySelector(".surprise-legend");
    const steps = legend ? JSON.parse(legend.dataset.steps) : [];
    return steps.filter((step) => window.scratch.surprise.bits(probability) >= step).length;
  },
};
