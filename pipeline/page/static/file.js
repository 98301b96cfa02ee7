// Hash a file in the browser: it is read here and never sent; only its SHA-256 goes to the server.
"use strict";

const MOST_BYTES = 256 * 1024 * 1024; // crypto.subtle takes a whole file at once, from memory.

/** Return the SHA-256 of a file as hexadecimal digits. */
async function sha256(file) {
  const digest = await crypto.subtle.digest("SHA-256", await file.arrayBuffer());
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

const form = document.querySelector("form[data-file]");
const drop = form.querySelector("[data-drop]");
const said = form.querySelector("[data-said]");
const chooser = drop.querySelector("input[type=file]");

/** Ask about a file. */
async function ask(file) {
  if (file.size > MOST_BYTES) {
    said.textContent = "This file has more than 256 MiB. Enter what sha256sum prints for it.";
    return;
  }
  said.textContent = "The file is being read.";
  try {
    form.elements.sha256.value = await sha256(file);
  } catch {
    said.textContent = "The browser cannot read this file. Enter what sha256sum prints for it.";
    return;
  }
  form.requestSubmit();
}

if (globalThis.crypto?.subtle) {
  drop.hidden = false;
  chooser.addEventListener("change", () => chooser.files.length && ask(chooser.files[0]));
  // Also beside the panel: a browser would open the file in place of the page.
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length) ask(event.dataTransfer.files[0]);
  });
} else {
  said.textContent =
    "This page came over plain HTTP, where a browser hashes no file. Enter what sha256sum prints for it" +
    " (PowerShell: `Get-FileHash FILE`).";
}
