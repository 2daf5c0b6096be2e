"""The entry point that TensorBoard imports at its start, for every log folder.

TensorBoard imports it without a `try`: an error here would end TensorBoard. So this module
imports only what TensorBoard has imported already, and no framework, no plotly, and nothing
of this package but the plugin's name. The tab is imported when TensorBoard asks for it. An
error at that point costs the tab only.
"""

from argparse import Namespace

from tensorboard.plugins import base_plugin

from activation_monitor.storage.plugin_name import PLUGIN

_ALL = 0


class Loader(base_plugin.TBLoader):
    """Asks TensorBoard to keep all steps of the plugin, and creates the tab."""

    def fix_flags(self, flags: Namespace) -> None:
        """Keep all steps, unless the user has set `--samples_per_plugin`.

        By default TensorBoard keeps a random sample of 10 or 100 steps, a different one for
        each tag. The first step, which shows the initialization, would usually be missing.
        """
        kept = getattr(flags, "samples_per_plugin", None)
        if isinstance(kept, dict):
            kept.setdefault(PLUGIN, _ALL)

    def load(self, context: base_plugin.TBContext) -> base_plugin.TBPlugin:
        """Create the tab. TensorBoard logs an error raised here and skips the plugin."""
        from activation_monitor.views.plugin.tab import Tab

        return Tab(context)
