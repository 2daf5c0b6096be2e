// Asks the server, and draws the figures that it makes.

import {element} from './dom.js';

const CONFIG = {
  displaylogo: false,
  displayModeBar: 'hover',
  responsive: true,
  // Listed explicitly: the default buttons include one that uploads the figure.
  modeBarButtons: [['toImage', 'zoom2d', 'pan2d', 'resetScale2d']],
  showSendToCloud: false,
};

const CURSOR = 'cursor';

/** The answer of a route, which is JSON. */
export async function ask(route, query = []) {
  const answer = await fetch(`${route}?${new URLSearchParams(query)}`);
  if (!answer.ok) throw new Error(`${route}: ${answer.status} ${await answer.text()}`);
  return answer.json();
}

// By place: the newest request while another one is under way, null if there is none.
const waiting = new WeakMap();
const underWay = new WeakMap(); // by place, the promise of what is under way

/**
 * Draws a figure in its place. While one request is under way, only the newest of the others
 * waits for it. Calls `clicked(points, event)` for clicks. A figure over the steps has a line
 * at the step that `cursor()` returns when it is drawn.
 */
export function plot(place, kind, query, dark, clicked, cursor = () => null) {
  const request = {kind, query, dark, clicked, cursor};
  if (waiting.has(place)) {
    waiting.set(place, request);
  } else {
    underWay.set(place, drawInTurn(place, request));
  }
  return underWay.get(place);
}

async function drawInTurn(place, request) {
  place.classList.add('waiting');
  for (let next = request; next; next = waiting.get(place)) {
    waiting.set(place, null);
    await draw(place, next);
  }
  waiting.delete(place);
  place.classList.remove('waiting');
}

async function draw(place, {kind, query, dark, clicked, cursor}) {
  const parameters = [['kind', kind], ['dark', dark ? '1' : '0'], ...query];
  try {
    const {data, layout} = await ask('figure', parameters);
    layout.autosize = true;
    layout.uirevision = 'kept'; // new steps keep the zoom
    delete layout.width;
    layout.shapes = withCursor(layout, cursor());
    if (place.classList.contains('fill')) delete layout.height; // the page has its height
    else place.style.height = `${layout.height ?? 460}px`;
    place.querySelector(':scope > .notice')?.remove();
    await window.Plotly.react(place, data, layout, CONFIG);
    place.removeAllListeners('plotly_click');
    place.on('plotly_click', ({points, event}) => clicked(points, event));
    place.dataset.drawn = parameters.map((pair) => pair.join('=')).join('&');
  } catch (error) {
    window.Plotly.purge(place);
    place.replaceChildren(element('p', {className: 'notice'}, error.message));
  }
}

/** The shapes of a figure with the line at a step, without it if the step is null. */
function withCursor({shapes = [], font}, step) {
  const others = shapes.filter(({name}) => name !== CURSOR);
  return step === null ? others : [...others, {
    name: CURSOR, type: 'line', xref: 'x', yref: 'paper', x0: step, x1: step, y0: 0, y1: 1,
    line: {color: font?.color ?? 'gray', width: 1.5, dash: 'dot'},
  }];
}

/** Moves the line of a figure over the steps, if the figure is drawn. */
export function moveCursor(place, step) {
  if (!place.layout) return null;
  return window.Plotly.relayout(place, {shapes: withCursor(place.layout, step)});
}
