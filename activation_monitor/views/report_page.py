"""The frame of the report: its style, and the script that draws the figures."""

from string import Template

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>$title</title>
<style>
:root { color-scheme: light dark; --paper: light-dark(#ffffff, #1e1e1e);
  --ink: light-dark(#222222, #e8e8e8); --soft: light-dark(#f4f4f4, #2a2a2a);
  --line: light-dark(#d8d8d8, #444444); --critical: light-dark(#b00020, #ff6b6b);
  --warning: light-dark(#9a5b00, #e69f00); --healthy: light-dark(#00704f, #2cc295); }
:root.light { color-scheme: light; }
:root.dark { color-scheme: dark; }
body { background: var(--paper); color: var(--ink); margin: 0 auto;
  padding: 1rem 1.5rem 3rem; max-width: 1200px; font: 15px/1.5 system-ui, sans-serif;
  overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; margin: 0 12rem 0 0; }
h2 { font-size: 1.2rem; margin: 2rem 0 0.5rem; }
a { color: inherit; }
.theme { float: right; font-size: 13px; border: 0; padding: 0; margin: 0.3rem 0 0; }
.theme label { margin-left: 0.6rem; }
.line { font-weight: bold; margin: 0.5rem 0; }
.swatch { display: inline-block; width: 0.8em; height: 0.8em; border-radius: 2px;
  margin-right: 0.5em; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.critical .kind { color: var(--critical); font-weight: bold; }
.warning .kind { color: var(--warning); font-weight: bold; }
.healthy .kind { color: var(--healthy); }
table { border-collapse: collapse; font-size: 13px; overflow-wrap: break-word; }
th, td { padding: 0.15rem 0.6rem; text-align: left; border-bottom: 1px solid var(--line); }
.runs { width: 100%; font-size: 14px; }
.runs td { padding: 0.3rem 0.6rem; vertical-align: top; }
.runs a { text-decoration: none; white-space: nowrap; }
.runs a:hover { text-decoration: underline; }
.runs .place { opacity: 0.7; }
code, pre { font: 13px/1.45 ui-monospace, monospace; }
summary { cursor: pointer; font-weight: bold; }
.run { border-top: 2px solid var(--line); margin: 1.5rem 0 0; padding-top: 0.5rem; }
.run > summary { font-size: 1.2rem; }
.part { scroll-margin-top: 3rem; }
article { border-left: 5px solid var(--line); padding: 0.2rem 1rem; margin: 1rem 0;
  background: var(--soft); }
article.healthy { border-color: var(--healthy); }
article.critical { border-color: var(--critical); }
article.warning { border-color: var(--warning); }
article p { margin: 0.4rem 0; }
.finding { border-top: 1px solid var(--line); padding: 0.5rem 0; display: flow-root; }
.finding .title { font-weight: bold; }
.finding.critical .title { color: var(--critical); }
.finding.warning .title { color: var(--warning); }
.evidence { float: right; margin: 0 0 0.5rem 1.5rem; max-width: 45%; }
.evidence th { font-weight: normal; opacity: 0.8; }
.evidence td { font-variant-numeric: tabular-nums; }
pre { background: var(--paper); border: 1px solid var(--line); padding: 0.5rem;
  white-space: pre-wrap; margin: 0.3rem 0; overflow: hidden; }
.more { opacity: 0.7; }
.on-paper { display: none; }
.figure { margin: 1rem 0; min-height: 300px; }
.wide { overflow: auto; max-height: 70vh; }
.wide th, .wide td { white-space: nowrap; }
.wide th { position: sticky; top: 0; background: var(--paper); vertical-align: bottom; }
.wide .number { text-align: right; font-variant-numeric: tabular-nums; }
.wide .critical td:first-child { color: var(--critical); font-weight: bold; }
.wide .warning td:first-child { color: var(--warning); font-weight: bold; }
@media (max-width: 800px) { .evidence { float: none; max-width: none; margin-left: 0; } }
@media print {
  @page { margin: 12mm; }
  :root, :root.dark { color-scheme: light; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  .theme { display: none; }
  .run > summary, h2 { break-after: avoid; }
  .figure { break-inside: avoid; margin: 0.5rem 0; }
  .wide { overflow: visible; max-height: none; }
  .wide table { width: 100%; font-size: 6pt; }
  .wide th, .wide td { white-space: normal; padding: 1px 2px; }
  .wide td { overflow-wrap: anywhere; min-width: 6.5em; }
  /* Names are in one line. Long ones may be broken after a slash. */
  .wide td:first-child { white-space: nowrap; min-width: 0; }
  .wide td:has(wbr) { white-space: normal; min-width: 22em; }
  .wide td.number { white-space: nowrap; min-width: 0; }
  .wide .rest { display: none; }
  .on-paper { display: block; }
  .wide th { position: static; }
  thead { display: table-header-group; }
  tr, pre { break-inside: avoid; }
  .runs, .evidence { font-size: 8.5pt; }
  .runs td { overflow-wrap: break-word; }
  .runs td:has(wbr) { overflow-wrap: anywhere; min-width: 14em; }
  .runs td:last-child { width: 45%; }
  .runs td:nth-child(4) { white-space: nowrap; }
  h2 { margin: 1rem 0 0.3rem; }
  ul { margin: 0.3rem 0; }
  p { margin: 0.5rem 0 0.3rem; }
  .figure { min-height: 0; }
  p:has(+ pre), p:has(+ ul) { break-after: avoid; }
  .modebar-container { display: none; }
  h1 { margin-right: 0; }
  details::details-content { content-visibility: visible; display: block; }
}
</style>
</head>
<body>
<fieldset class="theme" aria-label="Theme">
<label><input type="radio" name="theme" value="" checked> auto</label>
<label><input type="radio" name="theme" value="light"> light</label>
<label><input type="radio" name="theme" value="dark"> dark</label>
</fieldset>
$body
<script type="application/json" id="figures">$figures</script>
<script>$plotly</script>
<script>
const figures = JSON.parse(document.getElementById("figures").textContent);
const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");
const places = [...document.querySelectorAll("[data-figure]")];
// Pixels between the margins: two figures fit on a page, and the first one below a table.
const printed = {width: 700, high: 490, first: 400};
function draw(place, theme, paper) {
  const {data, layout} = figures[place.dataset.figure][theme];
  const size = {autosize: !paper};
  if (paper) {
    size.width = paper.width;
    size.height = Math.min(layout.height, place === places[0] ? paper.first : paper.high);
  }
  return Plotly.react(place, data, {...layout, ...size}, {
    responsive: !paper, displaylogo: false, showSendToCloud: false,
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
  });
}
function theme() {
  return root.className || (dark.matches ? "dark" : "light");
}
// A figure is drawn when it comes near: there may be a hundred.
const near = new IntersectionObserver((entries) => {
  for (const {target, isIntersecting} of entries) {
    if (isIntersecting) {
      near.unobserve(target);
      draw(target, theme());
    }
  }
}, {rootMargin: "1000px"});
for (const place of places) near.observe(place);
function redraw() {
  for (const place of places) if (place.data) draw(place, theme());
}
dark.addEventListener("change", redraw);
for (const choice of document.querySelectorAll("[name=theme]")) {
  choice.addEventListener("change", () => {
    root.className = choice.value;
    redraw();
  });
}
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  for (const part of closed) part.open = true;
  for (const place of places) draw(place, "light", printed);
});
addEventListener("afterprint", () => {
  for (const part of closed) part.open = false;
  redraw();
});
</script>
</body>
</html>
""")
