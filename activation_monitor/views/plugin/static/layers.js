// The list of layers, by module if there are many.

import {byId, element, ending, keyed, openable, replace} from './dom.js';
import {chosenLayers, layersDrawn} from './state.js';

const FLAT = 40; // up to so many layers the list has no modules

const filtered = () => {
  const wanted = byId('layer-filter').value.toLowerCase();
  return [...layersDrawn().values()].filter(({name}) => name.toLowerCase().includes(wanted));
};

/**
 * Layers as a tree of the modules in their names: each node has a `path` and `parts`, which are
 * nodes and layers in their order. A module whose only part is a module is one with it.
 */
function byModule(layers) {
  const root = {path: '', parts: [], modules: new Map()};
  for (const layer of layers) {
    let node = root;
    const modules = layer.name.split('/').slice(0, -1);
    for (const [i, name] of modules.entries()) {
      if (!node.modules.has(name)) {
        const path = modules.slice(0, i + 1).join('/');
        const made = {path, parts: [], modules: new Map()};
        node.modules.set(name, made);
        node.parts.push(made);
      }
      node = node.modules.get(name);
    }
    node.parts.push(layer);
  }
  return joined(root);
}

function joined(node) {
  const parts = node.parts.map((part) => (part.parts ? joined(part) : part));
  return parts.length === 1 && parts[0].parts ? parts[0] : {path: node.path, parts};
}

const layersIn = (node) =>
  node.parts.flatMap((part) => (part.parts ? layersIn(part) : [part]));

const SEVERITIES = ['critical', 'warning'];

const dot = (severity) => element('span', {className: `dot ${severity ?? 'none'}`});

function row(layer, chosen, text, choose) {
  const where = layer.elsewhere ? ', not in the selected run' : '';
  const made = element('button', {
    className: chosen.has(layer.name) ? 'row name chosen' : 'row name',
    title: `${layer.name}, depth ${layer.depth}${where}`,
  }, dot(layer.severity), ending(text), element('span', {className: 'dim'}, layer.depth));
  if (layer.elsewhere) made.classList.add('elsewhere');
  made.onclick = (event) =>
    choose(layer.name, event.ctrlKey || event.metaKey || event.shiftKey);
  return keyed(layer.name, made);
}

function module(node, above, chosen, choose) {
  const layers = layersIn(node);
  const severity = SEVERITIES.find((one) => layers.some((layer) => layer.severity === one));
  const name = node.path.slice(above.length).replace(/^\//, '');
  const summary = keyed(`module ${node.path}`, element('summary', {
    className: 'row', title: `${node.path}: ${layers.length} layers`,
  }, dot(severity), ending(name), element('span', {className: 'dim'}, `${layers.length} layers`)));
  const open = layers.some((layer) => chosen.has(layer.name));
  return openable(`module ${node.path}`, open, summary, ...parts(node, chosen, choose));
}

const parts = (node, chosen, choose) => node.parts.map((part) => (part.parts
  ? module(part, node.path, chosen, choose)
  : row(part, chosen, part.name.slice(node.path.length).replace(/^\//, ''), choose)));

/** Makes the list again. `choose(layer, besides)` chooses a layer. */
export function drawLayerList(choose) {
  const layers = filtered();
  const chosen = new Set(chosenLayers());
  const tree = layers.length > FLAT ? byModule(layers) : {path: '', parts: layers};
  const none = element('p', {className: 'dim'}, 'No layer matches.');
  replace(byId('layers'), layers.length ? parts(tree, chosen, choose) : [none]);
}

/** The layer that is so many rows below the last chosen one, or above it; null at the end. */
export function neighbour(by) {
  const names = filtered().map(({name}) => name);
  const place = names.indexOf(chosenLayers().at(-1));
  return names[place < 0 ? 0 : place + by] ?? null;
}

/** Gives the keyboard focus to the last chosen layer. */
export function focusChosen() {
  const last = chosenLayers().at(-1);
  const rows = [...byId('layers').querySelectorAll('.chosen')];
  rows.find((row) => row.dataset.key === last)?.focus({preventScroll: true});
}

/** Scrolls the list to the chosen layer, and opens the modules in which it is. */
export function showChosen() {
  const row = byId('layers').querySelector('.chosen');
  for (let part = row?.parentElement; part && part !== byId('layers'); part = part.parentElement) {
    if (part.tagName === 'DETAILS') part.open = true;
  }
  row?.scrollIntoView({block: 'nearest'});
}
