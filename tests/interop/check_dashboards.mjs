#!/usr/bin/env node
// Checks dashboard files against the types that Grafana publishes (@grafana/schema).
//
// Usage: check_dashboards.mjs DASHBOARDS MODULES
//
// DASHBOARDS is a folder of JSON files; MODULES is a folder with node_modules that holds @grafana/schema and
// typescript. Each file becomes a literal of type Dashboard, and each panel's `options` and `custom` literals of
// the types of its panel, so that the compiler complains of what Grafana does not know. Exits 1 naming file,
// panel and complaint.

import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, join, resolve } from 'node:path';

// More complaints than this hide the first ones.
const COMPLAINTS_SHOWN_MAX = 20;

// Panel types of ours, and the module of @grafana/schema that describes each.
const PANELS = {
  barchart: 'BarChart',
  bargauge: 'BarGauge',
  gauge: 'Gauge',
  geomap: 'Geomap',
  heatmap: 'Heatmap',
  piechart: 'PieChart',
  stat: 'Stat',
  table: 'Table',
  text: 'Text',
  timeseries: 'TimeSeries',
};

// JSON has no enums: the text of one stands for it. Panels fill in what a file leaves out.
const PRELUDE = `
type Json<T> = T extends string ? \`\${T}\` : T extends (infer U)[] ? Json<U>[] : T extends object ? { [K in keyof T]: Json<T[K]> } : T;
type Part<T> = T extends (infer U)[] ? Part<U>[] : T extends object ? { [K in keyof T]?: Part<T[K]> } : T;
`;

function main() {
  const [folder, modules] = process.argv.slice(2).map((path) => resolve(path));
  if (!folder || !modules) {
    console.error('usage: check_dashboards.mjs DASHBOARDS MODULES');
    process.exit(64);
  }
  const files = readdirSync(folder).filter((name) => name.endsWith('.json'));
  const dashboards = files.map((name) => [name, JSON.parse(readFileSync(join(folder, name), 'utf8'))]);
  if (dashboards.length === 0) {
    console.error(`no dashboard in ${folder}`);
    process.exit(1);
  }
  const complaints = compiled(modules, dashboards);
  const expected = ['wrong.json: dashboard', 'wrong.json: panel 1 options', 'wrong.json: panel 1 custom'];
  const found = compiled(modules, [['wrong.json', wrong(dashboards[0][1])]]);
  const missed = expected.filter((start) => !found.some((complaint) => complaint.startsWith(start)));
  complaints.push(...missed.map((start) => `the check itself finds nothing wrong with ${start}`));
  complaints.slice(0, COMPLAINTS_SHOWN_MAX).forEach((complaint) => console.error(complaint));
  if (complaints.length > 0) {
    console.error(`${complaints.length} complaints`);
    process.exit(1);
  }
  console.log(`${dashboards.length} dashboards are of the types of @grafana/schema`);
}

// A dashboard that must be complained of in three places: without this, a check that checks nothing would pass.
function wrong(dashboard) {
  const panel = { ...dashboard.panels[0], id: 1, type: 'timeseries' };
  panel.options = { legend: { placement: 'above' } };
  panel.fieldConfig = { defaults: { custom: { drawStyle: 'circles' } }, overrides: [] };
  return { ...dashboard, graphTooltip: 'shared', panels: [panel] };
}

// Compiles each dashboard and gives what the compiler says, with file and panel.
function compiled(modules, dashboards) {
  const ts = createRequire(join(modules, 'package.json'))('typescript');
  const scratch = join(modules, `check-${process.pid}`);
  mkdirSync(scratch, { recursive: true });
  try {
    const paths = dashboards.map(([name, dashboard]) => {
      const path = join(scratch, `${basename(name, '.json')}.ts`);
      writeFileSync(path, source(dashboard));
      return path;
    });
    const program = ts.createProgram(paths, {
      noEmit: true,
      strict: true,
      skipLibCheck: true,
      target: ts.ScriptTarget.ES2022,
      module: ts.ModuleKind.NodeNext,
      moduleResolution: ts.ModuleResolutionKind.NodeNext,
    });
    return ts.getPreEmitDiagnostics(program).map((diagnostic) => {
      const text = ts.flattenDiagnosticMessageText(diagnostic.messageText, ' ');
      if (!diagnostic.file) return text;
      const before = diagnostic.file.text.slice(0, diagnostic.start);
      const part = [...before.matchAll(/^\/\/ (.*)$/gm)].pop()?.[1] ?? 'imports';
      return `${basename(diagnostic.file.fileName, '.ts')}.json: ${part}: ${text}`;
    });
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

// One dashboard as TypeScript; a comment before each literal says what it is.
function source(dashboard) {
  const panels = dashboard.panels.flatMap((panel) => [panel, ...(panel.panels ?? [])]).filter((panel) => panel.type !== 'row');
  const kinds = [...new Set(panels.map((panel) => panel.type))];
  const lines = ["import type { Dashboard } from '@grafana/schema';"];
  for (const kind of kinds) {
    const of = PANELS[kind];
    if (!of) throw new Error(`panels of type ${kind} have no schema here: add it to PANELS`);
    lines.push(`import type * as ${of} from '@grafana/schema/dist/esm/raw/composable/${kind}/panelcfg/x/${of}PanelCfg_types.gen';`);
  }
  lines.push(PRELUDE, '// dashboard', literal('dashboard', 'Json<Dashboard>', dashboard));
  panels.forEach((panel, at) => {
    const of = PANELS[panel.type];
    lines.push(`// panel ${panel.id} options`, literal(`options${at}`, `Part<Json<${of}.Options>>`, panel.options ?? {}));
    const custom = panel.fieldConfig?.defaults?.custom;
    if (custom) lines.push(`// panel ${panel.id} custom`, literal(`custom${at}`, `Part<Json<${of}.FieldConfig>>`, custom));
  });
  return lines.join('\n');
}

function literal(name, type, value) {
  return `export const ${name}: ${type} = ${JSON.stringify(value, null, 2)};`;
}

main();
