// What is shown, as the address of the page says it: a link that is sent to a colleague shows the same.

/** `/d/<uid>`, `/session/<id>` or the start page. */
export function place() {
  const [kind, ...rest] = location.pathname.split('/').filter(Boolean);
  return { kind: kind ?? 'd', name: rest.length ? decodeURIComponent(rest.join('/')) : null };
}

export function query() {
  return new URLSearchParams(location.search);
}

export function range(dashboard) {
  const said = query();
  return { from: said.get('from') ?? dashboard?.time?.from ?? 'now-1h', to: said.get('to') ?? dashboard?.time?.to ?? 'now' };
}

/** Chosen values of the variables: name to list of values. */
export function chosen() {
  const values = {};
  for (const [name, value] of query()) {
    if (name.startsWith('var-')) (values[name.slice(4)] ??= []).push(value);
  }
  return values;
}

/** Changes parameters; `null` takes one out, a list gives it several times. */
export function change(parameters, { replace = false } = {}) {
  const said = query();
  for (const [name, value] of Object.entries(parameters)) {
    said.delete(name);
    for (const one of [value].flat()) if (one !== null && one !== undefined) said.append(name, one);
  }
  const text = said.toString();
  const address = location.pathname + (text ? `?${text}` : '');
  if (address === location.pathname + location.search) return;
  history[replace ? 'replaceState' : 'pushState'](null, '', address);
}

/** A text of a dashboard file with its variables: `$x`, `${x}`, `[[x]]`. */
export function words(text, values) {
  const told = (whole, name) => (name in values ? values[name].map((value) => (value === '$__all' ? 'All' : value)).join(', ') : whole);
  return text.replace(/\$\{(\w+)(?::\w+)?\}|\[\[(\w+)\]\]|\$(\w+)/g, (whole, a, b, c) => told(whole, a ?? b ?? c));
}

/** A link into the page that keeps the range, and of the variables those that are given. */
export function hrefOf(path, variables = chosen()) {
  const kept = new URLSearchParams();
  for (const name of ['from', 'to', 'refresh', 'wall', 'theme']) {
    const value = query().get(name);
    if (value !== null) kept.set(name, value);
  }
  for (const [name, values] of Object.entries(variables)) for (const value of values) kept.append(`var-${name}`, value);
  const text = kept.toString();
  return path + (text ? `?${text}` : '');
}
