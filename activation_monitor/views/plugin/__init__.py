"""The tab "Activations" of TensorBoard.

TensorBoard loads `entry.Loader` wherever this package is installed. `tab` has the routes,
`runs` reads and judges the runs that TensorBoard holds, and `static` is the page.
"""
