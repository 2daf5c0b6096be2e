// The findings of a run: what was seen, why, and what to change.

import {copy, element} from './dom.js';

const RANK = {critical: 0, warning: 1};

/** The worst that is known of a run: problem, critical, warning, healthy, unjudged. */
export function verdict(run) {
  if (run.problem) return 'problem';
  if (!run.steps.length) return 'empty';
  if (!run.findings.length) return run.judged ? 'healthy' : 'unjudged';
  return run.findings.some((finding) => finding.severity === 'critical')
    ? 'critical' : 'warning';
}

/** The same in words. */
export function verdictText(run) {
  const n = run.findings.length;
  return {
    problem: 'cannot be read',
    empty: 'nothing measured yet',
    healthy: 'healthy',
    unjudged: 'no findings',
  }[verdict(run)] || `${n} finding${n === 1 ? '' : 's'}`;
}

const ORDER = ['critical', 'warning', 'problem', 'unjudged', 'healthy', 'empty'];

/** Sick runs first. */
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

function card(run, finding, select) {
  const since = finding.initial ? 'at initialization' : `since step ${finding.step}`;
  const show = element('button', {className: 'where', title: 'Show the first of them below'},
    range(finding.layers));
  show.onclick = () => select(run.name, finding.layers[0]);
  const why = [element('p', {}, finding.message)];
  if (finding.cause) {
    why.push(element('p', {}, element('strong', {}, `Cause: ${finding.cause}. `),
      finding.reason));
  }
  why.push(element('table', {}, ...finding.evidence.map(([name, value]) =>
    element('tr', {}, element('td', {className: 'dim'}, name.replaceAll('_', ' ')),
      element('td', {}, value)))));
  return element('div', {className: `finding ${finding.severity}`},
    element('div', {},
      element('span', {className: `badge ${finding.severity}`}, finding.severity),
      element('strong', {}, finding.code), ' ', show, ` ${since} `,
      element('span', {className: 'dim'}, `– ${finding.meaning}`)),
    ...finding.changes.map((change) => element('div', {className: 'change'},
      element('span', {className: 'dim'}, `${change.place}:`),
      element('span', {className: 'line'},
        copyButton(change.line), element('code', {}, change.line)))),
    element('details', {}, element('summary', {}, 'Why: evidence and cause'), ...why));
}

/** All that was found in these runs. `select(run, layer)` is called to show a layer. */
export function findings(runs, select) {
  return bySeverity(runs).map((run) => {
    const found = [...run.findings].sort((a, b) => RANK[a.severity] - RANK[b.severity]);
    const parts = [element('h3', {},
      element('span', {className: `dot ${verdict(run)}`}), run.label,
      element('span', {className: 'dim'}, ` ${verdictText(run)}`))];
    if (run.problem) parts.push(element('p', {className: 'notice'}, run.problem));
    if (run.note) parts.push(element('p', {className: 'notice'}, run.note));
    if (verdict(run) === 'unjudged') {
      parts.push(element('p', {className: 'dim'}, 'Growth with depth was not judged: no two '
        + 'weight layers follow one another without normalization on every path to the '
        + 'output, or nothing was measured at initialization.'));
    }
    parts.push(...found.map((finding) => card(run, finding, select)));
    return element('section', {className: 'run-findings'}, ...parts);
  });
}
