// The chat page: asks, streams answers, and joins its parts. It talks to its own server only.

import * as account from "./account.js";
import { RequestFailed, call, events, reasonOf, send, whenLoggedOut } from "./api.js";
import * as conversations from "./conversations.js";
import { $, announce, element, say } from "./dom.js";
import * as thread from "./thread.js";

const SUGGESTIONS = [
  "What is the capital of France?",
  "Explain why the sky is blue in two sentences.",
  "Write a short thank-you note to a colleague.",
  "Give me three ideas for a rainy afternoon.",
];

const state = { conversation: null, abort: null, ready: false, editing: null };

// ---------------------------------------------------------------- conversations

async function openConversation(id) {
  stop();
  closeMenu();
  cancelEdit();
  say();
  try {
    const conversation = await call("GET", `/api/conversations/${encodeURIComponent(id)}`);
    state.conversation = id;
    location.hash = id;
    thread.clearThread(conversation.title);
    for (const message of conversation.messages) {
      const item = thread.addMessage(message.role, message.content, message.message_id);
      if (message.role === "user") continue;
      const { moderated, moderated_place: place, finish_reason: reason } = message.metadata;
      thread.annotate(item, { moderated: moderated && { place }, cutOff: reason === "cancelled" });
      thread.addTools(item, message.message_id, message.rating);
    }
    thread.toBottom();
    await conversations.list();
  } catch (error) {
    newChat();
    say(reasonOf(error));
  }
}

function newChat() {
  stop();
  closeMenu();
  cancelEdit();
  say();
  state.conversation = null;
  history.replaceState(null, "", location.pathname);
  thread.clearThread("New chat");
  conversations.mark(null);
  $("question").focus();
}

// ---------------------------------------------------------------- asking

function messagesOf(conversation) {
  return `/api/conversations/${encodeURIComponent(conversation)}/messages`;
}

async function ask(question) {
  const edited = state.editing;
  cancelEdit();
  await answering(async (signal) => {
    if (!state.conversation) {
      const created = await call("POST", "/api/conversations");
      state.conversation = created.conversation_id;
      history.replaceState(null, "", `#${created.conversation_id}`);
    }
    const address = messagesOf(state.conversation);
    const body = { content: question };
    if (edited) {
      thread.removeFrom(edited);
      const path = `${address}/${encodeURIComponent(edited.dataset.messageId)}`;
      return [thread.addMessage("user", question), () => send("PUT", path, body, signal)];
    }
    return [thread.addMessage("user", question), () => send("POST", address, body, signal)];
  }, Boolean(edited));
}

async function regenerate(item) {
  if (state.abort) return;
  const path = `${messagesOf(state.conversation)}/${encodeURIComponent(item.dataset.messageId)}/regenerate`;
  await answering(async (signal) => {
    thread.removeFrom(item);
    return [null, () => send("POST", path, undefined, signal)];
  }, true);
}

// Show an answer while it comes. `prepare` gives the question's item and the request; `reload` says whether a
// failure leaves the page unlike the conversation.
async function answering(prepare, reload) {
  say();
  setAnswering(true);
  const abort = new AbortController();
  state.abort = abort;
  let question = null;
  let answer = null;
  try {
    const [asked, request] = await prepare(abort.signal);
    question = asked;
    answer = thread.addMessage("assistant", "");
    answer.classList.add("waiting");
    thread.toBottom();
    const response = await request();
    if (question) {
      $("question").value = "";
      resize();
    }
    await receive(response, question, answer);
    announce(answer.dataset.text);
  } catch (error) {
    if (error.name === "AbortError") cutOff(answer);
    else await fail(error, question, answer, reload);
  } finally {
    answer?.classList.remove("waiting");
    if (state.abort === abort) {
      state.abort = null;
      setAnswering(false);
    }
    conversations.list().catch(() => {});
  }
}

async function receive(response, question, answer) {
  let text = "";
  let about = null;
  let frame = 0;
  for await (const event of events(response)) {
    if (event.error) throw new RequestFailed(event.error.message);
    if (event.colloquy?.message_id && !about) {
      answer.dataset.messageId = event.colloquy.message_id;
      if (question) question.dataset.messageId = event.colloquy.question_id;
      thread.setTitle(event.colloquy.title);
    }
    const choice = event.choices[0];
    if (choice?.delta.content) {
      text += choice.delta.content;
      answer.dataset.text = text;
      answer.classList.remove("waiting");
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        thread.followBottom(() => thread.show(answer, text));
      });
    }
    if (choice?.finish_reason) about = event.colloquy;
  }
  cancelAnimationFrame(frame);
  if (!about) throw new RequestFailed("The connection broke before the answer was complete.");
  thread.followBottom(() => {
    thread.show(answer, text);
    thread.annotate(answer, { moderated: about.moderated, dropped: about.dropped_messages });
    thread.addTools(answer, about.message_id, null);
  });
}

function cutOff(answer) {
  if (!answer) return;
  thread.show(answer, answer.dataset.text ?? "");
  thread.annotate(answer, { cutOff: true });
  if (answer.dataset.messageId) thread.addTools(answer, answer.dataset.messageId, null);
}

async function fail(error, question, answer, reload) {
  if (answer && !answer.dataset.text) {
    // Nothing was shown: give the question back to the box, so that it can be sent again.
    if (question && !$("question").value) $("question").value = question.querySelector(".content").textContent;
    question?.remove();
    answer.remove();
    $("welcome").hidden = $("messages").children.length > 0;
    resize();
    if (reload) await openConversation(state.conversation);
  }
  say(reasonOf(error));
}

function stop() {
  state.abort?.abort();
}

function setAnswering(now) {
  $("stop").hidden = !now;
  $("send").hidden = now;
  $("messages").setAttribute("aria-busy", String(now));
  resize();
}

function edit(item) {
  if (state.abort || !item.dataset.messageId) return;
  cancelEdit();
  state.editing = item;
  item.classList.add("edited");
  $("editing").hidden = false;
  $("question").value = item.querySelector(".content").textContent;
  resize();
  $("question").focus();
}

function cancelEdit() {
  if (!state.editing) return;
  state.editing.classList.remove("edited");
  state.editing = null;
  $("editing").hidden = true;
  $("question").value = "";
  resize();
}

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
$("cancel-edit").addEventListener("click", () => {
  cancelEdit();
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
  if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
  if (document.body.classList.contains("menu-open")) {
    closeMenu();
    $("menu").focus();
  } else if (state.editing) cancelEdit();
  else stop();
});
window.addEventListener("hashchange", () => {
  const id = location.hash.slice(1);
  if (id && id !== state.conversation) openConversation(id);
});

async function readStatus() {
  const status = await call("GET", "/api/status").catch(() => null);
  if (!status?.ready) state.ready = false;
  else if (!state.ready) await start(status.visitors).catch((error) => say(reasonOf(error)));
  $("about").textContent = status ? about(status) : "The server can't be reached.";
  resize();
  setTimeout(readStatus, state.ready ? 30000 : 1500);
}

function about(status) {
  const parts = [`Colloquy v${status.model_version}`, status.profile];
  if (status.simulated_labels) parts.push("trained on simulated labels");
  if (status.promoted_by) parts.push(`released by ${status.promoted_by} against the gate (${status.verdict})`);
  parts.push(status.ready ? "it can be wrong, check what matters" : `not ready: ${status.reason}`);
  return parts.join(" · ");
}

async function start(visitors) {
  const me = await account.readMe(visitors);
  state.ready = true; // not sooner: each request without the cookie that has just come would be a visitor of its own
  if (!me) return;
  const id = location.hash.slice(1);
  if (id && id !== state.conversation) await openConversation(id);
  else await conversations.list();
}

// Somebody else is here now.
async function startAgain(visitors) {
  const id = state.conversation;
  newChat();
  $("conversations").replaceChildren();
  const me = await account.readMe(visitors);
  if (me?.email && id) location.hash = id; // a visitor's conversation has come along
  await start(visitors);
}

whenLoggedOut((code) => {
  if (code === "session_ended") account.openSignIn("login", "The session has ended. Log in to go on.");
});
account.listen(async () => startAgain((await call("GET", "/api/status")).visitors));
conversations.listen(() => state.conversation, {
  open: openConversation,
  renamed: ({ conversation_id: id, title }) => id === state.conversation && thread.setTitle(title),
  deleted: (id) => id === state.conversation && newChat(),
});
thread.listen({ edit, regenerate });

for (const suggestion of SUGGESTIONS) {
  const button = element("button", { type: "button", textContent: suggestion });
  button.addEventListener("click", () => {
    if (state.ready && !state.abort) ask(suggestion);
  });
  $("suggestions").append(element("li", {}, button));
}
resize();
readStatus();
