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

const turns = new Map(); // by place, the number of its newest request

/**
 * Draws a figure in its place. An older request that is answered later is dropped. Calls
 * `clicked(points, event)` for clicks. A figure over the steps has a `cursor` at a step.
 */
export async function plot(place, kind, query, dark, clicked, cursor = null) {
  const turn = (turns.get(place) ?? 0) + 1;
  turns.set(place, turn);
  const parameters = [['kind', kind], ['dark', dark ? '1' : '0'], ...query];
  place.classList.add('waiting');
  try {
    const {data, layout} = await ask('figure', parameters);
    if (turns.get(place) !== turn) return;
    layout.autosize = true;
    layout.uirevision = 'kept'; // new steps keep the zoom
    delete layout.width;
    layout.shapes = withCursor(layout, cursor);
    if (place.classList.contains('fill')) delete layout.height; // the page has its height
    else place.style.height = `${layout.height ?? 460}px`;
    await window.Plotly.react(place, data, layout, CONFIG);
    place.removeAllListeners('plotly_click');
    place.on('plotly_click', ({points, event}) => clicked(points, event));
    place.dataset.drawn = parameters.map((pair) => pair.join('=')).join('&');
  } catch (error) {
    if (turns.get(place) !== turn) return;
    window.Plotly.purge(place);
    place.replaceChildren(element('p', {className: 'notice'}, error.message));
  } finally {
    if (turns.get(place) === turn) place.classList.remove('waiting');
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
