// Signing up, logging in and out, and the dialog with everything of an account.

import { call, reasonOf } from "./api.js";
import { $, element, when } from "./dom.js";

let me = null;
let visitors = true;
let changed = () => {};

// ---------------------------------------------------------------- theme

function useTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  localStorage.setItem("theme", theme);
}

useTheme(localStorage.getItem("theme") ?? "system");

// ---------------------------------------------------------------- who is here

export async function readMe(visitorsAllowed) {
  visitors = visitorsAllowed;
  try {
    me = await call("GET", "/api/me");
  } catch (error) {
    if (error.status !== 401) throw error;
    me = visitors ? await call("GET", "/api/me") : null; // the cookie of an ended session is gone now
  }
  if (me?.email) useTheme(me.preferences.theme);
  const known = Boolean(me?.email);
  $("log-in").hidden = known;
  $("account").hidden = !known;
  $("who").textContent = known ? me.email : "";
  if (!me) openSignIn();
  return me;
}

// ---------------------------------------------------------------- signing in

function signingUp() {
  return $("sign-in").dataset.mode === "register";
}

function setMode(mode) {
  const register = mode === "register";
  $("sign-in").dataset.mode = mode;
  $("sign-in-title").textContent = register ? "Make an account" : "Welcome back";
  $("sign-in-submit").textContent = register ? "Sign up" : "Log in";
  $("sign-in-switch").textContent = register ? "I have an account" : "Make an account";
  $("password").autocomplete = register ? "new-password" : "current-password";
  $("password-hint").hidden = !register;
  problem("sign-in-problem");
}

function problem(id, text) {
  $(id).textContent = text ?? "";
  $(id).hidden = !text;
}

export function openSignIn(mode = "login", why) {
  setMode(mode);
  problem("sign-in-problem", why);
  $("sign-in-close").hidden = !visitors;
  if (!$("sign-in").open) $("sign-in").showModal();
  $("email").focus();
}

async function signIn() {
  const who = { email: $("email").value, password: $("password").value };
  problem("sign-in-problem");
  $("sign-in-submit").disabled = true;
  try {
    if (signingUp()) await call("POST", "/api/register", who);
    await call("POST", "/api/login", who);
    $("password").value = "";
    $("sign-in").close();
    await changed();
  } catch (error) {
    const taken = signingUp() && error.code === "wrong_credentials";
    problem("sign-in-problem", taken ? "This did not work. Perhaps there is an account: log in instead." : reasonOf(error));
  } finally {
    $("sign-in-submit").disabled = false;
  }
}

// ---------------------------------------------------------------- the account's dialog

async function openAccount() {
  $("account-email").textContent = me.email;
  $("theme").value = me.preferences.theme;
  $("share").checked = me.preferences.share_conversations;
  $("admin-link").hidden = !me.admin;
  for (const id of ["account-problem", "new-key"]) $(id).hidden = true;
  $("account-dialog").showModal();
  await attempt(async () => {
    await Promise.all([listDevices(), listKeys(), showUsage()]);
  });
}

async function attempt(work) {
  problem("account-problem");
  try {
    await work();
  } catch (error) {
    problem("account-problem", reasonOf(error));
  }
}

function row(title, detail, label, remove) {
  const text = element("div", {}, element("strong", { textContent: title }), element("span", { textContent: detail }));
  const button = element("button", { type: "button", className: "plain", textContent: label, "aria-label": `${label}: ${title}` });
  button.addEventListener("click", () => attempt(remove));
  return element("li", {}, text, ...(remove ? [button] : []));
}

async function listDevices() {
  const { sessions } = await call("GET", "/api/sessions");
  const rows = sessions.map((session) => {
    const name = session.current ? "This device" : session.device_info || "A program";
    const end = async () => {
      await call("DELETE", `/api/sessions/${session.session_id}`);
      await listDevices();
    };
    return row(name, `Last used ${when(session.last_active)}`, "Log out", session.current ? null : end);
  });
  $("devices").replaceChildren(...rows);
}

async function listKeys() {
  const { keys } = await call("GET", "/api/keys");
  const rows = keys.map((key) =>
    row(key.name, `${key.shown}… · last used ${when(key.last_used)}`, "Delete", async () => {
      await call("DELETE", `/api/keys/${key.key_id}`);
      await listKeys();
    }),
  );
  $("keys").replaceChildren(...rows);
}

async function makeKey() {
  const { key } = await call("POST", "/api/keys", { name: $("key-name").value.trim() });
  $("key-name").value = "";
  $("key-text").textContent = key;
  $("new-key").hidden = false;
  await listKeys();
}

async function showUsage() {
  const { days, tokens_per_day: quota } = await call("GET", "/api/usage?days=30");
  const tokens = (found) => found.reduce((sum, day) => sum + day.prompt_tokens + day.completion_tokens, 0);
  const today = new Date().toISOString().slice(0, 10);
  const used = tokens(days.filter((day) => day.day === today)).toLocaleString();
  const limit = quota ? ` of ${quota.toLocaleString()}` : "";
  $("usage").textContent = `Today ${used}${limit} tokens, in 30 days ${tokens(days).toLocaleString()}.`;
}

async function savePreferences() {
  const wanted = { theme: $("theme").value, share_conversations: $("share").checked };
  me.preferences = await call("PUT", "/api/me/preferences", wanted);
  useTheme(wanted.theme);
}

async function changePassword() {
  await call("PUT", "/api/me/password", { current: $("old-password").value, new: $("new-password").value });
  $("password-form").reset();
  await listDevices();
  problem("account-problem", "The password is changed; other devices are logged out.");
}

async function leave(work) {
  await work();
  localStorage.removeItem("theme");
  useTheme("system");
  $("account-dialog").close();
  await changed();
}

function onSubmit(id, work) {
  $(id).addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(work);
  });
}

// `whenChanged` is called when somebody else is here now: logged in, logged out or gone.
export function listen(whenChanged) {
  changed = whenChanged;
  $("log-in").addEventListener("click", () => openSignIn());
  $("sign-in-switch").addEventListener("click", () => setMode(signingUp() ? "login" : "register"));
  $("sign-in-form").addEventListener("submit", (event) => {
    event.preventDefault();
    signIn();
  });
  $("sign-in").addEventListener("cancel", (event) => visitors || event.preventDefault());
  $("account").addEventListener("click", openAccount);
  for (const id of ["theme", "share"]) $(id).addEventListener("change", () => attempt(savePreferences));
  onSubmit("key-form", makeKey);
  onSubmit("password-form", changePassword);
  onSubmit("delete-form", () =>
    leave(() => call("POST", "/api/me/delete", { password: $("delete-password").value })).then(() => $("delete-form").reset()),
  );
  $("log-out").addEventListener("click", () => attempt(() => leave(() => call("POST", "/api/logout"))));
  for (const close of document.querySelectorAll("dialog [data-close]")) {
    close.addEventListener("click", () => close.closest("dialog").close());
  }
}
