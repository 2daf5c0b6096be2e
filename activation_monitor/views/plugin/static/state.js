// `view`, which is also in the address, holds what the user has chosen; `known` holds what the
// server has sent. Everything on the page is made from these two.

import {bySeverity} from './findings.js';
import * as host from './host.js';

const SHOWN_LAYERS = 4;

export const view = {
  hidden: new Set(), // names of runs that are not drawn
  focus: null, // name of the run in the figures of one run; null: the one with the worst findings
  reference: null, // name of the run that others are compared with; null: the best one
  finding: null, // code of its finding that is shown; null: the worst one
  statistic: null, // null: the statistic that shows the finding
  step: null, // null: the last step, also after new steps arrive
  layers: [],
  dark: false,
};

export const known = {
  runs: new Map(), // by name, as the server sends them
  places: new Map(), // by name, the place of each run among all runs of the log
  colours: {light: [], dark: []}, // of the places, in turn
};

// -- the address

export function readView(settings) {
  const list = (name) => {
    try {
      const found = JSON.parse(settings.get(name) || '[]');
      return Array.isArray(found) ? found.filter((one) => typeof one === 'string') : [];
    } catch (error) {
      return [];
    }
  };
  view.hidden = new Set(list('hidden'));
  view.layers = list('layers').slice(0, SHOWN_LAYERS);
  view.focus = settings.get('run') ?? null;
  view.reference = settings.get('reference') ?? null;
  view.finding = settings.get('finding') ?? null;
  view.statistic = settings.get('statistic') ?? null;
  const step = Number.parseInt(settings.get('step'), 10);
  view.step = Number.isNaN(step) ? null : step;
}

function writeView() {
  const settings = new Map();
  const texts = {run: view.focus, reference: view.reference, finding: view.finding,
    statistic: view.statistic, step: view.step};
  for (const [name, value] of Object.entries(texts)) {
    if (value !== null) settings.set(name, value);
  }
  if (view.layers.length) settings.set('layers', JSON.stringify(view.layers));
  if (view.hidden.size) settings.set('hidden', JSON.stringify([...view.hidden]));
  host.writeAddress(settings);
}

/** Keeps the run in focus, whatever other runs do. */
export function pin() {
  view.focus ??= focused()?.name ?? null;
}

/** Changes the view as the user asks. The run in focus stays. */
export function change(changes) {
  pin();
  Object.assign(view, changes);
  writeView();
}

/** Forgets what was chosen of a run that is gone. */
export function forget(name) {
  if (view.reference === name) view.reference = null;
  if (view.focus === name) {
    Object.assign(view, {focus: null, finding: null, step: null, layers: []});
  }
}

// -- runs

export const readable = () => [...known.runs.values()].filter((run) => run.steps.length);
export const drawn = () => readable().filter((run) => !view.hidden.has(run.name));

/** The run in the figures of one run: the chosen one, else the one with the worst findings. */
export function focused() {
  const shown = drawn();
  return shown.find((run) => run.name === view.focus) ?? bySeverity(shown)[0] ?? null;
}

const VERDICTS = ['healthy', 'not assessed', 'findings'];

/** The run with which others are compared: the chosen one, else the first one with the best
 * verdict, as in the report. Null if no run of training is drawn. */
export function reference() {
  const runs = drawn().filter((run) => !run.evaluation);
  const best = VERDICTS.map((one) => runs.find((run) => run.verdict === one)).find(Boolean);
  return drawn().find((run) => run.name === view.reference) ?? best ?? null;
}

/** The run in focus, and beside it the chosen reference, or else one without findings. */
export function pair() {
  const other = reference();
  const shown = other && (other.name === view.reference || other.verdict !== 'findings');
  return [...new Set([focused(), shown ? other : null])].filter((run) => run !== null);
}

/** The colour of a run, by its place among all runs of the log: hiding others keeps it. */
export function colour(run) {
  const palette = view.dark ? known.colours.dark : known.colours.light;
  return palette[known.places.get(run.name) % palette.length];
}

// -- the finding and the statistic

/** The finding that the figures show, of the run in focus: the chosen one, else the worst. */
export function shownFinding() {
  const run = focused();
  const found = (code) => run?.findings.find((finding) => finding.code === code);
  return found(view.finding) ?? found(run?.worst_finding) ?? null;
}

/** The statistic of the figures: the chosen one, else the one that shows the finding. */
export function shownStatistic() {
  const offered = focused()?.statistics.map(({value}) => value) ?? [];
  return offered.includes(view.statistic)
    ? view.statistic : shownFinding()?.shown_by ?? 'rms';
}

// -- steps

/** The steps of the run in focus. Of other runs the last step up to the selected one is shown. */
export const steps = () => focused()?.steps ?? [];

/** The index of the selected step among these. */
export function placeOfStep() {
  const last = steps().length - 1;
  if (view.step === null) return last;
  const later = steps().findIndex((step) => step > view.step);
  return later < 0 ? last : Math.max(later - 1, 0);
}

/** Selects the step at an index. The last one stays selected when new steps arrive. */
export function selectPlace(place) {
  const last = steps().length - 1;
  const within = Math.min(Math.max(place, 0), last);
  view.step = within === last ? null : steps()[within];
}

// -- layers

/** Layers by name: those of the run in focus first, in its order, then those of other runs. */
export function layersDrawn() {
  const found = new Map();
  const focus = focused();
  for (const run of [focus, ...drawn()]) {
    for (const layer of run?.layers ?? []) {
      const severity = run === focus ? layer.severity : null;
      if (!found.has(layer.name)) {
        found.set(layer.name, {...layer, severity, elsewhere: run !== focus});
      }
    }
  }
  return found;
}

/** The chosen layers; without a choice the layer to inspect first, as the server says. */
export function chosenLayers() {
  const layers = layersDrawn();
  const chosen = view.layers.filter((name) => layers.has(name));
  if (chosen.length) return chosen;
  const ofFinding = view.finding === null ? null : shownFinding()?.worst_layer;
  const layer = ofFinding ?? focused()?.worst_layer;
  return layers.has(layer) ? [layer] : [...layers.keys()].slice(0, 1);
}

/** Chooses a layer, alone or besides those chosen before. */
export function chooseLayer(layer, besides = false) {
  const before = besides ? chosenLayers().filter((name) => name !== layer) : [];
  change({layers: [...before, layer].slice(-SHOWN_LAYERS)});
}
