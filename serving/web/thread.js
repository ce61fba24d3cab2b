// The messages of a conversation, and the tools under each.

import { call, reasonOf } from "./api.js";
import { $, announce, element, say } from "./dom.js";
import { render } from "./markdown.js";

const NEAR_BOTTOM_PX = 80;
const MODERATED = {
  system: "The message was moderated, so the assistant gave this set answer.",
  input: "The message was moderated, so the assistant gave this set answer.",
  output: "The answer was moderated and ended with a set reply.",
};
const REASONS = {
  incorrect: "It is incorrect",
  not_helpful: "It did not help",
  harmful: "It could do harm",
  too_long: "It is too long",
  other: "Something else",
};

export function addMessage(role, text, messageId) {
  const who = element("span", { className: "unseen", textContent: role === "user" ? "You:" : "Assistant:" });
  const item = element("li", { className: `message ${role}` }, who, element("div", { className: "content" }));
  if (messageId) item.dataset.messageId = messageId;
  $("messages").append(item);
  if (role === "user") {
    item.querySelector(".content").textContent = text;
    item.append($("question-tools").content.cloneNode(true));
  } else show(item, text);
  $("welcome").hidden = true;
  return item;
}

export function show(item, text) {
  item.dataset.text = text;
  item.querySelector(".content").replaceChildren(...render(text));
}

export function annotate(item, { moderated, dropped = 0, cutOff = false }) {
  const notes = [];
  if (moderated) {
    item.classList.add("moderated");
    notes.push(MODERATED[moderated.place] ?? MODERATED.output);
  }
  if (cutOff) notes.push("Stopped.");
  if (dropped) notes.push(`The conversation is long: its ${dropped} oldest messages were left out.`);
  item.append(...notes.map((textContent) => element("p", { className: "notice", textContent })));
}

export function addTools(item, messageId, rating) {
  item.dataset.messageId = messageId;
  item.append($("answer-tools").content.cloneNode(true));
  press(item, rating);
}

function press(item, rating) {
  for (const thumb of item.querySelectorAll("[data-tool=up], [data-tool=down]")) {
    thumb.setAttribute("aria-pressed", String(thumb.dataset.tool === rating));
  }
}

export function followBottom(change) {
  const thread = $("thread");
  const follows = thread.scrollHeight - thread.scrollTop - thread.clientHeight < NEAR_BOTTOM_PX;
  change();
  if (follows) thread.scrollTop = thread.scrollHeight;
}

export function toBottom() {
  $("thread").scrollTop = $("thread").scrollHeight;
}

export function setTitle(title) {
  $("title").textContent = title;
  document.title = title === "New chat" ? "Colloquy" : `${title} · Colloquy`;
}

export function clearThread(title) {
  $("messages").replaceChildren();
  $("welcome").hidden = false;
  setTitle(title);
}

// The item and all after it leave the page; they stay on the server, out of the conversation.
export function removeFrom(item) {
  while (item.nextElementSibling) item.nextElementSibling.remove();
  item.remove();
}

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    say("The browser did not allow copying.");
    return;
  }
  button.classList.add("done");
  setTimeout(() => button.classList.remove("done"), 1200);
}

async function rate(item, rating, more = {}) {
  try {
    await call("POST", "/api/feedback", { message_id: item.dataset.messageId, rating, ...more });
  } catch (error) {
    say(reasonOf(error));
    return;
  }
  press(item, rating);
  item.querySelector(".why")?.remove();
  announce("Thank you for the feedback.");
  if (rating === "down" && !more.reason && more.feedback_text === undefined) askWhy(item);
}

function askWhy(item) {
  const text = element("input", { type: "text", maxLength: 4000, placeholder: "Tell us more (optional)" });
  text.setAttribute("aria-label", "What was wrong");
  const chosen = () => form.querySelector("[aria-pressed=true]")?.dataset.reason ?? "";
  const reasons = Object.entries(REASONS).map(([reason, textContent]) => {
    const button = element("button", { type: "button", className: "chip", textContent, "aria-pressed": "false" });
    button.dataset.reason = reason;
    button.addEventListener("click", () => {
      const was = button.getAttribute("aria-pressed") === "true";
      for (const other of form.querySelectorAll(".chip")) other.setAttribute("aria-pressed", "false");
      button.setAttribute("aria-pressed", String(!was));
    });
    return button;
  });
  const form = element(
    "form",
    { className: "why" },
    element("p", { textContent: "What was wrong?" }),
    element("div", { className: "chips" }, ...reasons),
    element("div", { className: "line" }, text, element("button", { className: "plain", textContent: "Send" })),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    rate(item, "down", { reason: chosen(), feedback_text: text.value });
  });
  item.append(form);
  form.querySelector("button").focus();
}

// `tools` has a function for each tool that concerns the conversation: edit and regenerate.
export function listen(tools) {
  $("messages").addEventListener("click", (event) => {
    const button = event.target.closest("[data-tool]");
    if (!button) return;
    const item = button.closest(".message");
    const tool = button.dataset.tool;
    if (tool === "copy") copy(button, item.dataset.text);
    else if (tool === "copy-code") copy(button, button.closest(".code-block").querySelector("code").textContent);
    else if (tool in tools) tools[tool](item);
    else rate(item, tool);
  });
}
