// What is wrong with the visible page: text that is hard to read, controls without a name, a page wider than its screen.
() => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const backgroundOf = (element) => {
    const layers = [];
    for (let node = element; node; node = node.parentElement) layers.push(rgba(getComputedStyle(node).backgroundColor));
    return layers.reverse().reduce((under, top) => (top[3] > 0 ? over(top, under) : under), [255, 255, 255, 1]);
  };
  const luminance = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [light, dark] = [luminance(a), luminance(b)].sort((x, y) => y - x);
    return (light + 0.05) / (dark + 0.05);
  };
  const isVisible = (element) =>
    element.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && element.getClientRects().length > 0;
  const tell = (element) => {
    const words = (element.innerText || element.value || element.placeholder || "").trim().slice(0, 40);
    const place = element.closest("[id]");
    return `<${element.tagName.toLowerCase()} class="${element.className}"> "${words}" in #${place ? place.id : ""}`;
  };
  const problems = [];
  const ours = [...document.querySelectorAll(".gradio-container main *")].filter(isVisible);
  for (const element of ours) {
    const texts = [...element.childNodes].filter((node) => node.nodeType === 3 && node.data.trim());
    const disabled = element.closest(":disabled, [aria-disabled='true'], [aria-hidden='true'], svg");
    if (!texts.length || disabled) continue;
    const style = getComputedStyle(element);
    const background = backgroundOf(element);
    const ratio = contrast(over(rgba(style.color), background), background);
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.6 && +style.fontWeight >= 700);
    if (ratio < (isLarge ? 3 : 4.5) - 0.01) problems.push(`contrast ${ratio.toFixed(2)}: ${tell(element)}`);
  }
  const controls = "button, input, textarea, select, [role='button'], [role='tab'], [role='slider'], [tabindex='0']";
  for (const element of ours.filter((element) => element.matches(controls))) {
    const labelled = (element.getAttribute("aria-labelledby") ?? "").split(" ").map((id) => document.getElementById(id));
    const names = [
      element.getAttribute("aria-label"), ...labelled.map((label) => label?.innerText), element.innerText,
      ...[...(element.labels ?? [])].map((label) => label.innerText), element.title, element.alt,
    ];
    if (!names.some((name) => name?.trim())) problems.push(`no name: ${tell(element)}`);
  }
  const { scrollWidth, clientWidth } = document.documentElement;
  if (scrollWidth > clientWidth) {
    const widest = ours.filter((element) => element.getBoundingClientRect().right > clientWidth + 1
      && ![...element.children].some((child) => child.getBoundingClientRect().right > clientWidth + 1));
    problems.push(`${scrollWidth} px wide on ${clientWidth}: ${widest.slice(0, 3).map(tell).join("; ")}`);
  }
  return problems;
}
