// Figures, flagged messages and feedback, for administrators.

import { call, reasonOf } from "./api.js";
import { $, element, say, when } from "./dom.js";

const FIGURES = {
  users: "Accounts",
  conversations: "Conversations",
  messages: "Messages",
  feedback_up: "Good answers",
  feedback_down: "Bad answers",
  running: "Answering now",
  waiting: "Waiting",
};

function showFigures(figures) {
  const parts = Object.entries(FIGURES).map(([name, label]) =>
    element("div", {}, element("dt", { textContent: label }), element("dd", { textContent: figures[name].toLocaleString() })),
  );
  $("figures").replaceChildren(...parts);
  const head = ["Day", "Answers", "Prompt tokens", "Answer tokens"].map((textContent) => element("th", { textContent, scope: "col" }));
  const rows = figures.days.map((day) =>
    element(
      "tr",
      {},
      ...[day.day, day.requests, day.prompt_tokens, day.completion_tokens].map((value) =>
        element("td", { textContent: value.toLocaleString() }),
      ),
    ),
  );
  $("days").replaceChildren(element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows));
}

function card(title, detail, ...texts) {
  return element(
    "li",
    {},
    element("strong", { textContent: title }),
    element("span", { textContent: detail }),
    ...texts.filter(Boolean).map((textContent) => element("p", { textContent })),
  );
}

function traceOf(messageId) {
  const shown = element("div");
  const details = element("details", {}, element("summary", { textContent: "Where it came from" }), shown);
  details.addEventListener("toggle", async () => {
    if (!details.open || shown.children.length) return;
    try {
      const { steps } = await call("GET", `/api/admin/trace/${encodeURIComponent(messageId)}`);
      shown.replaceChildren(
        ...steps.map(({ name, says, page }) =>
          element("p", {}, `${name}: `, element("a", { href: page, target: "_blank", rel: "noopener", textContent: says })),
        ),
      );
    } catch (error) {
      say(reasonOf(error));
    }
  });
  return details;
}

function showFlagged({ messages }) {
  const cards = messages.map((message) => {
    const item = card(`${message.category} (${message.place})`, when(message.timestamp), message.question, message.content);
    item.append(traceOf(message.message_id));
    return item;
  });
  $("flagged").replaceChildren(...(cards.length ? cards : [card("None", "")]));
}

function showJudged({ feedback }) {
  const cards = feedback.map((each) => {
    const item = card(each.reason || "no reason given", when(each.timestamp), each.feedback_text);
    const note = element("input", { value: each.action_taken, maxLength: 500, placeholder: "What was done", "aria-label": "What was done" });
    note.addEventListener("change", () =>
      call("PUT", `/api/admin/feedback/${encodeURIComponent(each.feedback_id)}`, { action_taken: note.value }).catch((error) => say(reasonOf(error))),
    );
    item.append(note, traceOf(each.message_id));
    return item;
  });
  $("judged").replaceChildren(...(cards.length ? cards : [card("None", "")]));
}

try {
  showFigures(await call("GET", "/api/admin/figures"));
  showFlagged(await call("GET", "/api/admin/flagged"));
  showJudged(await call("GET", "/api/admin/feedback"));
} catch (error) {
  say(reasonOf(error));
}
