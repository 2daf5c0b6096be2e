// The runs: one row each, with its verdict, worst layer, first step, and the line to change.
// Those with findings come first.

import {byId, element, ending, keyed, replace} from './dom.js';
import {bySeverity, copyable, verdict, verdictText, worst} from './findings.js';
import {change, colour, focused, known, view} from './state.js';

const wanted = () => byId('run-filter').value.toLowerCase();
const listed = () => bySeverity(known.runs.values()).filter(
  (run) => run.label.toLowerCase().includes(wanted()));

/** The line to change, or why there is none. */
function todo(run) {
  const {place, line} = run.change ?? {};
  if (line) {
    return [...copyable(line), element('span', {className: 'place dim'}, `${place}:`),
      element('code', {title: `${place}:\n${line}`}, line.trim())];
  }
  const finding = worst(run);
  const cause = finding?.cause && `${finding.cause}: ${finding.reason}`;
  const said = run.problem || cause || finding?.meaning || '';
  return [element('span', {className: 'dim', title: said}, said)];
}

function row(run, select, redraw) {
  const box = element('input', {
    type: 'checkbox',
    checked: !view.hidden.has(run.name) && run.steps.length > 0,
    disabled: !run.steps.length,
    title: 'Draw this run',
    ariaLabel: `draw ${run.label}`,
  });
  box.onclick = (event) => event.stopPropagation();
  box.onchange = () => {
    show([run], box.checked);
    redraw();
  };
  // The box has the colour of the run in all figures.
  box.style.accentColor = colour(run);
  const name = element('button', {className: 'name', title: run.name, disabled: box.disabled},
    ending(run.label));
  const finding = worst(run);
  const cell = (className, ...parts) => element('td', {className}, ...parts);
  const made = element('tr', {className: run === focused() ? 'row chosen' : 'row'},
    cell('box', keyed(`box ${run.name}`, box)),
    cell('run', keyed(`run ${run.name}`, name)),
    cell('verdict', element('span', {className: `dot ${verdict(run)}`}),
      element('span', {title: verdictText(run)}, verdictText(run)),
      finding?.cause ? element('span', {className: 'dim'}, ` ${finding.cause}`) : ''),
    cell('worst', finding && run.worst_layer ? ending(run.worst_layer) : ''),
    cell('since', finding ? element('span', {title: finding.when}, run.since) : ''),
    cell('todo', ...todo(run)));
  if (run.steps.length) made.onclick = () => select(run.name);
  return made;
}

/** Draws runs, or hides them. */
function show(runs, drawn) {
  const hidden = new Set(view.hidden);
  for (const {name} of runs) {
    if (drawn) hidden.delete(name);
    else hidden.add(name);
  }
  change({hidden});
}

/** Makes the rows again. */
export function drawRuns(select, redraw) {
  const rows = listed();
  const none = element('tr', {}, element('td', {colSpan: 6, className: 'dim'},
    'No run matches the filter.'));
  replace(byId('runs'), rows.length ? rows.map((run) => row(run, select, redraw)) : [none]);
  const all = [...known.runs.values()];
  const faulty = all.filter((run) => run.findings.length).length;
  const count = `${all.length} run${all.length === 1 ? '' : 's'}`;
  byId('run-count').textContent = rows.length < all.length
    ? `${rows.length} of ${count}` : `${count}, ${faulty} with findings`;
  byId('run-tools').hidden = all.length < 2;
}

/** Listens to the filter, and to the buttons that fold the rows, or draw all or none. */
export function listenToRuns(select, redraw) {
  const fold = (folded) => {
    byId('run-box').classList.toggle('folded', folded);
    byId('fold').ariaExpanded = String(!folded);
  };
  fold(false);
  byId('fold').onclick = () => fold(!byId('run-box').classList.contains('folded'));
  byId('run-filter').oninput = () => drawRuns(select, redraw);
  for (const [id, drawn] of [['all-runs', true], ['no-runs', false]]) {
    byId(id).onclick = () => {
      show(listed(), drawn);
      redraw();
    };
  }
}
