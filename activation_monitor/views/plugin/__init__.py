"""TensorBoard's tab "Activations".

TensorBoard loads `entry.Loader` wherever this package is installed; `tab` has the routes,
`runs` reads and judges what TensorBoard holds of a run, and `static` is the page.
"""
