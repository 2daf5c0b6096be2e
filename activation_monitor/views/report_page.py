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
:root { --paper: #ffffff; --ink: #222222; --soft: #f4f4f4; --line: #d8d8d8;
  --critical: #b00020; --warning: #9a5b00; --healthy: #00704f; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #1e1e1e; --ink: #e8e8e8; --soft: #2a2a2a; --line: #444444;
    --critical: #ff6b6b; --warning: #e69f00; --healthy: #2cc295; } }
body { background: var(--paper); color: var(--ink); margin: 0 auto;
  padding: 1rem 1.5rem 3rem; max-width: 1200px; font: 15px/1.5 system-ui, sans-serif;
  overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; }
h2 { font-size: 1.2rem; }
h3, article .title { font-size: 1rem; font-weight: bold; margin: 0.3rem 0; }
article { border-left: 5px solid var(--line); padding: 0.2rem 1rem; margin: 1rem 0;
  background: var(--soft); }
article.healthy { border-color: var(--healthy); }
article.findings { border-color: var(--critical); }
article p { margin: 0.4rem 0; }
.finding { border-top: 1px solid var(--line); padding: 0.5rem 0; }
.critical .title, tr.critical td:first-child { color: var(--critical); font-weight: bold; }
.warning .title, tr.warning td:first-child { color: var(--warning); font-weight: bold; }
pre { background: var(--paper); border: 1px solid var(--line); padding: 0.5rem;
  white-space: pre-wrap; margin: 0.3rem 0; }
.figure { margin: 1rem 0; min-height: 300px; }
.finding .more { color: inherit; opacity: 0.7; }
.wide { overflow-x: auto; max-height: 70vh; overflow-y: auto; }
table { border-collapse: collapse; font-size: 13px; }
th, td { padding: 0.15rem 0.6rem; text-align: left; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { position: sticky; top: 0; background: var(--paper); }
.number { text-align: right; font-variant-numeric: tabular-nums; }
summary { cursor: pointer; font-weight: bold; }
</style>
</head>
<body>
$body
<script type="application/json" id="figures">$figures</script>
<script>$plotly</script>
<script>
const figures = JSON.parse(document.getElementById("figures").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
function draw() {
  for (const place of document.querySelectorAll("[data-figure]")) {
    const figure = figures[place.dataset.figure][dark.matches ? "dark" : "light"];
    Plotly.react(place, figure.data, figure.layout, {
      responsive: true, displaylogo: false, showSendToCloud: false,
      modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
    });
  }
}
dark.addEventListener("change", draw);
draw();
</script>
</body>
</html>
""")
