// PEDAL on a circle: which entries of the bank one patch is pulled to and pushed from, and what the loss is.
// `pedal` says it in numbers, `draw` in a picture; the rest is sliders. Runs in a page, and under node for the tests.
"use strict";

const CENTRE = 210, RADIUS = 160;

// The entry for [x, y] on the unit circle at an angle in degrees.
function onCircle(degrees) {
  const angle = (degrees * Math.PI) / 180;
  return [Math.cos(angle), Math.sin(angle)];
}

function logSumExp(values) {
  const top = Math.max(...values);
  return top + Math.log(values.reduce((sum, value) => sum + Math.exp(value - top), 0));
}

// The loss of one patch at `angle`, whose own entry is entries[0]: {loss, near, p, q, turn}.
// near: places of the k nearest; p and q: the shares of probability, 0 where an entry takes no part;
// turn: how fast a step against the gradient turns the patch, counterclockwise.
function pedal({ entries, angle, s, k, push, own }) {
  const x = onCircle(angle), w = entries.map(onCircle);
  const score = w.map(([a, b]) => (-s / 2) * ((x[0] - a) ** 2 + (x[1] - b) ** 2));
  const part = [...w.keys()].filter((j) => own || j !== 0);
  const near = [...part].sort((a, b) => score[b] - score[a]).slice(0, k);
  const above = logSumExp(near.map((j) => score[j])), below = logSumExp(part.map((j) => score[j]));
  const share = (members, total) => w.map((_, j) => (members.includes(j) ? Math.exp(score[j] - total) : 0));
  const p = share(near, above), q = share(part, below);
  const mean = (shares, axis) => shares.reduce((sum, one, j) => sum + one * w[j][axis], 0);
  const away = push ? [mean(q, 0), mean(q, 1)] : x;
  const step = [s * (mean(p, 0) - away[0]), s * (mean(p, 1) - away[1])];
  return { loss: push ? below - above : -above, near, p, q, turn: x[0] * step[1] - x[1] * step[0] };
}

function place(degrees, radius = RADIUS) {
  const [x, y] = onCircle(degrees);
  return [CENTRE + radius * x, CENTRE - radius * y].map((value) => value.toFixed(1));
}

function line([x1, y1], [x2, y2], kind, width) {
  return `<line class="${kind}" x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" stroke-width="${width.toFixed(2)}"/>`;
}

// The state as a picture and a sentence, both HTML.
function draw(state) {
  const { loss, near, p, q, turn } = pedal(state), at = place(state.angle);
  const pulls = near.map((j) => line(at, place(state.entries[j]), "pull", 1 + 7 * p[j]));
  const pushed = state.push ? [...q.keys()].filter((j) => q[j] > 0 && !near.includes(j)) : [];
  const pushes = pushed.map((j) => line(at, place(state.entries[j]), "push", 0.6 + 9 * q[j]));
  const dots = state.entries.map((degrees, j) => {
    const [x, y] = place(degrees), letter = j ? state.people[j] : "own";
    const kind = near.includes(j) ? "near" : j || state.own ? "" : "out";
    return `<g class="entry ${kind}"><circle cx="${x}" cy="${y}" r="${j ? 12 : 17}"/>` +
      `<text x="${x}" y="${(+y + 5).toFixed(1)}">${letter}</text></g>`;
  });
  const swing = Math.abs(turn) < 0.01 ? 0 : Math.sign(turn) * (8 + 40 * Math.min(1, Math.abs(turn) / 5));
  const [from, to] = [place(state.angle, 189), place(state.angle + swing, 189)];
  const arrow = !swing ? "" :
    `<path class="step" d="M ${from} A 189 189 0 0 ${swing > 0 ? 0 : 1} ${to}" marker-end="url(#step-head)"/>`;
  const head = '<defs><marker id="step-head" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="4" markerHeight="4" ' +
    'orient="auto"><path d="M 0 0 L 8 4 L 0 8 z"/></marker></defs>';
  const onK = near.reduce((sum, j) => sum + q[j], 0);
  const way = !swing ? "stays where it is" : `turns ${turn > 0 ? "counterclockwise" : "clockwise"}`;
  const said = `The loss is <b>${loss.toFixed(3)}</b>. ${(100 * onK).toFixed(0)} % of the probability lie on the ` +
    `${near.length} nearest${near.includes(0) ? ", the own entry among them" : ""}; the patch ${way}.`;
  const svg = `<svg viewBox="0 0 420 420" role="img" aria-label="A patch on a circle among the entries of the bank">${head}` +
    `<circle class="rim" cx="${CENTRE}" cy="${CENTRE}" r="${RADIUS}"/>${pushes.join("")}${pulls.join("")}` +
    `${dots.join("")}${arrow}<circle class="anchor" cx="${at[0]}" cy="${at[1]}" r="8"/></svg>`;
  return `<div class="picture">${svg}</div><p class="said" aria-live="polite">${said}</p>`;
}

function start({ entries, people }) {
  return { entries, people, angle: 84, s: 5, k: 4, push: true, own: false };
}

// Sliders and boxes below the picture; the patch can be dragged, too.
function mount(box, data) {
  const state = start(data);
  const show = document.createElement("div"), controls = document.createElement("div");
  controls.className = "controls";
  const redraw = () => { show.innerHTML = draw(state); };
  const slider = (name, words, low, high, step) => {
    const label = document.createElement("label"), input = document.createElement("input");
    const value = document.createElement("output");
    Object.assign(input, { type: "range", min: low, max: high, step, value: state[name] });
    const said = () => { value.textContent = name === "angle" ? `${Math.round(state[name])}°` : state[name]; };
    input.addEventListener("input", () => { state[name] = Number(input.value); said(); redraw(); });
    label.append(words, " ", value, input);
    controls.append(label);
    said();
    return (changed) => { state[name] = changed; input.value = changed; said(); redraw(); };
  };
  const tick = (name, words) => {
    const label = document.createElement("label"), input = document.createElement("input");
    Object.assign(input, { type: "checkbox", checked: state[name] });
    input.addEventListener("change", () => { state[name] = input.checked; redraw(); });
    label.append(input, " ", words);
    controls.append(label);
  };
  const turn = slider("angle", "where the patch is", 0, 360, 1);
  slider("s", "scale s", 1, 60, 1);
  slider("k", "neighbours k", 1, data.entries.length - 1, 1);
  tick("push", "push from all others (the denominator)");
  tick("own", "its own entry takes part");
  const follow = (event) => {
    const frame = show.querySelector("svg").getBoundingClientRect();
    const x = event.clientX - frame.left - frame.width / 2, y = frame.top + frame.height / 2 - event.clientY;
    turn((Math.round((Math.atan2(y, x) * 180) / Math.PI) + 360) % 360);
  };
  let dragged = false;
  show.addEventListener("pointerdown", (event) => {
    if (event.target.closest("svg")) { dragged = true; follow(event); event.preventDefault(); }
  });
  window.addEventListener("pointermove", (event) => { if (dragged) follow(event); });
  for (const end of ["pointerup", "pointercancel"]) window.addEventListener(end, () => { dragged = false; });
  box.replaceChildren(show, controls);
  redraw();
}
