// Say above a part that renews itself, or a list that is filtered, that it is not renewed any more.
"use strict";

/** Return the notice for what an element asked; it stands until that element's next answer is shown. */
function noticeOf(asking) {
  const id = `old-${asking.id || "filter"}`;
  let notice = document.getElementById(id);
  if (!notice) {
    notice = Object.assign(document.createElement("p"), { id, className: "problem" });
    notice.setAttribute("role", "alert");
  }
  return notice;
}

function warn({ elt: asking, target }, words) {
  if (!asking?.matches("form, [hx-trigger^='every']")) return;
  const part = document.getElementById(target?.id);
  if (!part) return;
  const notice = noticeOf(asking);
  const at = part.querySelector("time")?.textContent;
  const text = `${words} Not renewed since ${at || "it was opened"}: what stands below is of then.`;
  if (notice.textContent !== text) notice.textContent = text;
  if (!notice.isConnected) part.before(notice);
  // What was green is not known any more.
  part.classList.add("is-old");
  if (part.id === "verdict") document.title = `NOT RENEWED · ${document.title.replace(/^.*?(?: · |: )/, "")}`;
}

addEventListener("htmx:sendError", ({ detail }) => warn(detail, "The server does not answer."));
addEventListener("htmx:timeout", ({ detail }) => warn(detail, "The server has not answered in time."));
addEventListener("htmx:responseError", ({ detail }) => {
  const { status, responseText } = detail.xhr;
  const page = new DOMParser().parseFromString(responseText, "text/html");
  const why = page.querySelector(".problem")?.textContent || "";
  warn(detail, status === 422 ? `This cannot be asked: ${why}` : `The server refuses (${status}). ${why}`);
});
// Such as the page for signing in, in place of the part.
addEventListener("htmx:beforeSwap", ({ detail }) => {
  if (!detail.shouldSwap || detail.serverResponse.includes(`id="${detail.target.id}"`)) return;
  detail.shouldSwap = false;
  warn({ elt: detail.requestConfig.elt, target: detail.target }, "The server answers with another page: reload this one.");
});
addEventListener("htmx:afterSwap", ({ detail }) => noticeOf(detail.requestConfig.elt).remove());
