"""What TensorBoard loads at its start, with every log folder and with no try around it.

So nothing here may fail, or load more than TensorBoard has loaded already: no framework,
no plotly, nothing of ours. The tab is imported when TensorBoard asks for it, where an
error costs the tab only.
"""

from tensorboard.plugins import base_plugin

PLUGIN = "activation_monitor"
_ALL = 0


class Loader(base_plugin.TBLoader):
    """Asks TensorBoard to keep all of our steps, and makes the tab."""

    def fix_flags(self, flags):
        """Keep all steps: what a user set with `--samples_per_plugin` holds.

        TensorBoard's own choice is a random sample of 10 or 100 steps, of each tag another
        one, in which the first step, the one that is judged, is most likely missing.
        """
        kept = getattr(flags, "samples_per_plugin", None)
        if isinstance(kept, dict):
            kept.setdefault(PLUGIN, _ALL)

    def load(self, context):
        """The tab. An error in here TensorBoard logs, and goes on without it."""
        from activation_monitor.views.plugin.tab import Tab

        return Tab(context)
