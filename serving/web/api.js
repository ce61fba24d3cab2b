// Requests to this page's own server.

export class RequestFailed extends Error {
  constructor(message, status, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

let onLoggedOut = () => {};

// What to do when the server says that nobody is logged in any more.
export function whenLoggedOut(callback) {
  onLoggedOut = callback;
}

export async function send(method, path, body, signal) {
  const options = { method, headers: {}, signal };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const response = await fetch(path, options);
  if (response.ok) return response;
  const failed = await failure(response);
  if (["session_ended", "login_required"].includes(failed.code)) onLoggedOut(failed.code);
  throw failed;
}

export async function call(method, path, body) {
  const response = await send(method, path, body);
  return response.status === 204 ? null : response.json();
}

async function failure(response) {
  const wait = response.headers.get("Retry-After");
  const { error } = (await response.json().catch(() => null)) ?? {};
  let reason = error?.message ?? `The server answered with ${response.status}.`;
  if (error?.code === "queue_full") reason = `Many people are asking right now. Try again in ${wait} s.`;
  return new RequestFailed(reason, response.status, error?.code);
}

export function reasonOf(error) {
  return error instanceof RequestFailed ? error.message : "The server can't be reached.";
}

export async function* events(response) {
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
