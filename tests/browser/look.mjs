// Looks at every dashboard of a running Playhead with Chromium and prints what it saw as JSON.
//
//   look.mjs ADDRESS FROM_MS TO_MS [--pictures FOLDER] [--session ID] [--choose NAME=VALUE]
//
// What is printed: `dashboards`: for each the state of every panel and the values that its stats show; `trouble`: every
// line of the browser's console above "log", every uncaught error, every request to another host; `incidents`: the
// rows of the list; `session`: the headings of a session's view; `chosen`: values of the first dashboard with a choice.

import { createRequire } from 'node:module';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';

const { chromium } = createRequire(import.meta.url)(process.env.PLAYWRIGHT_CORE);
const [address, from, to, ...rest] = process.argv.slice(2);
const options = {};
for (let index = 0; index < rest.length; index += 2) options[rest[index].replace('--', '')] = rest[index + 1];
/** A debug binary on a busy machine, with room. */
const PATIENCE_MS = 120_000;
/** Charts are drawn in the frames after the answer. */
const SETTLE_MS = 400;

const seen = { dashboards: {}, trouble: [], incidents: [], session: null, chosen: null };
const browser = await chromium.launch({
  executablePath: process.env.PLAYHEAD_CHROMIUM, headless: true,
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});

async function open(path, { width = 1600, height = 1000, theme = 'dark', parameters = {} } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: theme, reducedMotion: 'reduce' });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  page.on('console', (line) => { if (['error', 'warning'].includes(line.type())) seen.trouble.push(`${path}: console: ${line.text()}`); });
  page.on('pageerror', (error) => seen.trouble.push(`${path}: ${error.message}`));
  page.on('request', (request) => { if (!request.url().startsWith(address) && !/^(data|blob):/.test(request.url())) seen.trouble.push(`${path}: asks ${request.url()}`); });
  const query = new URLSearchParams({ from, to, ...parameters });
  await page.goto(`${address}${path}?${query}`);
  await page.waitForFunction(() => document.body.dataset.ready, null, { timeout: PATIENCE_MS });
  await page.waitForTimeout(SETTLE_MS);
  return page;
}

async function picture(page, name, fullPage = false) {
  if (!options.pictures) return;
  mkdirSync(options.pictures, { recursive: true });
  await page.screenshot({ path: join(options.pictures, `${name}.png`), fullPage });
}

const panelsOf = (page) => page.$$eval('.panel', (nodes) => nodes.map((node) => ({
  id: Number(node.dataset.panel), title: node.querySelector('h3').textContent, state: node.dataset.state, notice: node.querySelector('.notice').textContent,
  figures: [...node.querySelectorAll('.stat .figure')].map((figure) => ({ value: figure.dataset.value, text: figure.textContent })),
  drawn: Boolean(node.querySelector('.chart svg, .stat, .gauge, .bars li, tbody tr, .prose')),
})));

try {
  const { dashboards } = await (await fetch(`${address}/api/dashboards`)).json();
  for (const { uid } of dashboards) {
    const page = await open(`/d/${uid}`);
    seen.dashboards[uid] = await panelsOf(page);
    await picture(page, uid, true);
    if (uid === dashboards[0].uid) {
      await page.waitForSelector('#incidents li, #incidents .calm', { state: 'attached' });
      seen.incidents = await page.$$eval('.incident', (nodes) => nodes.map((node) => ({ status: node.querySelector('.status').firstChild.textContent, text: node.querySelector('.what').textContent })));
      await picture(page, 'overview-dark');
      // SQL, table and sorting by keyboard alone.
      await page.keyboard.press('Escape');
      const chart = await page.$('.panel[data-state="shown"] .tools button[aria-pressed]');
      await chart.focus();
      await page.keyboard.press('Enter');
      seen.tableOnDemand = await page.$$eval('.panel [role="region"] th[aria-sort]', (nodes) => nodes.length);
      await page.click('.panel[data-state="shown"] .tools button', { force: true });
      seen.sql = await page.$eval('dialog.sql pre', (node) => node.textContent);
      await page.keyboard.press('Escape');
    }
    await page.context().close();
  }
  const first = `/d/${dashboards[0].uid}`;
  if (options.choose) {
    const [name, value] = options.choose.split('=');
    const page = await open(first, { parameters: { [`var-${name}`]: value } });
    seen.chosen = await panelsOf(page);
    await page.context().close();
  }
  if (options.session) {
    const page = await open(`/session/${encodeURIComponent(options.session)}`);
    seen.session = await page.$$eval('main h2, main h3, main summary', (nodes) => nodes.map((node) => node.textContent));
    await picture(page, 'session', true);
    await page.context().close();
  }
  for (const [name, more] of Object.entries({ 'overview-light': { theme: 'light' }, phone: { width: 390, height: 844 }, wall: { width: 1920, height: 1080, parameters: { wall: '1' } } })) {
    const page = await open(first, more);
    seen[name] = await page.evaluate(() => ({ theme: document.documentElement.dataset.theme, overflow: document.documentElement.scrollWidth - innerWidth }));
    await picture(page, name, name === 'phone');
    await page.context().close();
  }
} finally {
  await browser.close();
}
console.log(JSON.stringify(seen));
