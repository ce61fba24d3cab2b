// Renders an answer's Markdown as DOM nodes. Text only ever becomes text nodes: no HTML of an answer is parsed.

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$/;
const RULE = /^ {0,3}([-*_])(\s*\1){2,}\s*$/;
const QUOTE = /^ {0,3}>\s?/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const TABLE_RULE = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)+\|?\s*$/;
const INLINE = new RegExp(
  [
    "(`+)([^`](?:.*?[^`])?)\\1(?!`)", // code
    "\\*\\*(?=\\S)(.+?\\S?)\\*\\*(?!\\*)", // strong
    "(?<![\\w_])__(?=\\S)(.+?)__(?![\\w_])",
    "\\*(?=[^\\s*])(.+?)\\*(?!\\*)", // emphasis
    "(?<![\\w_])_(?=[^\\s_])(.+?)_(?![\\w_])",
    "~~(?=\\S)(.+?)~~",
    "\\[([^\\]\\n]+)\\]\\(\\s*<?([^\\s)>]+)>?(?:\\s+\"[^\"]*\")?\\s*\\)", // link
    "(https?://[^\\s<>()]+[^\\s<>().,;:!?'\"])", // bare address
    "\\\\([!-/:-@\\[-`{-~])", // escaped punctuation
  ].join("|"),
  "s",
);
const DEEPEST = 6;

function element(name, ...children) {
  const node = document.createElement(name);
  node.append(...children);
  return node;
}

function safeAddress(text) {
  try {
    const url = new URL(text);
    return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

function link(label, address) {
  const href = safeAddress(address);
  if (!href) return document.createTextNode(`${label} (${address})`);
  const node = element("a", label);
  node.href = href;
  node.target = "_blank";
  node.rel = "noopener noreferrer nofollow";
  return node;
}

function inline(text, depth = 0) {
  const nodes = [];
  let rest = text;
  while (rest) {
    const found = depth < DEEPEST ? INLINE.exec(rest) : null;
    if (!found) break;
    if (found.index) nodes.push(document.createTextNode(rest.slice(0, found.index)));
    const [all, , code, strong, strong2, em, em2, struck, label, address, bare, escaped] = found;
    if (code !== undefined) nodes.push(element("code", code.trim() ? code.replace(/^ (.*) $/s, "$1") : code));
    else if (strong ?? strong2) nodes.push(element("strong", ...inline(strong ?? strong2, depth + 1)));
    else if (em ?? em2) nodes.push(element("em", ...inline(em ?? em2, depth + 1)));
    else if (struck) nodes.push(element("s", ...inline(struck, depth + 1)));
    else if (label) nodes.push(link(label, address));
    else if (bare) nodes.push(link(bare, bare));
    else nodes.push(document.createTextNode(escaped));
    rest = rest.slice(found.index + all.length);
  }
  if (rest) nodes.push(document.createTextNode(rest));
  return nodes;
}

function paragraph(lines) {
  const node = element("p");
  lines.forEach((line, index) => {
    if (index) node.append(element("br"));
    node.append(...inline(line.trim()));
  });
  return node;
}

function codeBlock(lines, language) {
  const code = element("code", lines.join("\n"));
  const copy = element("button", "Copy");
  copy.type = "button";
  copy.dataset.tool = "copy-code";
  const head = element("div", element("span", language || "code"), copy);
  head.className = "code-head";
  const pre = element("pre", code);
  pre.tabIndex = 0; // so that the keyboard can scroll it
  const block = element("div", head, pre);
  block.className = "code-block";
  return block;
}

function cells(line) {
  return line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
}

function table(lines) {
  const row = (line, name) => element("tr", ...cells(line).map((cell) => element(name, ...inline(cell))));
  const head = element("thead", row(lines[0], "th"));
  const body = element("tbody", ...lines.slice(2).map((line) => row(line, "td")));
  const frame = element("div", element("table", head, body));
  frame.className = "table-frame";
  return frame;
}

function list(lines, depth) {
  const [, indent, marker] = ITEM.exec(lines[0]);
  const ordered = /\d/.test(marker);
  const node = element(ordered ? "ol" : "ul");
  if (ordered && parseInt(marker, 10) !== 1) node.start = parseInt(marker, 10);
  const items = [];
  for (const line of lines) {
    const found = ITEM.exec(line);
    if (found && found[1].length <= indent.length + 1) items.push([found[3]]);
    else items[items.length - 1].push(line.slice(Math.min(line.length - line.trimStart().length, indent.length + 4)));
  }
  for (const item of items) {
    const plain = item.every((line, index) => index === 0 || (line.trim() && !ITEM.test(line) && !FENCE.test(line)));
    node.append(plain ? element("li", ...paragraph(item).childNodes) : element("li", ...blocks(item, depth + 1)));
  }
  return node;
}

function blocks(lines, depth = 0) {
  const nodes = [];
  let at = 0;
  const takeWhile = (test) => {
    const from = at;
    while (at < lines.length && test(lines[at], at - from)) at += 1;
    return lines.slice(from, at);
  };
  const startsBlock = (line) =>
    FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || ITEM.test(line);
  while (at < lines.length) {
    const line = lines[at];
    const fence = FENCE.exec(line);
    const heading = HEADING.exec(line);
    if (!line.trim()) at += 1;
    else if (fence) {
      at += 1;
      const body = takeWhile((next) => !next.trim().startsWith(fence[1]));
      at += 1;
      nodes.push(codeBlock(body, fence[2]));
    } else if (heading) {
      at += 1;
      nodes.push(element(`h${Math.min(6, heading[1].length + 2)}`, ...inline(heading[2])));
    } else if (RULE.test(line)) {
      at += 1;
      nodes.push(element("hr"));
    } else if (QUOTE.test(line)) {
      const inner = takeWhile((next) => QUOTE.test(next)).map((next) => next.replace(QUOTE, ""));
      nodes.push(element("blockquote", ...(depth < DEEPEST ? blocks(inner, depth + 1) : [paragraph(inner)])));
    } else if (ITEM.test(line) && depth < DEEPEST) {
      const body = takeWhile(
        (next, index) =>
          ITEM.test(next) || /^\s{2,}\S/.test(next) || (index > 0 && next.trim() && !startsBlock(next)) ||
          (!next.trim() && ITEM.test(lines[at + 1] ?? "")),
      );
      nodes.push(list(body.filter((next) => next.trim()), depth));
    } else if (line.includes("|") && TABLE_RULE.test(lines[at + 1] ?? "")) {
      nodes.push(table(takeWhile((next) => next.includes("|"))));
    } else {
      nodes.push(paragraph(takeWhile((next, index) => next.trim() && (index === 0 || !startsBlock(next)))));
    }
  }
  return nodes;
}

/** The DOM nodes of `text`, safe to insert. */
export function render(text) {
  return blocks(text.replace(/\r\n?/g, "\n").split("\n"));
}
