// Questions to the server. The browser names a panel; the server knows its SQL.

export class Trouble extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** JSON of an address below `/api`; refuses with what the server says. */
export async function ask(path, parameters = [], signal = undefined) {
  const text = new URLSearchParams(parameters).toString();
  let answer;
  try {
    answer = await fetch(`/api/${path}${text ? `?${text}` : ''}`, { signal, headers: { accept: 'application/json' } });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Trouble('playhead does not answer; is it running?', 0);
  }
  const body = await answer.json().catch(() => null);
  if (!answer.ok) throw new Trouble(body?.error ?? `the server answered ${answer.status}`, answer.status);
  return body;
}

/** Parameters of a question about a dashboard: range and variables. */
export function scope(uid, range, variables) {
  const parameters = [['dashboard', uid], ['from', range.from], ['to', range.to]];
  for (const [name, values] of Object.entries(variables)) for (const value of values) parameters.push([`var-${name}`, value]);
  return parameters;
}

/**
 * Follows `/api/stream` while the page is looked at: a browser has six connections to a host, and pages that lie
 * in the background would hold them all.
 */
export function follow(onState, onConnection) {
  let source = null;
  const close = () => { source?.close(); source = null; };
  const open = () => {
    if (source || document.hidden) return;
    source = new EventSource('/api/stream');
    source.addEventListener('state', (event) => { onConnection(true); onState(JSON.parse(event.data)); });
    source.onerror = () => onConnection(false);
  };
  document.addEventListener('visibilitychange', () => (document.hidden ? close() : open()));
  addEventListener('pagehide', close);
  addEventListener('pageshow', open);
  open();
}
