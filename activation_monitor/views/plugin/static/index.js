// The tab. `view`, which is also in the address, holds what the user has chosen; `runs` holds
// what the server knows about the runs. Everything on the page is made from these two. The
// server makes the figures.

import {byId, element, script} from './dom.js';
import {ask, figure as drawFigure} from './figure.js';
import {bySeverity, findings, verdict, verdictText} from './findings.js';
import * as host from './host.js';
import {page} from './page.js';

const POLL_MS = 10_000;
const SHOWN_LAYERS = 4;

const view = {
  hidden: new Set(), // names of runs that are not drawn
  focus: null, // name of the run in the figures of one run
  finding: null, // code of its finding that is shown; null: the worst one
  statistic: null, // null: the statistic that shows the finding
  step: null, // null: the last step, also after new steps arrive
  layers: [],
  dark: false,
};
let runs = new Map(); // by name, as the server sends them
let states = new Map(); // by name, the state of each run when it was read
let colours = {light: [], dark: []}; // of all runs of the log, in turn

// -- the address

function readView(settings) {
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
  view.finding = settings.get('finding') ?? null;
  view.statistic = settings.get('statistic') ?? null;
  const step = Number.parseInt(settings.get('step'), 10);
  view.step = Number.isNaN(step) ? null : step;
}

function writeView() {
  const settings = new Map();
  if (view.focus !== null) settings.set('run', view.focus);
  if (view.finding !== null) settings.set('finding', view.finding);
  if (view.statistic !== null) settings.set('statistic', view.statistic);
  if (view.step !== null) settings.set('step', view.step);
  if (view.layers.length) settings.set('layers', JSON.stringify(view.layers));
  if (view.hidden.size) settings.set('hidden', JSON.stringify([...view.hidden]));
  host.writeAddress(settings);
}

// -- the server

/** Reads new runs and new steps; returns whether there are any. */
async function refresh() {
  const listed = await ask('runs');
  colours = listed.colours;
  byId('note').textContent = listed.note;
  const known = new Set(listed.runs.map((run) => run.name));
  let changed = [...runs.keys()].some((name) => !known.has(name));
  const found = new Map();
  for (const {name, state} of listed.runs) {
    const now = JSON.stringify(state);
    if (states.get(name) === now && runs.has(name)) {
      found.set(name, runs.get(name));
      continue;
    }
    changed = true;
    byId('status').textContent = `Reading ${name} …`;
    try {
      found.set(name, await ask('run', [['run', name]]));
    } catch (error) { // the run is gone, or the server failed: shown in place of its findings
      found.set(name, {
        name, label: name, problem: error.message, note: '', steps: [], layers: [],
        worst_layer: null, findings: [], worst_finding: null, statistics: [],
      });
    }
    states.set(name, now);
  }
  byId('status').textContent = '';
  runs = found;
  return {changed, plotly: listed.plotly};
}

// -- the choice

const readable = () => [...runs.values()].filter((run) => run.steps.length);
const drawn = () => readable().filter((run) => !view.hidden.has(run.name));

/** The run in the figures of one run: the chosen one, else the one with the worst findings. */
function focused() {
  const shown = drawn();
  return shown.find((run) => run.name === view.focus) ?? bySeverity(shown)[0] ?? null;
}

/** The finding that the figures show, of the run in focus: the chosen one, else the worst. */
function shownFinding() {
  const run = focused();
  const found = (code) => run?.findings.find((finding) => finding.code === code);
  return found(view.finding) ?? found(run?.worst_finding) ?? null;
}

/** The statistic of the figures: the chosen one, else the one that shows the finding. */
function shownStatistic() {
  const offered = focused()?.statistics.map(({value}) => value) ?? [];
  return offered.includes(view.statistic)
    ? view.statistic : shownFinding()?.shown_by ?? 'rms';
}

const stepsDrawn = () =>
  [...new Set(drawn().flatMap((run) => run.steps))].sort((a, b) => a - b);

const layersDrawn = () => {
  const depths = new Map();
  for (const run of drawn()) {
    for (const {name, depth} of run.layers) if (!depths.has(name)) depths.set(name, depth);
  }
  return depths;
};

/** The chosen layers; without a choice the layer to inspect first, as the server says. */
function chosenLayers() {
  const known = layersDrawn();
  const chosen = view.layers.filter((name) => known.has(name));
  if (chosen.length) return chosen;
  const ofFinding = view.finding === null ? null : shownFinding()?.layers[0];
  const layer = ofFinding ?? focused()?.worst_layer;
  return known.has(layer) ? [layer] : [...known.keys()].slice(0, 1);
}

// -- figures

const figure = (place, kind, query) =>
  drawFigure(place, kind, query, view.dark, clicked);

function clicked(points, event) {
  const known = layersDrawn();
  for (const {customdata, data, pointNumber} of points) {
    // One name for each point; in a heat map, one for each row.
    const name = customdata ?? data.customdata?.[[pointNumber].flat()[0]];
    if (known.has(name)) {
      choose(name, event?.ctrlKey || event?.metaKey || event?.shiftKey);
      return;
    }
  }
}

function choose(layer, besides = false) {
  const before = besides ? chosenLayers().filter((name) => name !== layer) : [];
  view.layers = [...before, layer].slice(-SHOWN_LAYERS);
  writeView();
  drawLayerList();
  byId('layers').querySelector('.chosen')?.scrollIntoView({block: 'nearest'});
  drawLayers();
}

const chosenRuns = () => drawn().map((run) => ['run', run.name]);
const atStep = () => (view.step === null ? [] : [['step', view.step]]);
const statistic = () => [['statistic', shownStatistic()]];
const marked = () => (shownFinding() ? [['finding', shownFinding().code]] : []);

// While the slider moves, one request is under way and the newest one waits for it.
let drawing = null;
let again = false;
async function drawStep() {
  if (drawing) {
    again = true;
    return;
  }
  do {
    again = false;
    drawing = Promise.all([drawProfile(), drawComparison(), drawGraph()]);
    await drawing;
  } while (again);
  drawing = null;
}

function drawProfile() {
  return figure(byId('profile'), 'depth_profile',
    [...chosenRuns(), ['focus', focused().name], ...marked(), ...statistic(), ...atStep()]);
}

function drawComparison() {
  const several = drawn().length > 1;
  byId('comparison-card').hidden = !several;
  return several && byId('comparison-card').open
    ? figure(byId('comparison'), 'comparison', [...chosenRuns(), ...statistic(), ...atStep()])
    : null;
}

function drawGraph() {
  return drawn().length && byId('graph-card').open
    ? figure(byId('graph'), 'layer_graph',
      [['run', focused().name], ...marked(), ...statistic(), ...atStep()])
    : null;
}

function drawRun() {
  const run = focused();
  for (const name of byId('main').querySelectorAll('.focus')) name.textContent = run.label;
  byId('thinned').textContent = run.columns < run.steps.length
    ? `The map shows about ${run.columns} of ${run.steps.length} steps, evenly spaced, and `
      + 'the steps of the findings.' : '';
  return figure(byId('heat'), 'heat_map', [['run', run.name], ...marked(), ...statistic()]);
}

function drawLayers() {
  const run = focused();
  const places = byId('layers-drawn');
  const layers = chosenLayers();
  while (places.childElementCount > layers.length) places.lastElementChild.remove();
  while (places.childElementCount < layers.length) {
    places.append(element('div', {className: 'pair'},
      element('div', {className: 'plot over-time'}),
      element('div', {className: 'plot histograms'})));
  }
  return Promise.all(layers.flatMap((layer, i) => {
    const [overTime, histograms] = places.children[i].children;
    const has = run.layers.some(({name}) => name === layer);
    const having = drawn().filter((one) => one.layers.some(({name}) => name === layer));
    histograms.hidden = !has;
    return [
      figure(overTime, 'layer_over_time',
        [...having.map((one) => ['run', one.name]), ['layer', layer], ...statistic()]),
      has ? figure(histograms, 'histogram_over_time',
        [['run', run.name], ['layer', layer]]) : null,
    ];
  }));
}

// -- the rest of the page

/** A name that is cut at its start if it is too long, because names differ at their ends. */
const ending = (name) =>
  element('span', {className: 'text'}, element('bdi', {dir: 'ltr'}, name));

function drawRunList() {
  const focus = focused();
  byId('runs').replaceChildren(...[...runs.values()].map((run, place) => {
    const box = element('input', {
      type: 'checkbox',
      checked: !view.hidden.has(run.name) && run.steps.length > 0,
      disabled: !run.steps.length,
      ariaLabel: `draw ${run.label}`,
    });
    box.onchange = () => {
      if (box.checked) view.hidden.delete(run.name);
      else view.hidden.add(run.name);
      writeView();
      draw();
    };
    // The box has the colour of the run in the figures. A single run has a colour per step.
    const palette = view.dark ? colours.dark : colours.light;
    if (runs.size > 1) box.style.accentColor = palette[place % palette.length];
    const name = element('button', {className: 'name', title: run.name, disabled: box.disabled},
      ending(run.label), element('span', {className: 'dim'}, verdictText(run)));
    name.onclick = () => select(run.name);
    return element('div', {className: run === focus ? 'row chosen' : 'row'},
      box, element('span', {className: `dot ${verdict(run)}`}), name);
  }));
}

/**
 * Shows a run, with a finding of it its layers and the step at which it was first seen. A
 * statistic that was chosen before is dropped for the one that shows the finding.
 */
function select(run, finding = null) {
  const other = view.focus !== run;
  view.focus = run;
  view.hidden.delete(run);
  view.finding = finding?.code ?? null;
  view.statistic = null;
  if (finding) {
    view.layers = finding.layers.slice(0, 1);
    view.step = finding.step;
  } else if (other) {
    view.layers = [];
  }
  writeView();
  draw();
}

function drawStatistics() {
  byId('statistic').replaceChildren(...(focused()?.statistics ?? []).map(({value, text}) =>
    element('option', {value, selected: value === shownStatistic()}, text)));
}

function drawSlider() {
  const steps = stepsDrawn();
  const slider = byId('step');
  let place = steps.length - 1;
  if (view.step !== null) {
    const later = steps.findIndex((step) => step > view.step);
    place = later < 0 ? steps.length - 1 : Math.max(later - 1, 0);
  }
  slider.max = Math.max(steps.length - 1, 0);
  slider.value = place;
  slider.disabled = steps.length < 2;
  byId('step-shown').textContent = steps.length
    ? `${steps[place]}${view.step === null ? ' (last)' : ''}` : '–';
  slider.ariaValueText = byId('step-shown').textContent;
}

function drawLayerList() {
  const wanted = byId('layer-filter').value.toLowerCase();
  const chosen = new Set(chosenLayers());
  const severities = new Map(
    focused()?.layers.map(({name, severity}) => [name, severity]) ?? []);
  const rows = [...layersDrawn()]
    .filter(([name]) => name.toLowerCase().includes(wanted))
    .map(([name, depth]) => {
      const row = element('button', {
        className: chosen.has(name) ? 'row name chosen' : 'row name',
        title: `${name}, depth ${depth}`,
      }, element('span', {className: `dot ${severities.get(name) ?? 'none'}`}),
      ending(name), element('span', {className: 'dim'}, depth));
      row.onclick = (event) =>
        choose(name, event.ctrlKey || event.metaKey || event.shiftKey);
      return row;
    });
  byId('layers').replaceChildren(...rows);
}

async function draw() {
  const any = readable().length > 0;
  byId('empty').hidden = any && drawn().length > 0;
  byId('empty').textContent = any
    ? 'No run is selected. Select one on the left.'
    : 'No activations yet. Add ActivationMonitor("logs/run1") to the callbacks of `fit`. '
      + 'Results appear here at the end of the first epoch.';
  byId('figures').hidden = !drawn().length;
  drawRunList();
  drawStatistics();
  drawSlider();
  drawLayerList();
  byId('findings').replaceChildren(
    ...findings([...runs.values()].filter((run) => !view.hidden.has(run.name)), select,
      focused()?.name, shownFinding()?.code));
  if (drawn().length) await Promise.all([drawStep(), drawRun(), drawLayers()]);
  document.documentElement.dataset.ready = String(
    Number(document.documentElement.dataset.ready ?? 0) + 1);
}

function listen() {
  byId('statistic').onchange = ({target}) => {
    view.statistic = target.value;
    writeView();
    drawStep();
    drawRun();
    drawLayers();
  };
  byId('step').oninput = ({target}) => {
    const steps = stepsDrawn();
    const place = Number(target.value);
    view.step = place === steps.length - 1 ? null : steps[place];
    drawSlider();
    drawStep();
  };
  byId('step').onchange = writeView;
  byId('layer-filter').oninput = drawLayerList;
  byId('comparison-card').ontoggle = drawComparison;
  byId('graph-card').ontoggle = drawGraph;
  host.onAddress((settings) => {
    readView(settings);
    draw();
  });
  host.onReload(update);
  setInterval(() => {
    if (document.body.clientWidth && !document.hidden) update();
  }, POLL_MS);
}

let updating = false;
async function update() {
  if (updating) return;
  updating = true;
  try {
    const {changed} = await refresh();
    if (changed) await draw();
  } catch (error) {
    byId('status').textContent = `TensorBoard does not answer: ${error.message}`;
  } finally {
    updating = false;
  }
}

/** TensorBoard calls this once, when the tab is opened. */
export async function render() {
  document.head.append(element('link', {rel: 'stylesheet', href: 'style.css'}));
  document.body.append(...page());
  readView(host.readAddress());
  let started = false;
  host.onDarkMode((dark) => {
    view.dark = dark;
    document.documentElement.classList.toggle('dark', dark);
    if (started) draw();
  });
  byId('status').textContent = 'Loading …';
  try {
    const {plotly} = await refresh();
    await script(`plotly.min.js?v=${encodeURIComponent(plotly)}`);
  } catch (error) {
    byId('status').textContent = error instanceof Error
      ? `TensorBoard does not answer: ${error.message}`
      : 'plotly.min.js did not load. Run `pip install plotly` where TensorBoard is installed.';
    return;
  }
  listen();
  started = true;
  await draw();
}
