// The tab: reads the runs, makes the page of them, and follows what the user does.

import {byId, element, replace, script} from './dom.js';
import {
  drawAll, drawComparison, drawGraph, drawLayers, drawProfile, drawRun, drawStep, onSelected,
} from './figures.js';
import {detail} from './findings.js';
import * as host from './host.js';
import {drawLayerList, focusChosen, neighbour, showChosen} from './layers.js';
import {page} from './page.js';
import {ask} from './plot.js';
import {drawRuns, listenToRuns} from './runs.js';
import {
  change, chooseLayer, drawn, focused, forget, known, pin, placeOfStep, readView, readable,
  reference, selectPlace, shownFinding, shownStatistic, steps, view,
} from './state.js';

const POLL_MS = 10_000;
const SOON_MS = 2_000; // after something new: TensorBoard loads one run after the other

// -- the server

const states = new Map(); // by name, the state of each run when it was read

/** The list of the runs, with their places and colours. */
async function list() {
  const listed = await ask('runs');
  known.colours = listed.colours;
  known.places = new Map(listed.runs.map(({name, place}) => [name, place]));
  byId('note').textContent = listed.note;
  return listed;
}

/** Reads new runs and new steps; returns whether there are any. */
async function read(listed) {
  const names = new Set(listed.runs.map((run) => run.name));
  const gone = [...known.runs.keys()].filter((name) => !names.has(name));
  gone.forEach(forget);
  let changed = gone.length > 0;
  const found = new Map();
  for (const {name, state} of listed.runs) {
    const now = JSON.stringify(state);
    if (states.get(name) === now && known.runs.has(name)) {
      found.set(name, known.runs.get(name));
      continue;
    }
    byId('status').textContent = `Reading ${name} …`;
    try {
      found.set(name, await ask('run', [['run', name]]));
      states.set(name, now);
      changed = true;
    } catch (error) { // the run is gone, or the server failed: shown in place of its findings
      found.set(name, {
        name, label: name, problem: error.message, note: '', steps: [], layers: [],
        worst_layer: null, findings: [], worst_finding: null, change: null, statistics: [],
      });
      changed ||= known.runs.get(name)?.problem !== error.message;
    }
  }
  byId('status').textContent = '';
  known.runs = found;
  return changed;
}

// -- the lists on the left

const option = (value, selected, text) => element('option', {value, selected}, text);

function drawStatistics() {
  byId('statistic').replaceChildren(...(focused()?.statistics ?? []).map(({value, text}) =>
    option(value, value === shownStatistic(), text)));
}

function drawReferences() {
  byId('reference-part').hidden = drawn().length < 2;
  byId('reference').replaceChildren(
    ...drawn().map((run) => option(run.name, run === reference(), run.label)));
}

function drawSlider() {
  const count = steps().length;
  const slider = byId('step');
  const place = placeOfStep();
  slider.max = Math.max(count - 1, 0);
  slider.value = place;
  slider.disabled = count < 2;
  byId('step-shown').textContent = count
    ? `${steps()[place]}${view.step === null ? ' (last)' : ''}` : '–';
  slider.ariaValueText = byId('step-shown').textContent;
}

// -- what the user does

/**
 * Shows a run, with a finding of it its layers and the step at which it was first seen. A
 * statistic that was chosen before is dropped for the one that shows the finding.
 */
function select(name, finding = null) {
  const hidden = new Set(view.hidden);
  hidden.delete(name);
  const changes = {focus: name, hidden, finding: finding?.code ?? null, statistic: null};
  if (finding) {
    const worst = [finding.worst_layer].filter((layer) => layer !== null);
    Object.assign(changes, {layers: worst, step: finding.step});
  }
  if (!finding && view.focus !== name) Object.assign(changes, {layers: [], step: null});
  change(changes);
  draw();
}

function choose(layer, besides) {
  chooseLayer(layer, besides);
  drawSelected({layers: true, step: false});
}

/** Draws what depends on the chosen layers or on the step. */
function drawSelected({layers, step}) {
  if (step) {
    change({});
    drawSlider();
  }
  if (layers) {
    drawLayerList(choose);
    showChosen();
    drawRun();
    drawLayers();
  }
  drawStep();
}

function move(place) {
  selectPlace(place);
  drawSelected({layers: false, step: true});
}

const ARROWS = {
  ArrowUp: () => neighbour(-1),
  ArrowDown: () => neighbour(1),
  ArrowLeft: () => -1,
  ArrowRight: () => 1,
};

/** Up and down go through the layers, left and right through the steps. */
function pressed(event) {
  const {key, target} = event;
  if (!(key in ARROWS) || event.ctrlKey || event.metaKey || event.altKey) return;
  const upOrDown = key === 'ArrowUp' || key === 'ArrowDown';
  if (target.matches('select, textarea, input[type=search]')) return;
  if (target.matches('input[type=range]') && !upOrDown) return; // the slider moves itself
  if (!drawn().length) return;
  event.preventDefault();
  const found = ARROWS[key]();
  if (!upOrDown) {
    move(placeOfStep() + found);
  } else if (found !== null) {
    const inList = byId('layers').contains(target);
    choose(found, event.shiftKey); // which makes the list again
    if (inList) focusChosen();
  }
}

// -- the page

async function draw() {
  const any = readable().length > 0;
  const focus = focused();
  byId('empty').hidden = Boolean(focus);
  byId('empty').textContent = any
    ? 'No run is drawn. Select one above.'
    : 'No activations yet. Add ActivationMonitor("logs/run1") to the callbacks of `fit`. '
      + 'Results appear here at the end of the first epoch.';
  byId('figures').hidden = !focus;
  drawRuns(select, draw);
  drawStatistics();
  drawReferences();
  drawSlider();
  drawLayerList(choose);
  replace(byId('findings'), focus ? detail(focus, shownFinding(), select) : []);
  if (focus) await drawAll();
  document.documentElement.dataset.ready = String(
    Number(document.documentElement.dataset.ready ?? 0) + 1);
}

function listen() {
  byId('statistic').onchange = ({target}) => {
    change({statistic: target.value});
    drawAll();
  };
  byId('reference').onchange = ({target}) => {
    change({reference: target.value || null});
    drawReferences();
    drawProfile();
    drawComparison();
    drawLayers();
  };
  byId('step').oninput = ({target}) => {
    pin();
    selectPlace(Number(target.value));
    drawSlider();
    drawStep();
  };
  byId('step').onchange = () => change({});
  byId('layer-filter').oninput = () => drawLayerList(choose);
  byId('comparison-card').ontoggle = drawComparison;
  byId('graph-card').ontoggle = drawGraph;
  document.addEventListener('keydown', pressed);
  listenToRuns(select, draw);
  onSelected(drawSelected);
  host.onAddress((settings) => {
    readView(settings);
    draw();
  });
  host.onReload(update);
  poll(SOON_MS);
}

function poll(delay) {
  setTimeout(async () => {
    const seen = document.body.clientWidth && !document.hidden;
    poll(seen && await update() ? SOON_MS : POLL_MS);
  }, delay);
}

let updating = false;

/** Reads and draws what is new; returns whether there is anything. */
async function update() {
  if (updating) return false;
  updating = true;
  try {
    const changed = await read(await list());
    if (changed) await draw();
    return changed;
  } catch (error) {
    byId('status').textContent = `TensorBoard does not answer: ${error.message}`;
    return false;
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
    const listed = await list();
    await Promise.all([
      script(`plotly.min.js?v=${encodeURIComponent(listed.plotly)}`), read(listed)]);
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
