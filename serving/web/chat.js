// The chat page: conversations, streamed answers, feedback. It talks to its own server only.

import { render } from "./markdown.js";

const $ = (id) => document.getElementById(id);
const SUGGESTIONS = [
  "What is the capital of France?",
  "Explain why the sky is blue in two sentences.",
  "Write a short thank-you note to a colleague.",
  "Give me three ideas for a rainy afternoon.",
];
const NEAR_BOTTOM_PX = 80;

const state = { conversation: null, abort: null, ready: false };

class RequestFailed extends Error {}

async function call(method, path, body) {
  const options = { method, headers: {} };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const response = await fetch(path, options);
  if (!response.ok) throw await failure(response);
  return response.status === 204 ? null : response.json();
}

async function failure(response) {
  const wait = response.headers.get("Retry-After");
  const body = await response.json().catch(() => null);
  const reason = body?.error?.message ?? `the server answered with ${response.status}`;
  return new RequestFailed(response.status === 429 && wait ? `Many people are asking right now. Try again in ${wait} s.` : reason);
}

function say(problem) {
  $("problem").textContent = problem ?? "";
  $("problem").hidden = !problem;
}

// ---------------------------------------------------------------- what is shown

function addMessage(role, text) {
  const item = document.createElement("li");
  item.className = `message ${role}`;
  const who = document.createElement("span");
  who.className = "unseen";
  who.textContent = role === "user" ? "You:" : "Assistant:";
  const content = document.createElement("div");
  content.className = "content";
  item.append(who, content);
  $("messages").append(item);
  if (role === "user") content.textContent = text;
  else show(item, text);
  $("welcome").hidden = true;
  return item;
}

function show(item, text) {
  item.dataset.text = text;
  item.querySelector(".content").replaceChildren(...render(text));
}

function notice(item, text) {
  const note = document.createElement("p");
  note.className = "notice";
  note.textContent = text;
  item.append(note);
}

const MODERATED = {
  system: "The message was moderated, so the assistant gave this set answer.",
  input: "The message was moderated, so the assistant gave this set answer.",
  output: "The answer was moderated and ended with a set reply.",
};

function annotate(item, { moderated, dropped = 0, cutOff = false }) {
  if (moderated) {
    item.classList.add("moderated");
    notice(item, MODERATED[moderated.place] ?? MODERATED.output);
  }
  if (cutOff) notice(item, "Stopped.");
  if (dropped) notice(item, `The conversation is long: its ${dropped} oldest messages were left out.`);
}

function addTools(item, messageId, rating) {
  item.dataset.messageId = messageId;
  item.append($("answer-tools").content.cloneNode(true));
  press(item, rating);
}

function press(item, rating) {
  for (const thumb of item.querySelectorAll("[data-tool=up], [data-tool=down]")) {
    thumb.setAttribute("aria-pressed", String(thumb.dataset.tool === rating));
  }
}

function followBottom(change) {
  const thread = $("thread");
  const follows = thread.scrollHeight - thread.scrollTop - thread.clientHeight < NEAR_BOTTOM_PX;
  change();
  if (follows) thread.scrollTop = thread.scrollHeight;
}

function clearThread(title) {
  $("messages").replaceChildren();
  $("welcome").hidden = false;
  $("title").textContent = title;
  document.title = title === "New chat" ? "Colloquy" : `${title} · Colloquy`;
}

// ---------------------------------------------------------------- conversations

async function listConversations() {
  const { conversations } = await call("GET", "/api/conversations");
  const items = conversations.map((conversation) => {
    const open = document.createElement("button");
    open.type = "button";
    open.className = "open";
    open.textContent = conversation.title;
    open.addEventListener("click", () => openConversation(conversation.conversation_id));
    const remove = document.createElement("button");
    remove.type = "button";
    remove.className = "icon small remove";
    remove.textContent = "×";
    remove.setAttribute("aria-label", `Delete “${conversation.title}”`);
    remove.addEventListener("click", () => deleteConversation(conversation));
    const item = document.createElement("li");
    if (conversation.conversation_id === state.conversation) open.setAttribute("aria-current", "true");
    item.append(open, remove);
    return item;
  });
  $("conversations").replaceChildren(...items);
}

async function openConversation(id) {
  stop();
  closeMenu();
  say();
  try {
    const conversation = await call("GET", `/api/conversations/${encodeURIComponent(id)}`);
    state.conversation = id;
    location.hash = id;
    clearThread(conversation.title);
    for (const message of conversation.messages) {
      const item = addMessage(message.role, message.content);
      if (message.role === "user") continue;
      const { moderated, moderated_place: place, finish_reason: reason } = message.metadata;
      annotate(item, { moderated: moderated && { place }, cutOff: reason === "cancelled" });
      addTools(item, message.message_id, message.rating);
    }
    $("thread").scrollTop = $("thread").scrollHeight;
    await listConversations();
  } catch (error) {
    newChat();
    say(error.message);
  }
}

async function deleteConversation(conversation) {
  if (!confirm(`Delete “${conversation.title}”? It can't be brought back.`)) return;
  try {
    await call("DELETE", `/api/conversations/${encodeURIComponent(conversation.conversation_id)}`);
    if (conversation.conversation_id === state.conversation) newChat();
    await listConversations();
  } catch (error) {
    say(error.message);
  }
}

function newChat() {
  stop();
  closeMenu();
  say();
  state.conversation = null;
  history.replaceState(null, "", location.pathname);
  clearThread("New chat");
  for (const open of document.querySelectorAll("#conversations [aria-current]")) open.removeAttribute("aria-current");
  $("question").focus();
}

// ---------------------------------------------------------------- asking

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffer += value;
    const frames = buffer.split("\n\n");
    buffer = frames.pop();
    for (const frame of frames) {
      const data = frame.replace(/^data: /, "");
      if (data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

async function ask(question) {
  say();
  setAnswering(true);
  const abort = new AbortController();
  state.abort = abort;
  let answer = null;
  try {
    if (!state.conversation) {
      const created = await call("POST", "/api/conversations");
      state.conversation = created.conversation_id;
      history.replaceState(null, "", `#${created.conversation_id}`);
    }
    addMessage("user", question);
    answer = addMessage("assistant", "");
    answer.classList.add("waiting");
    $("thread").scrollTop = $("thread").scrollHeight;
    const response = await fetch(`/api/conversations/${encodeURIComponent(state.conversation)}/messages`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ content: question }),
      signal: abort.signal,
    });
    if (!response.ok) throw await failure(response);
    $("question").value = "";
    resize();
    await receive(response, answer);
    $("announcer").textContent = answer.dataset.text;
  } catch (error) {
    if (error.name === "AbortError") await cutOff(answer);
    else fail(error, answer);
  } finally {
    answer?.classList.remove("waiting");
    if (state.abort === abort) {
      state.abort = null;
      setAnswering(false);
    }
    listConversations().catch(() => {});
  }
}

async function receive(response, answer) {
  let text = "";
  let about = null;
  let frame = 0;
  for await (const event of events(response)) {
    if (event.error) throw new RequestFailed(event.error.message);
    if (event.colloquy?.message_id && !about) {
      answer.dataset.messageId = event.colloquy.message_id;
      $("title").textContent = event.colloquy.title;
    }
    const choice = event.choices[0];
    if (choice?.delta.content) {
      text += choice.delta.content;
      answer.dataset.text = text;
      answer.classList.remove("waiting");
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        followBottom(() => show(answer, text));
      });
    }
    if (choice?.finish_reason) about = event.colloquy;
  }
  cancelAnimationFrame(frame);
  if (!about) throw new RequestFailed("The connection broke before the answer was complete.");
  followBottom(() => {
    show(answer, text);
    annotate(answer, { moderated: about.moderated, dropped: about.dropped_messages });
    addTools(answer, about.message_id, null);
  });
}

async function cutOff(answer) {
  if (!answer) return;
  show(answer, answer.dataset.text ?? "");
  annotate(answer, { cutOff: true });
  if (answer.dataset.messageId) addTools(answer, answer.dataset.messageId, null);
}

function fail(error, answer) {
  if (answer && !answer.dataset.text) {
    // Nothing was shown: give the question back to the box, so that it can be sent again.
    const question = answer.previousElementSibling;
    if (!$("question").value) $("question").value = question.querySelector(".content").textContent;
    question.remove();
    answer.remove();
    $("welcome").hidden = $("messages").children.length > 0;
    resize();
  }
  say(error instanceof RequestFailed ? error.message : "The server can't be reached.");
}

function stop() {
  state.abort?.abort();
}

function setAnswering(answering) {
  $("stop").hidden = !answering;
  $("send").hidden = answering;
  $("messages").setAttribute("aria-busy", String(answering));
  resize();
}

// ---------------------------------------------------------------- tools under an answer

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

async function rate(item, rating) {
  try {
    await call("POST", "/api/feedback", { message_id: item.dataset.messageId, rating });
    press(item, rating);
    $("announcer").textContent = "Thank you for the feedback.";
  } catch (error) {
    say(error.message);
  }
}

$("messages").addEventListener("click", (event) => {
  const button = event.target.closest("[data-tool]");
  if (!button) return;
  const item = button.closest(".message");
  const tool = button.dataset.tool;
  if (tool === "copy") copy(button, item.dataset.text);
  else if (tool === "copy-code") copy(button, button.closest(".code-block").querySelector("code").textContent);
  else rate(item, tool);
});

// ---------------------------------------------------------------- the box, the menu, the footer

function resize() {
  const box = $("question");
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight}px`;
  $("send").disabled = !box.value.trim() || !state.ready;
}

$("question").addEventListener("input", resize);
$("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("composer").requestSubmit();
  }
});
$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = $("question").value.trim();
  if (question && state.ready && !state.abort) ask(question);
});
$("stop").addEventListener("click", () => {
  stop();
  $("question").focus();
});
$("new-chat").addEventListener("click", newChat);
$("new-chat-small").addEventListener("click", newChat);

function closeMenu() {
  document.body.classList.remove("menu-open");
  $("shade").hidden = true;
  $("menu").setAttribute("aria-expanded", "false");
}

$("menu").addEventListener("click", () => {
  document.body.classList.add("menu-open");
  $("shade").hidden = false;
  $("menu").setAttribute("aria-expanded", "true");
  $("new-chat").focus();
});
$("shade").addEventListener("click", closeMenu);
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  if (document.body.classList.contains("menu-open")) {
    closeMenu();
    $("menu").focus();
  } else stop();
});
window.addEventListener("hashchange", () => {
  const id = location.hash.slice(1);
  if (id && id !== state.conversation) openConversation(id);
});

async function readStatus() {
  let status = null;
  try {
    status = await call("GET", "/api/status");
  } catch {
    $("about").textContent = "The server can't be reached.";
  }
  if (status) {
    const parts = [`Colloquy v${status.model_version}`, status.profile];
    if (status.simulated_labels) parts.push("trained on simulated labels");
    if (status.promoted_by) parts.push(`released by ${status.promoted_by} against the gate (${status.verdict})`);
    parts.push(status.ready ? "it can be wrong, check what matters" : `not ready: ${status.reason}`);
    $("about").textContent = parts.join(" · ");
  }
  const wasReady = state.ready;
  state.ready = Boolean(status?.ready);
  resize();
  if (state.ready && !wasReady) await start();
  setTimeout(readStatus, state.ready ? 30000 : 1500);
}

async function start() {
  const id = location.hash.slice(1);
  if (id && id !== state.conversation) await openConversation(id);
  else await listConversations().catch((error) => say(error.message));
}

for (const suggestion of SUGGESTIONS) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = suggestion;
  button.addEventListener("click", () => {
    if (state.ready && !state.abort) ask(suggestion);
  });
  const item = document.createElement("li");
  item.append(button);
  $("suggestions").append(item);
}
resize();
readStatus();
