// The toolpath on a canvas: each `figure[data-toolpath]` names its document, and holds the
// picture that stands for it wherever scripts do not run. Lengths are mm, angles are degrees.
"use strict";

const RAPID_DASH = [5, 4];
const SEGMENTS_A_STROKE = 2000; // One stroke of all is slower: its own crossings are looked for.
const PLACES = { above: [0, 90], angle: [-30, 35], front: [0, 0], side: [90, 0] };
const NAMES = { above: "From above", angle: "At an angle", front: "From the front", side: "From the side" };

/** From where one looks, shared by pictures that turn together. */
class View {
  constructor() {
    this.turn = 0;
    this.tilt = 90;
    this.zoom = 1;
    this.shift = [0, 0];
    this.pictures = [];
    this.is_asked = false;
  }

  /** Change some of it, and draw each picture once in the next frame. */
  set(changes) {
    Object.assign(this, changes);
    this.turn = ((this.turn % 360) + 360) % 360;
    this.tilt = Math.min(90, Math.max(-90, this.tilt));
    this.zoom = Math.min(500, Math.max(0.5, this.zoom));
    if (this.is_asked) return;
    this.is_asked = true;
    requestAnimationFrame(() => {
      this.is_asked = false;
      for (const picture of this.pictures) picture.draw();
    });
  }

  see(name) {
    const [turn, tilt] = PLACES[name];
    this.set({ turn, tilt, zoom: 1, shift: [0, 0] });
  }

  /** The six factors of x, y and z: to the right, then upwards. */
  get factors() {
    const [turn, tilt] = [(this.turn * Math.PI) / 180, (this.tilt * Math.PI) / 180];
    const [c, s, up] = [Math.cos(turn), Math.sin(turn), Math.sin(tilt)];
    return [c, -s, 0, s * up, c * up, Math.cos(tilt)];
  }
}

/** Return the least box around some boxes. */
function around(...boxes) {
  return {
    low: [0, 1, 2].map((axis) => Math.min(...boxes.map((box) => box.low[axis]))),
    high: [0, 1, 2].map((axis) => Math.max(...boxes.map((box) => box.high[axis]))),
  };
}

/** A canvas that shows layers of paths: `{paths, color, dash, width}`, color a variable of the sheet. */
class Picture {
  constructor(label, layers, box, view) {
    this.layers = layers;
    this.box = box;
    this.shown = Infinity; // So many straight pieces of each layer are behind the tool.
    this.canvas = document.createElement("canvas");
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", label);
    this.join(view);
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    this.listen();
  }

  join(view) {
    this.view = view;
    view.pictures.push(this);
  }

  /** Return how a point comes onto the canvas, in its pixels of CSS. */
  projection() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const [a, b, c, d, e, f] = this.view.factors;
    const { low, high } = this.box;
    const half = low.map((each, axis) => (high[axis] - each) / 2);
    const middle = low.map((each, axis) => each + half[axis]);
    const spread = ([x, y, z]) => Math.abs(x * half[0]) + Math.abs(y * half[1]) + Math.abs(z * half[2]) || 1e-3;
    const scale = this.view.zoom *
      Math.min((width - 32) / 2 / spread([a, b, c]), (height - 32) / 2 / spread([d, e, f]));
    const right = width / 2 + this.view.shift[0] - scale * (a * middle[0] + b * middle[1] + c * middle[2]);
    const down = height / 2 + this.view.shift[1] + scale * (d * middle[0] + e * middle[1] + f * middle[2]);
    return { scale, right, down, factors: [a, b, c, d, e, f].map((each) => each * scale) };
  }

  draw() {
    const { canvas } = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !height) return;
    const ratio = devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const projection = this.projection();
    const colors = getComputedStyle(canvas);
    for (const layer of this.layers) {
      pen.strokeStyle = colors.getPropertyValue(layer.color);
      pen.lineWidth = layer.width || 1;
      pen.setLineDash(layer.dash || []);
      if (this.shown === Infinity) {
        this.stroke(pen, layer.paths, projection, 0, Infinity);
      } else {
        this.stroke(pen, layer.paths, projection, 0, this.shown);
        pen.globalAlpha = 0.2;
        this.stroke(pen, layer.paths, projection, this.shown, Infinity);
        pen.globalAlpha = 1;
      }
    }
    pen.setLineDash([]);
    this.drawTool(pen, projection, colors);
    this.drawAxes(pen, projection, colors, height);
  }

  /** Draw the straight pieces from number `first` on, before number `end`. */
  stroke(pen, paths, { right, down, factors: [a, b, c, d, e, f] }, first, end) {
    let count = 0;
    pen.beginPath();
    for (const { from, points } of paths) {
      const stop = Math.min(points.length / 3 - 1, end - from);
      const start = Math.max(0, first - from);
      if (start >= stop) continue;
      for (let each = start, at = start * 3; each <= stop; each += 1, at += 3) {
        const [x, y, z] = [points[at], points[at + 1], points[at + 2]];
        const [u, v] = [right + a * x + b * y + c * z, down - d * x - e * y - f * z];
        if (each === start) pen.moveTo(u, v);
        else pen.lineTo(u, v);
        count += 1;
        if (count % SEGMENTS_A_STROKE === 0) {
          pen.stroke();
          pen.beginPath();
          pen.moveTo(u, v);
        }
      }
    }
    pen.stroke();
  }

  /** Mark where the tool is after the pieces that are shown. */
  drawTool(pen, { right, down, factors: [a, b, c, d, e, f] }, colors) {
    const place = this.placeOf(this.shown);
    if (!place) return;
    const [x, y, z] = place.point;
    pen.fillStyle = colors.getPropertyValue("--ink");
    pen.beginPath();
    pen.arc(right + a * x + b * y + c * z, down - d * x - e * y - f * z, 4, 0, 2 * Math.PI);
    pen.fill();
  }

  /** Return the line and the end of the piece before number `shown`. */
  placeOf(shown) {
    for (const { paths } of this.layers) {
      for (const { from, lines, points } of paths) {
        const index = shown - from;
        if (index < 1 || index > lines.length) continue;
        return { line: lines[index - 1], point: points.slice(index * 3, index * 3 + 3) };
      }
    }
    return null;
  }

  drawAxes(pen, { scale, factors }, colors, height) {
    const [left, foot] = [34, height - 34];
    pen.strokeStyle = pen.fillStyle = colors.getPropertyValue("--quiet");
    pen.lineWidth = 1;
    pen.font = "12px sans-serif";
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    ["X", "Y", "Z"].forEach((name, axis) => {
      const [u, v] = [factors[axis] / scale, -factors[axis + 3] / scale];
      if (Math.hypot(u, v) < 0.1) return;
      pen.beginPath();
      pen.moveTo(left, foot);
      pen.lineTo(left + 20 * u, foot + 20 * v);
      pen.stroke();
      pen.fillText(name, left + 28 * u, foot + 28 * v);
    });
  }

  listen() {
    const { canvas } = this;
    const fingers = new Map();
    canvas.addEventListener("pointerdown", (event) => {
      fingers.set(event.pointerId, event);
      canvas.setPointerCapture(event.pointerId);
    });
    const leave = (event) => fingers.delete(event.pointerId);
    canvas.addEventListener("pointerup", leave);
    canvas.addEventListener("pointercancel", leave);
    canvas.addEventListener("pointermove", (event) => {
      const before = fingers.get(event.pointerId);
      if (!before) return;
      const [dx, dy] = [event.clientX - before.clientX, event.clientY - before.clientY];
      const { turn, tilt, zoom, shift } = this.view;
      if (fingers.size === 2) {
        const other = [...fingers.values()].find((each) => each.pointerId !== event.pointerId);
        const apart = (each) => Math.hypot(each.clientX - other.clientX, each.clientY - other.clientY) || 1;
        this.view.set({ zoom: (zoom * apart(event)) / apart(before), shift: [shift[0] + dx / 2, shift[1] + dy / 2] });
      } else if (event.shiftKey) {
        this.view.set({ shift: [shift[0] + dx, shift[1] + dy] });
      } else {
        this.view.set({ turn: turn + dx / 2, tilt: tilt + dy / 2 });
      }
      fingers.set(event.pointerId, event);
    });
    // Only of the picture that has the focus: a wheel over any other scrolls the page.
    canvas.addEventListener("wheel", (event) => {
      if (document.activeElement !== canvas) return;
      event.preventDefault();
      this.view.set({ zoom: this.view.zoom * Math.exp(-event.deltaY / 500) });
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const { turn, tilt, zoom, shift } = this.view;
      const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] || [0, 0];
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if ((dx || dy) && event.shiftKey) this.view.set({ shift: [shift[0] + 20 * dx, shift[1] + 20 * dy] });
      else if (dx || dy) this.view.set({ turn: turn + 5 * dx, tilt: tilt + 5 * dy });
      else if (event.key === "+" || event.key === "=") this.view.set({ zoom: zoom * 1.25 });
      else if (event.key === "-") this.view.set({ zoom: zoom / 1.25 });
      else if (event.key === "0") this.view.see("above");
      else return;
      event.preventDefault();
    });
  }
}

/** Return an element with some properties and children. */
function made(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

/** Return the buttons that turn a view, for a hand without a mouse and a finger in a glove. */
function controls(view) {
  const bar = made("div", { className: "turning" });
  const button = (words, act) => bar.append(made("button", { type: "button", textContent: words, onclick: act }));
  for (const name of Object.keys(PLACES)) button(NAMES[name], () => view.see(name));
  button("Larger", () => view.set({ zoom: view.zoom * 1.5 }));
  button("Smaller", () => view.set({ zoom: view.zoom / 1.5 }));
  bar.append(made("small", { className: "quiet", textContent: "Drag to turn, with Shift to move. Keys: arrows, +, -, 0." }));
  return bar;
}

/** Return the paths of a document, each with the number of its first straight piece. */
function numbered(paths) {
  let from = 0;
  return paths.map((path) => {
    const found = { ...path, from, points: Float64Array.from(path.points) };
    from += path.lines.length;
    return found;
  });
}

/** Return a slider through the pieces of a program, with the line of each. */
function steps(picture, count, units) {
  const [unit, length, digits] = units === "inch" ? ["in", 25.4, 4] : ["mm", 1, 3];
  const label = made("output", { textContent: "whole program" });
  const slider = made("input", { type: "range", min: 0, max: count, value: count, ariaLabel: "Up to which move" });
  slider.addEventListener("input", () => {
    const number = slider.valueAsNumber;
    picture.shown = number === count ? Infinity : number;
    const place = picture.placeOf(number);
    const at = place && [...place.point].map((each, axis) => `${"XYZ"[axis]} ${(each / length).toFixed(digits)}`).join(", ");
    label.textContent = number === count ? "whole program" : place ? `line ${place.line}: ${at} ${unit}` : "before the first move";
    slider.setAttribute("aria-valuetext", label.textContent);
    picture.view.set({});
  });
  return made("div", { className: "steps" }, slider, label);
}

/** Put a canvas over the picture of a figure, once its document has come. */
async function start(figure) {
  const image = figure.querySelector("img");
  try {
    const answer = await fetch(figure.dataset.toolpath, { headers: { Accept: "application/json" } });
    if (!answer.ok) return null;
    const drawn = await answer.json();
    if (!drawn.box) return null;
    const paths = numbered(drawn.paths);
    const [rapid, cut] = [true, false].map((wanted) => paths.filter((path) => (path.kind === "rapid") === wanted));
    const layers = [{ paths: cut, color: "--feed" }, { paths: rapid, color: "--rapid", dash: RAPID_DASH }];
    const picture = new Picture(image.alt, layers, drawn.box, new View());
    const count = paths.reduce((sum, path) => sum + path.lines.length, 0);
    image.before(picture.canvas);
    figure.classList.add("turns");
    const bar = controls(picture.view);
    picture.canvas.after(bar, steps(picture, count, drawn.units));
    picture.view.set({});
    return { figure, picture, bar, paths, box: drawn.box };
  } catch {
    return null; // The picture that does not turn stays.
  }
}

const toolpaths = Promise.all([...document.querySelectorAll("figure[data-toolpath]")].map(async (figure) => {
  const found = await start(figure);
  if (!found) figure.classList.add("stays");
  return found;
}));
