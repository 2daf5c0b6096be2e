"""The name under which TensorBoard knows the tab and the tensors of a log.

It has a module of its own because TensorBoard loads it at every start, through
`views.plugin.entry`: it must import nothing.
"""

PLUGIN = "activation_monitor"
