// The figures of the tab: which one is where, and what it asks the server for.

import {byId, element} from './dom.js';
import {moveCursor, plot} from './plot.js';
import {
  chooseLayer, chosenLayers, drawn, focused, layersDrawn, pair, placeOfStep, reference,
  selectPlace, shownFinding, shownStatistic, steps, view,
} from './state.js';

let selected = () => {}; // called after a click has selected a layer or a step

/** Calls back with whether the layers and the step have changed after a click in a figure. */
export function onSelected(callback) {
  selected = callback;
}

// -- what the figures ask for

const several = () => drawn().length > 1;
const runs = (those) => those.map((run) => ['run', run.name]);
const atStep = () => (view.step === null ? [] : [['step', view.step]]);
const statistic = () => [['statistic', shownStatistic()]];
const marked = () => (shownFinding() ? [['finding', shownFinding().code]] : []);
const focus = () => [['focus', focused().name]];
const against = () => (reference() ? [['reference', reference().name]] : []);
const chosen = () => chosenLayers().map((layer) => ['chosen', layer]);

/** The step of the cursor, null if there is none. */
const cursor = () => steps()[placeOfStep()] ?? null;

const overDepth = (place, kind, query) =>
  plot(place, kind, query, view.dark, (points, event) => clicked(points, event, false));

const overSteps = (place, kind, query) =>
  plot(place, kind, query, view.dark, (points, event) => clicked(points, event, true), cursor);

function clicked(points, event, isOverSteps) {
  const known = layersDrawn();
  const names = points.map(({customdata, data, pointNumber}) =>
    // One name for each point; in a heat map, one for each row.
    customdata ?? data.customdata?.[[pointNumber].flat()[0]]);
  const layer = names.find((name) => known.has(name));
  const x = Number(points[0]?.x);
  const moved = isOverSteps && Number.isFinite(x);
  if (moved) {
    const near = steps().map((step) => Math.abs(step - x));
    selectPlace(near.indexOf(Math.min(...near)));
  }
  if (layer !== undefined && !chosenLayers().includes(layer)) {
    chooseLayer(layer, event?.ctrlKey || event?.metaKey || event?.shiftKey);
    selected({layers: true, step: moved});
  } else if (moved) {
    selected({layers: false, step: true});
  }
}

// -- the figures over depth, at the selected step

/** Draws what depends on the selected step. */
export function drawStep() {
  for (const place of document.querySelectorAll('.over-steps')) moveCursor(place, cursor());
  return Promise.all([drawProfile(), drawComparison(), drawGraph()]);
}

/** Draws the run in focus and the reference over depth. */
export function drawProfile() {
  return focused() && overDepth(byId('profile'), 'depth_profile', [
    ...runs(pair()), ...focus(), ...marked(), ...statistic(), ...atStep(), ...chosen()]);
}

export function drawComparison() {
  byId('comparison-card').hidden = !several();
  return several() && byId('comparison-card').open
    ? overDepth(byId('comparison'), 'comparison', [
      ...runs(drawn()), ...focus(), ...against(), ...statistic(), ...atStep()])
    : null;
}

export function drawGraph() {
  return drawn().length && byId('graph-card').open
    ? overDepth(byId('graph'), 'layer_graph', [
      ...runs([focused()]), ...marked(), ...statistic(), ...atStep(), ...chosen()])
    : null;
}

// -- the figures over the steps

/** Draws the heat map of the run in focus. */
export function drawRun() {
  const run = focused();
  if (!run) return null;
  for (const name of byId('main').querySelectorAll('.focus')) name.textContent = run.label;
  byId('thinned').textContent = run.columns < run.steps.length
    ? `The map shows about ${run.columns} of ${run.steps.length} steps, evenly spaced, and `
      + 'the steps of the findings.' : '';
  return overSteps(byId('heat'), 'heat_map',
    [...runs([run]), ...marked(), ...statistic(), ...chosen()]);
}

const PARTS = ['over-time', 'histograms fill', 'across'];

/** Draws the chosen layers over the steps. */
export function drawLayers() {
  const places = byId('layers-drawn');
  const layers = focused() ? chosenLayers() : [];
  while (places.childElementCount > layers.length) {
    const last = places.lastElementChild;
    for (const part of last.querySelectorAll('.plot')) window.Plotly.purge(part);
    last.remove();
  }
  while (places.childElementCount < layers.length) {
    places.append(element('div', {className: 'parts'}, element('p', {className: 'notice'}),
      ...PARTS.map((part) => element('div', {className: `plot over-steps ${part}`}))));
  }
  return Promise.all(layers.flatMap((layer, i) => drawLayer(layer, places.children[i])));
}

function drawLayer(layer, place) {
  const [note, overTime, histograms, across] = place.children;
  const has = (run) => run.layers.some(({name}) => name === layer);
  const having = drawn().filter(has);
  const both = pair().filter(has);
  const ofFocus = has(focused());
  note.textContent = ofFocus ? '' : `${focused().label} has no layer ${layer}.`;
  overTime.hidden = !both.length;
  histograms.hidden = !ofFocus;
  across.hidden = having.length < (ofFocus ? 2 : 1);
  return [
    both.length ? overSteps(overTime, 'layer_over_time',
      [...runs(both), ['layer', layer], ...statistic()]) : null,
    ofFocus ? overSteps(histograms, 'histogram_over_time',
      [...runs([focused()]), ['layer', layer], ...statistic()]) : null,
    across.hidden ? null : overSteps(across, 'statistic_over_time',
      [...runs(having), ['focus', (ofFocus ? focused() : having[0]).name], ['layer', layer],
        ...statistic()]),
  ];
}

/** Draws everything. */
export const drawAll = () => Promise.all([drawStep(), drawRun(), drawLayers()]);
