// Small helpers for the page's elements.

export const $ = (id) => document.getElementById(id);

export function element(name, properties = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("aria-") || key === "role" || key === "for") node.setAttribute(key, value);
    else node[key] = value;
  }
  node.append(...children);
  return node;
}

export function say(problem) {
  $("problem").textContent = problem ?? "";
  $("problem").hidden = !problem;
}

export function announce(text) {
  $("announcer").textContent = text;
}

export function when(text) {
  return text ? new Date(text).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" }) : "never";
}
