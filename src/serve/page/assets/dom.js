// Elements in one expression. Text always goes in as text: nothing that a viewer, a CDN or a dashboard file says
// is ever read as markup.

const SVG = 'http://www.w3.org/2000/svg';

/** `el('a', {href, class: 'x', onclick}, 'text', child)`; null and false children are left out. */
export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (name === 'style') for (const [key, text] of Object.entries(value)) node.style.setProperty(key, text);
    else node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Puts children in place of those that are there; null and false are left out. */
export function put(node, ...children) {
  node.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
}

/** A link that a dashboard file or an alert gave: only the web and paths of this page. */
export function safeHref(href) {
  try {
    const url = new URL(href, location.href);
    return ['http:', 'https:'].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

/** The value of a colour or size of the stylesheet. */
export function token(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** A button that shows a sign and says a word. */
export function iconButton(sign, label, onclick, more = {}) {
  return el('button', { type: 'button', class: 'icon', 'aria-label': label, title: label, onclick, ...more }, sign);
}
