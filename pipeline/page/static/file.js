// Hash a file in the browser: it is read here and never sent; only its SHA-256 goes to the server.
"use strict";

const MOST_BYTES = 256 * 1024 * 1024; // crypto.subtle takes a whole file at once, from memory.
const KEPT = "rmos file"; // The SHA-256 and the name of the file that was asked about last.

/** Return the SHA-256 of a file as hexadecimal digits. */
async function sha256(file) {
  const digest = await crypto.subtle.digest("SHA-256", await file.arrayBuffer());
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

const form = document.querySelector("form[data-file]");
const drop = form.querySelector("[data-drop]");
const said = form.querySelector("[data-said]");
const chooser = drop.querySelector("input[type=file]");
const field = form.elements.sha256;
let asked = 0;

/** Take the answer away: it is that of another file. */
function forget() {
  // Else an answer that is on its way would set the title again.
  document.querySelector("#verdict")?.dispatchEvent(new Event("htmx:abort"));
  document.querySelector("[data-answer]")?.remove();
  document.title = "May this file be cut? · RMOS Runs";
}

/** Return the name of a file with what is not seen of it spelt out: it is a text of others. */
function shown(file) {
  return file.replace(/\p{C}/gu, (each) => `‹U+${each.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}›`);
}

/** Ask about the one file that was chosen or dropped. */
async function ask(files) {
  asked += 1;
  const number = asked;
  forget();
  field.value = "";
  if (files.length !== 1) {
    said.textContent = `${files.length} files: nothing is asked. Choose one; each has an answer of its own.`;
    return;
  }
  const [file] = files;
  if (file.size > MOST_BYTES) {
    said.textContent = `${shown(file.name)} has more than 256 MiB. Enter what sha256sum prints for it.`;
    return;
  }
  said.textContent = `${shown(file.name)} is being read.`;
  let digest;
  try {
    digest = await sha256(file);
  } catch {
    if (number === asked) said.textContent = `The browser cannot read ${shown(file.name)}. Enter what sha256sum prints for it.`;
    return;
  }
  if (number !== asked) return; // Another file was chosen meanwhile.
  try {
    sessionStorage.setItem(KEPT, JSON.stringify([digest, file.name]));
  } catch {
    // Without a storage the answer has no name.
  }
  field.value = digest;
  form.requestSubmit();
}

/** Name the file that the answer is for, if it was chosen here. */
function name() {
  const place = document.querySelector("[data-name]");
  try {
    const [digest, file] = JSON.parse(sessionStorage.getItem(KEPT));
    if (!place || digest !== field.value) return;
    place.textContent = shown(file);
    place.parentElement.hidden = false;
  } catch {
    // Nothing is kept.
  }
}

name();
field.addEventListener("input", forget);
if (globalThis.crypto?.subtle) {
  drop.hidden = false;
  chooser.addEventListener("change", () => chooser.files.length && ask(chooser.files));
  // Also beside the panel: a browser would open the file in place of the page.
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length) ask(event.dataTransfer.files);
  });
} else {
  said.textContent =
    "This page came over plain HTTP, where a browser hashes no file. Enter what sha256sum or Get-FileHash prints for it.";
}
