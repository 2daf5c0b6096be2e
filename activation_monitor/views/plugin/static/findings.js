// What is wrong with a run: its verdict, and its findings with their causes and changes.

import {copyButton, element, keyed, openable} from './dom.js';

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

/** The same in words: of a run with findings the code of the worst one. */
export function verdictText(run) {
  const others = run.findings.length - 1;
  const finding = worst(run);
  const over = finding?.recovered == null ? '' : `, recovered at step ${finding.recovered}`;
  return {
    problem: 'cannot be read',
    empty: 'nothing measured yet',
    evaluation: 'measured, not judged',
    healthy: 'healthy',
    unassessed: 'not assessed',
  }[verdict(run)] || finding.code + over + (others ? `, ${others} more` : '');
}

/** The finding of a run that is shown first, null if it has none. */
export function worst(run) {
  return run.findings.find(({code}) => code === run.worst_finding) ?? run.findings[0] ?? null;
}

const ORDER = [
  'critical', 'warning', 'problem', 'unassessed', 'healthy', 'evaluation', 'empty'];

/** Runs with findings first. */
export function bySeverity(runs) {
  return [...runs].sort((a, b) => ORDER.indexOf(verdict(a)) - ORDER.indexOf(verdict(b)));
}

function range(layers) {
  const ends = layers.length > 1 ? [layers[0], layers[layers.length - 1]] : layers;
  return ends.join(' … ');
}

/** A button that copies a line, unless the user has to complete it. */
export const copyable = (line) => (line.includes('=...') ? [] : [copyButton(line)]);

function card(run, finding, select) {
  const where = element('button', {
    className: 'where',
    title: 'Show the worst of these layers, at the step at which the finding began',
  }, range(finding.layers));
  where.onclick = () => select(run.name, finding);
  const why = [element('p', {}, finding.message)];
  if (finding.cause) {
    why.push(element('p', {}, element('strong', {}, `Cause: ${finding.cause}. `),
      finding.reason));
  }
  why.push(element('table', {}, ...finding.in_words.map(([name, value]) =>
    element('tr', {}, element('td', {className: 'dim'}, name), element('td', {}, value)))));
  why.push(element('p', {className: 'dim'}, 'More: ',
    element('code', {}, `activation-monitor explain ${finding.docs}`)));
  return element('div', {className: `finding ${finding.severity}`},
    element('div', {},
      element('span', {className: `badge ${finding.severity}`}, finding.severity),
      element('strong', {}, finding.code), ' ', keyed('where', where), ` ${finding.when} `,
      element('span', {className: 'dim'}, `– ${finding.meaning}`)),
    ...finding.changes.map((change) => element('div',
      {className: 'change', title: `${change.place}:\n${change.line}`},
      element('span', {className: 'dim'}, `${change.place}:`),
      element('span', {className: 'line'},
        ...copyable(change.line), element('code', {}, change.line)))),
    openable(`why ${run.name} ${finding.code}`, false,
      keyed('why', element('summary', {}, 'Why: evidence and cause')), ...why));
}

/** A button for each finding of a run, the worst first. The one that is shown is pressed. */
function choices(run, shown, select) {
  const found = [...run.findings].sort((a, b) => RANK[a.severity] - RANK[b.severity]);
  return found.map((finding) => {
    const choice = element('button', {
      className: `choice ${finding.severity}`,
      title: `${finding.title}. Show its statistic, its worst layer and its first step.`,
      ariaPressed: String(finding === shown),
    }, finding.code);
    choice.onclick = () => select(run.name, finding);
    return keyed(`choice ${finding.code}`, choice);
  });
}

/** What there is to say about a run, in detail. `select(run, finding)` shows a finding. */
export function detail(run, shown, select) {
  const parts = [element('div', {className: 'choices'},
    element('h3', {}, element('span', {className: `dot ${verdict(run)}`}),
      element('span', {className: 'dim'}, 'Run '), run.label,
      run.findings.length ? '' : element('span', {className: 'dim'}, `: ${verdictText(run)}`)),
    ...choices(run, shown, select))];
  if (run.note) parts.push(element('p', {className: 'notice'}, run.note));
  if (run.reason && !run.evaluation) parts.push(element('p', {className: 'dim'}, run.reason));
  if (shown) parts.push(card(run, shown, select));
  return parts;
}
