// The findings of a run: what is wrong, why, and what to change.

import {copy, element} from './dom.js';

const RANK = {critical: 0, warning: 1};

/** The state of a run that its dot shows: a problem, the verdict, or the worst severity. */
export function verdict(run) {
  if (run.problem) return 'problem';
  if (!run.steps.length) return 'empty';
  if (run.evaluation) return 'evaluation';
  if (run.verdict !== 'findings') return run.verdict === 'healthy' ? 'healthy' : 'unassessed';
  return run.findings.some((finding) => finding.severity === 'critical')
    ? 'critical' : 'warning';
}

/** The same in words. They follow the name of the run, so they must not look like a name. */
export function verdictText(run) {
  const n = run.findings.length;
  return {
    problem: 'cannot be read',
    empty: 'nothing measured yet',
    evaluation: 'measured, not judged',
    healthy: 'no findings',
    unassessed: 'not assessed',
  }[verdict(run)] || `${n} finding${n === 1 ? '' : 's'}`;
}

const ORDER = [
  'critical', 'warning', 'problem', 'unassessed', 'healthy', 'evaluation', 'empty'];

/** Runs with findings first. */
export function bySeverity(runs) {
  return [...runs].sort((a, b) => ORDER.indexOf(verdict(a)) - ORDER.indexOf(verdict(b)));
}

function copyButton(text) {
  const button = element('button', {className: 'copy', title: 'Copy this line'}, 'Copy');
  button.onclick = async () => {
    await copy(text);
    button.textContent = 'Copied';
    setTimeout(() => { button.textContent = 'Copy'; }, 1500);
  };
  return button;
}

function range(layers) {
  const ends = layers.length > 1 ? [layers[0], layers[layers.length - 1]] : layers;
  return ends.join(' … ');
}

/** A number with four significant digits. The server sends null for NaN and infinity. */
const digits = (value) => (value === null ? 'not finite' : String(Number(value.toPrecision(4))));

function card(run, finding, select, isShown) {
  const show = element('button', {
    className: 'where',
    title: 'Show this finding: its statistic, its first layer, the step of its start',
    ariaPressed: String(isShown),
  }, range(finding.layers));
  const all = element('div', {
    className: `finding ${finding.severity}${isShown ? ' shown' : ''}`,
  });
  all.onclick = ({target}) => {
    // Its other buttons and the evidence have a use of their own, as has selecting text.
    const other = target.closest('button:not(.where), details, code');
    if (!other && window.getSelection().isCollapsed) select(run.name, finding);
  };
  const why = [element('p', {}, finding.message)];
  if (finding.cause) {
    why.push(element('p', {}, element('strong', {}, `Cause: ${finding.cause}. `),
      finding.reason));
  }
  why.push(element('table', {}, ...Object.entries(finding.evidence).map(([name, value]) =>
    element('tr', {}, element('td', {className: 'dim'}, name.replaceAll('_', ' ')),
      element('td', {}, digits(value))))));
  why.push(element('p', {className: 'dim'}, 'More: ',
    element('code', {}, `activation-monitor explain ${finding.docs}`)));
  all.append(
    element('div', {},
      element('span', {className: `badge ${finding.severity}`}, finding.severity),
      element('strong', {}, finding.code), ' ', show, ` ${finding.when} `,
      element('span', {className: 'dim'}, `– ${finding.meaning}`)),
    ...finding.changes.map((change) => element('div', {className: 'change'},
      element('span', {className: 'dim'}, `${change.place}:`),
      element('span', {className: 'line'},
        copyButton(change.line), element('code', {}, change.line)))),
    element('details', {}, element('summary', {}, 'Why: evidence and cause'), ...why));
  return all;
}

/**
 * The findings of these runs. Calls `select(run, finding)` to show one. The one of the code
 * `shown` in the run `focus` is marked.
 */
export function findings(runs, select, focus = null, shown = null) {
  return bySeverity(runs).map((run) => {
    const found = [...run.findings].sort((a, b) => RANK[a.severity] - RANK[b.severity]);
    const parts = [element('h3', {},
      element('span', {className: `dot ${verdict(run)}`}),
      element('span', {className: 'dim'}, 'Run '), run.label,
      element('span', {className: 'dim'}, `: ${verdictText(run)}`))];
    if (run.problem) parts.push(element('p', {className: 'notice'}, run.problem));
    if (run.note) parts.push(element('p', {className: 'notice'}, run.note));
    if (run.reason && !run.evaluation) parts.push(element('p', {className: 'dim'}, run.reason));
    parts.push(...found.map((finding) => card(run, finding, select, run.name === focus && finding.code === shown)));
    return element('section', {className: 'run-findings'}, ...parts);
  });
}
