// Cyclic ranking with points that can be moved: whom the anchor asks, what they answer, who is taken as the negative.
// `walk` does it, `draw` shows it; the rest is dragging. Runs in a page, and under node for the tests.
"use strict";

const SCALE = 118, MIDDLE = [0.15, -0.15], CENTRE = 210, EDGE = 1.6;

// Places of all spots by their distance to spot i, nearest first; ties in the order of the list.
function ranked(spots, i) {
  const distance = spots.map(([x, y]) => Math.hypot(x - spots[i][0], y - spots[i][1]));
  return [...spots.keys()].sort((a, b) => distance[a] - distance[b] || a - b);
}

// Who is asked, nearest first, with what each answers: {steps: [{candidate, list, lists}], negative}, -1 for nobody.
function walk({ spots, anchor, r, itself }) {
  const steps = [];
  for (const candidate of ranked(spots, anchor).filter((j) => j !== anchor).slice(0, 15)) {
    const list = ranked(spots, candidate).filter((j) => itself || j !== candidate).slice(0, r);
    const lists = list.includes(anchor);
    steps.push({ candidate, list, lists });
    if (!lists) return { steps, negative: candidate };
  }
  return { steps, negative: -1 };
}

function place([x, y]) {
  return [CENTRE + SCALE * (x - MIDDLE[0]), CENTRE - SCALE * (y - MIDDLE[1])].map((value) => value.toFixed(1));
}

// The state as a picture and a list of answers, both HTML.
function draw(state) {
  const { spots, anchor } = state, { steps, negative } = walk(state);
  const name = (j) => (j === anchor ? "★" : String(j + 1));
  const line = (a, b, kind) => {
    const [x1, y1] = place(spots[a]), [x2, y2] = place(spots[b]);
    return a === b ? "" : `<line class="${kind}" x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}"/>`;
  };
  const answers = steps.flatMap(({ candidate, list }) =>
    list.map((j) => line(candidate, j, j === anchor ? "back" : "other")));
  const dots = spots.map((spot, j) => {
    const [x, y] = place(spot);
    const asked = steps.some(({ candidate }) => candidate === j);
    const kind = j === anchor ? "anchor" : j === negative ? "negative" : asked ? "asked" : "";
    const role = { anchor: ", the anchor", negative: ", the negative", asked: ", passed over" }[kind] || "";
    return `<g class="spot ${kind}" data-spot="${j}" tabindex="0" role="button" aria-label="image ${j + 1}${role}">` +
      `<circle cx="${x}" cy="${y}" r="14"/><text x="${x}" y="${(+y + 5).toFixed(1)}">${name(j)}</text></g>`;
  });
  const list = steps.map(({ candidate, list: nearest, lists }) =>
    `<li>${name(candidate)} lists ${nearest.map(name).join(", ") || "nobody"}: ` +
    (lists ? "the anchor is there, go on" : "<b>not the anchor, so it is the negative</b>") + "</li>");
  const end = negative < 0 ? "<li><b>everybody lists the anchor: no negative</b></li>" : "";
  return `<div class="picture"><svg viewBox="0 0 420 420" role="group" aria-label="Images as points in the plane">` +
    `${answers.join("")}${dots.join("")}</svg></div><ol class="said" aria-live="polite">${list.join("")}${end}</ol>`;
}

function start({ spots }) {
  return { spots: spots.map((spot) => [...spot]), anchor: 0, r: 3, itself: true };
}

// Points are dragged, or moved by arrow keys once they have the focus; Enter or a double click makes one the anchor.
function mount(box, data) {
  let state = start(data), dragged = -1;
  const show = document.createElement("div"), controls = document.createElement("div");
  controls.className = "controls";
  controls.innerHTML = `<label>length of a candidate's list r <output>${state.r}</output>` +
    `<input type="range" min="1" max="8" value="${state.r}"></label>` +
    '<label><input type="checkbox" checked> a candidate counts itself, as in the released code</label>' +
    '<button type="button">as it was</button>' +
    "<p>Drag a point, or move it with the arrow keys; Enter or a double click makes it the anchor.</p>";
  const [length, counts, value] = ["input[type=range]", "input[type=checkbox]", "output"].map((one) => controls.querySelector(one));
  const redraw = () => {
    const focused = document.activeElement?.dataset?.spot;
    show.innerHTML = draw(state);
    if (focused !== undefined) show.querySelector(`[data-spot="${focused}"]`).focus({ preventScroll: true });
  };
  const move = (j, x, y) => {
    state.spots[j] = [x, y].map((value, axis) => Math.max(MIDDLE[axis] - EDGE, Math.min(MIDDLE[axis] + EDGE, value)));
    redraw();
  };
  const spotOf = (event) => Number(event.target.closest("[data-spot]")?.dataset.spot ?? -1);
  length.addEventListener("input", () => { state.r = Number(length.value); value.textContent = state.r; redraw(); });
  counts.addEventListener("change", () => { state.itself = counts.checked; redraw(); });
  controls.querySelector("button").addEventListener("click", () => {
    state = start(data);
    length.value = value.textContent = state.r;
    counts.checked = state.itself;
    redraw();
  });
  show.addEventListener("pointerdown", (event) => {
    dragged = spotOf(event);
    if (dragged >= 0) { show.querySelector(`[data-spot="${dragged}"]`).focus({ preventScroll: true }); event.preventDefault(); }
  });
  window.addEventListener("pointermove", (event) => {
    if (dragged < 0) return;
    const frame = show.querySelector("svg").getBoundingClientRect(), unit = frame.width / 420;
    move(dragged, ((event.clientX - frame.left) / unit - CENTRE) / SCALE + MIDDLE[0],
      (CENTRE - (event.clientY - frame.top) / unit) / SCALE + MIDDLE[1]);
  });
  for (const end of ["pointerup", "pointercancel"]) window.addEventListener(end, () => { dragged = -1; });
  show.addEventListener("dblclick", (event) => {
    if (spotOf(event) >= 0) { state.anchor = spotOf(event); redraw(); }
  });
  show.addEventListener("keydown", (event) => {
    const j = spotOf(event), by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (j < 0) return;
    if (by) move(j, state.spots[j][0] + 0.05 * by[0], state.spots[j][1] + 0.05 * by[1]);
    else if (event.key === "Enter") { state.anchor = j; redraw(); }
    else return;
    event.preventDefault();
  });
  box.replaceChildren(show, controls);
  redraw();
}
