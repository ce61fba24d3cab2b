// The list of conversations: search, pages, and the dialog that renames, exports and deletes one.

import { call, reasonOf } from "./api.js";
import { $, element, say } from "./dom.js";

const SEARCH_AFTER_MS = 250;

let current = () => null;
let actions = {};
let managed = null;
let next = null;
let asked = 0;

function item(conversation) {
  const open = element("button", { type: "button", className: "open", textContent: conversation.title });
  if (conversation.conversation_id === current()) open.setAttribute("aria-current", "true");
  open.addEventListener("click", () => actions.open(conversation.conversation_id));
  const more = element("button", {
    type: "button",
    className: "icon small more",
    textContent: "⋯",
    "aria-label": `Rename, export or delete “${conversation.title}”`,
  });
  more.addEventListener("click", () => manage(conversation));
  return element("li", {}, open, more);
}

async function page(cursor) {
  const query = new URLSearchParams({ search: $("search").value.trim() });
  if (cursor) query.set("cursor", cursor);
  return call("GET", `/api/conversations?${query}`);
}

export async function list() {
  asked += 1;
  const mine = asked;
  const found = await page();
  if (mine !== asked) return; // a later question has been asked meanwhile
  next = found.next;
  $("conversations").replaceChildren(...found.conversations.map(item));
  $("show-more").hidden = !next;
  $("nothing-found").hidden = found.conversations.length > 0 || !$("search").value.trim();
}

export function mark(id) {
  for (const open of document.querySelectorAll("#conversations [aria-current]")) open.removeAttribute("aria-current");
  if (id) list().catch((error) => say(reasonOf(error)));
}

async function showMore() {
  const found = await page(next);
  next = found.next;
  const items = found.conversations.map(item);
  $("conversations").append(...items);
  $("show-more").hidden = !next;
  items[0]?.querySelector("button").focus();
}

function manage(conversation) {
  managed = conversation;
  $("conversation-title").value = conversation.title;
  const address = `/api/conversations/${encodeURIComponent(conversation.conversation_id)}/export`;
  $("export-markdown").href = `${address}?format=markdown`;
  $("export-json").href = `${address}?format=json`;
  $("conversation-problem").hidden = true;
  $("really-delete").hidden = true;
  $("manage").showModal();
  $("conversation-title").select();
}

async function change(work) {
  try {
    await work(`/api/conversations/${encodeURIComponent(managed.conversation_id)}`);
    $("manage").close();
    await list();
  } catch (error) {
    $("conversation-problem").textContent = reasonOf(error);
    $("conversation-problem").hidden = false;
  }
}

export function listen(isCurrent, does) {
  current = isCurrent;
  actions = does;
  let waiting = 0;
  $("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => list().catch((error) => say(reasonOf(error))), SEARCH_AFTER_MS);
  });
  $("show-more").addEventListener("click", () => showMore().catch((error) => say(reasonOf(error))));
  $("manage-form").addEventListener("submit", (event) => {
    event.preventDefault();
    change(async (address) => {
      const renamed = await call("PATCH", address, { title: $("conversation-title").value.trim() });
      actions.renamed(renamed);
    });
  });
  $("delete-conversation").addEventListener("click", () => {
    $("really-delete").hidden = false;
    $("confirm-delete").focus();
  });
  $("confirm-delete").addEventListener("click", () =>
    change(async (address) => {
      await call("DELETE", address);
      actions.deleted(managed.conversation_id);
    }),
  );
}
