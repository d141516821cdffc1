// What Grafana makes of panels: reads [{panel, frames}] from standard input, writes what each would show.
// Its own code transforms, names, colours and formats; nothing is drawn.
globalThis.navigator = { language: 'en-US', languages: ['en-US'] }; // it asks for the browser's
const data = require('@grafana/data');
globalThis.window = globalThis; // after it is loaded: what it loads would look for the rest of a browser

const transformations = new Map(Object.values(data.standardTransformers).map((one) => [one.id, one])); // some have two names
data.standardTransformersRegistry.setInit(() =>
  [...transformations].map(([id, one]) => ({ id, name: one.name, transformation: async () => one, editor: () => null }))
);
data.standardEditorsRegistry.setInit(() => []);
const theme = data.createTheme();
const properties = ['unit', 'decimals', 'min', 'max', 'noValue', 'links', 'color', 'mappings', 'thresholds', 'displayName'];
const custom = ['width', 'align', 'cellOptions', 'hidden', 'fillOpacity', 'lineWidth', 'lineStyle', 'stacking'];
const registry = new data.Registry(() =>
  [...properties.map((id) => [id, id]), ...custom.map((path) => [`custom.${path}`, path])].map(([id, path]) => ({
    id, path, name: id, isCustom: id !== path, shouldApply: () => true, process: (value) => value, override: () => null, editor: () => null,
  }))
);

async function shown({ panel, frames }) {
  const context = { interpolate: (text) => text };
  const before = frames.map((frame) => data.toDataFrame(frame));
  const after = await new Promise((done, failed) =>
    data.transformDataFrame(panel.transformations ?? [], before, context).subscribe({ next: done, error: failed })
  );
  const ready = data.applyFieldOverrides({
    data: after, theme, fieldConfig: panel.fieldConfig, fieldConfigRegistry: registry, replaceVariables: (text) => text, timeZone: 'utc',
  });
  return ready.map((frame) =>
    frame.fields.map((field) => ({
      title: data.getFieldDisplayName(field, frame, ready),
      cells: Array.from(field.values, (value) => {
        const { text, suffix, color } = field.display(value);
        return { value, text: text + (suffix ?? ''), color };
      }),
      config: field.config,
    }))
  );
}

function known() {
  const units = data.getValueFormats().flatMap((category) => category.submenu.map((unit) => unit.value));
  const modes = data.fieldColorModeRegistry.list().map((mode) => mode.id);
  return { units, modes, transformations: data.standardTransformersRegistry.list().map((one) => one.id) };
}

async function main() {
  let text = '';
  for await (const chunk of process.stdin) text += chunk;
  const { panels, colours } = JSON.parse(text);
  const resolved = Object.fromEntries(colours.map((name) => [name, theme.visualization.getColorByName(name)]));
  process.stdout.write(JSON.stringify({ known: known(), colours: resolved, shown: await Promise.all(panels.map(shown)) }));
}

main();
