// Two ways of a tool on one page: both turn together, and a third picture lays them over each other.
"use strict";

/** Return each straight piece of a way as a text, in order. */
function pieces(paths) {
  const found = [];
  for (const { kind, points } of paths) {
    const how = kind === "rapid" ? "r" : "f";
    for (let at = 3; at < points.length; at += 3) found.push(how + points.slice(at - 3, at + 3).join());
  }
  return found;
}

/** Return the paths of the pieces that fit, one path a piece. */
function only(paths, fits) {
  const found = [];
  for (const { kind, points, lines } of paths) {
    const how = kind === "rapid" ? "r" : "f";
    for (let at = 3; at < points.length; at += 3) {
      const piece = points.slice(at - 3, at + 3);
      if (fits(how + piece.join())) found.push({ kind, from: 0, lines: [lines[at / 3 - 1]], points: piece });
    }
  }
  return found;
}

function counted(number) {
  return `${number.toLocaleString("en")} ${number === 1 ? "move" : "moves"}`;
}

toolpaths.then((found) => {
  const place = document.querySelector("[data-overlay]");
  if (!place || found.length !== 2 || found.includes(null)) return;
  const [a, b] = found;
  const [inOrderA, inOrderB] = [pieces(a.paths), pieces(b.paths)];
  const [inA, inB] = [new Set(inOrderA), new Set(inOrderB)];
  const layers = [
    { paths: only(a.paths, (piece) => inB.has(piece)), color: "--quiet" },
    { paths: only(a.paths, (piece) => !inB.has(piece)), color: "--feed", width: 2 },
    { paths: only(b.paths, (piece) => !inA.has(piece)), color: "--rapid", width: 2, dash: RAPID_DASH },
  ];
  const isSame = inOrderA.length === inOrderB.length && inOrderA.every((piece, index) => piece === inOrderB[index]);
  const words = isSame
    ? `The same ${counted(inOrderA.length)} are drawn of both, one after the other.`
    : !layers[1].paths.length && !layers[2].paths.length
    ? `The same places, in another order or number: ${counted(inOrderA.length)} in a, ${counted(inOrderB.length)} in b.`
    : `${counted(layers[0].paths.length)} in both, ${counted(layers[1].paths.length)} only in a, ${counted(layers[2].paths.length)} only in b.`;
  const box = around(a.box, b.box);
  const both = new Picture(`Both laid over each other. ${words}`, layers, box, a.picture.view);
  b.picture.join(a.picture.view);
  a.picture.box = b.picture.box = box;
  b.bar.remove();
  place.append(made("p", { textContent: words }), both.canvas,
    made("p", { className: "legend" },
      made("span", { className: "in-both", textContent: "in both" }),
      made("span", { className: "in-a", textContent: "only in a" }),
      made("span", { className: "in-b", textContent: "only in b" })));
  place.hidden = false;
  a.picture.view.set({});
});
