// Calls of the node's public API with the key of this tab. Knows no page and touches no element.

const KEY = 'foxhound-key';

/** An answer that is no success, or none at all (`status` 0, `code` "offline"). */
export class ApiError extends Error {
  constructor(status, problem) {
    super(problem.detail || `The node answered ${status}.`);
    this.name = 'ApiError';
    this.status = status;
    this.code = problem.code || 'unknown';
    this.detail = this.message;
    this.errors = problem.errors || [];
    this.problem = problem;
  }
}

export const getKey = () => sessionStorage.getItem(KEY) || '';
export const setKey = key => sessionStorage.setItem(KEY, key);
export const clearKey = () => sessionStorage.removeItem(KEY);

const OFFLINE = {code: 'offline', detail: 'The node does not answer. Check that it runs and that this device is online.'};

function announce(name, detail) {
  window.dispatchEvent(new CustomEvent(`foxhound:${name}`, {detail}));
}

function withKey(headers) {
  const key = getKey();
  return key ? {Authorization: `Bearer ${key}`, ...headers} : {...headers};
}

/**
 * Send a request; return the response if it is a success, else throw an ApiError. `isQuiet`: a refusal for want of a
 * scope is the caller's matter alone.
 */
export async function send(path, {method = 'GET', body, form, signal, headers = {}, isQuiet = false} = {}) {
  const sent = withKey(headers);
  if (body !== undefined) sent['Content-Type'] = 'application/json';
  let response;
  try {
    response = await fetch(path, {
      method, signal, headers: sent, body: form ?? (body === undefined ? undefined : JSON.stringify(body)),
      credentials: 'omit',
    });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    announce('offline', true);
    throw new ApiError(0, OFFLINE);
  }
  announce('offline', false);
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  const refused = new ApiError(response.status, problem);
  if (!isQuiet && (refused.status === 401 || refused.status === 403)) announce('refused', refused);
  throw refused;
}

/** Call a route; return its JSON, or null if the answer has no body. */
export async function api(path, options = {}) {
  const response = await send(path, {...options, headers: {Accept: 'application/json', ...options.headers}});
  const text = await response.text();
  return text ? JSON.parse(text) : null;
}

/** Return what a route answers, as a blob. */
export async function blob(path, options = {}) {
  return (await send(path, options)).blob();
}

const MAX_URLS = 600;
const urls = new Map();

/** Return a URL that an <img> can load: the route's own, or an object URL of bytes that were fetched with the key. */
export async function imageUrl(id, width) {
  const path = `/images/${encodeURIComponent(id)}${width ? `?width=${width}` : ''}`;
  return getKey() ? keyedUrl(path) : path;
}

/** Return an object URL of what a path answers; the oldest of them are given up. */
export async function keyedUrl(path) {
  const known = urls.get(path);
  if (known) {
    urls.delete(path);
    urls.set(path, known);
    return known;
  }
  const url = URL.createObjectURL(await blob(path));
  urls.set(path, url);
  if (urls.size > MAX_URLS) {
    const [oldest, given] = urls.entries().next().value;
    urls.delete(oldest);
    URL.revokeObjectURL(given);
  }
  return url;
}

/**
 * Follow server-sent events until they end: `onEvent({event, data, id})`, `data` parsed.
 *
 * With a body it is one POST. Without, a connection that breaks is opened again, with `Last-Event-ID`, until the
 * server ends it with an event of a final status or `signal` aborts.
 */
export async function events(path, {body, signal, onEvent}) {
  let last = '';
  let wait = 500;
  for (;;) {
    let isOver = false;
    try {
      const headers = {Accept: 'text/event-stream', ...(last ? {'Last-Event-ID': last} : {})};
      const response = await send(path, {method: body === undefined ? 'GET' : 'POST', body, signal, headers});
      for await (const message of messages(response.body)) {
        wait = 500;
        last = message.id || last;
        isOver = isLast(message);
        onEvent(message);
      }
      if (body !== undefined || isOver) return;
    } catch (error) {
      const isBroken = error instanceof TypeError || (error instanceof ApiError && [0, 503].includes(error.status));
      if (signal?.aborted || body !== undefined || !isBroken) throw error instanceof TypeError ? new ApiError(0, OFFLINE) : error;
    }
    await pause(wait, signal);
    wait = Math.min(wait * 2, 10_000);
  }
}

function isLast({data}) {
  return ['succeeded', 'failed', 'cancelled'].includes(data?.status);
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener('abort', () => {
      clearTimeout(timer);
      reject(new DOMException('Aborted', 'AbortError'));
    }, {once: true});
  });
}

async function* messages(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  try {
    for (;;) {
      const {value, done} = await reader.read();
      if (done) return;
      const blocks = (rest + value).split(/\r?\n\r?\n/);
      rest = blocks.pop();
      for (const block of blocks) {
        const message = parse(block);
        if (message) yield message;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parse(block) {
  const message = {event: 'message', id: '', data: ''};
  const data = [];
  for (const line of block.split(/\r?\n/)) {
    const [, field, value] = /^([^:]*):? ?(.*)$/.exec(line);
    if (field === 'data') data.push(value);
    else if (field === 'event' || field === 'id') message[field] = value;
  }
  if (!data.length) return null;
  const text = data.join('\n');
  try {
    message.data = JSON.parse(text);
  } catch {
    message.data = text;
  }
  return message;
}
