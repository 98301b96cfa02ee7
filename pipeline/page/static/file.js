// Hash a file in the browser: it is read here and never sent; only its SHA-256 goes to the server.
"use strict";

const MOST_BYTES = 256 * 1024 * 1024; // crypto.subtle takes a whole file at once, from memory.

const panel = document.querySelector("[data-file-form]");
const form = document.getElementById(panel.dataset.fileForm);
const chooser = panel.querySelector("input[type=file]");
const state = panel.querySelector("[role=status]");

/** Return the SHA-256 of a file as hexadecimal digits. */
async function sha256(file) {
  const digest = await crypto.subtle.digest("SHA-256", await file.arrayBuffer());
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Ask about a file. */
async function ask(file) {
  if (file.size > MOST_BYTES) {
    state.textContent = "This file has more than 256 MiB: enter what sha256sum prints for it.";
    return;
  }
  state.textContent = "The file is being read.";
  try {
    form.elements.sha256.value = await sha256(file);
  } catch {
    state.textContent = "The browser cannot read this file: enter what sha256sum prints for it.";
    return;
  }
  form.requestSubmit();
}

panel.hidden = false;
if (globalThis.crypto?.subtle) {
  chooser.addEventListener("change", () => chooser.files.length && ask(chooser.files[0]));
  // Also a file that misses the panel: a browser would open it in place of the page.
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length) ask(event.dataTransfer.files[0]);
  });
} else {
  chooser.disabled = true;
  state.textContent = "This page came over plain HTTP, where a browser hashes no file: enter what sha256sum prints for it.";
}
