"""TensorBoard's standard tabs in a real browser: the order of groups and cards."""

import numpy as np
import pytest
import tensorflow as tf

import board
import models

SHOWN = """
const found = [], selector = arguments[0];
function search(root) {
  for (const element of root.querySelectorAll("*")) {
    if (element.shadowRoot) search(element.shadowRoot);
    if (element.matches(selector)) found.push(element.textContent.trim());
  }
}
search(document);
return found;
"""


def shown(driver, selector):
    """The texts of elements, also those in shadow trees, from the top of the page."""
    return driver.execute_script(SHOWN, selector)


@pytest.mark.skipif(bool(board.why_no_browser()), reason=board.why_no_browser())
def test_our_groups_come_after_those_of_the_user(tmp_path):
    """In both tabs with scalars, whatever letter the user's groups begin with."""
    models.watch(models.perceptron(12), *models.data(), log_dir=tmp_path / "run")
    theirs = ["batch_loss", "epoch_loss", "val_accuracy", "zero_shot"]
    writer = tf.summary.create_file_writer(str(tmp_path / "run" / "train"))
    with writer.as_default():
        for group in theirs:
            tf.summary.scalar(f"{group}/a", 1.0, step=0)
    writer.close()
    ours = ["~activation_mean", "~activation_std", "~gradient_rms", "~update_ratio"]
    url = board.serve(tmp_path)
    with board.browser() as driver:
        for tab, selector in (
            ("scalars", ".category-name"),
            ("timeseries", ".group-title"),
        ):
            driver.get("about:blank")
            driver.get(f"{url}#{tab}")
            board.until(
                lambda s=selector: shown(driver, s), lambda found: ours[-1] in found
            )
            groups = shown(driver, selector)
            of_scalars = [group for group in groups if group in theirs + ours]
            assert of_scalars == theirs + ours


def test_tags_of_layers_sort_in_the_order_of_the_network(tmp_path):
    """By characters and, as TensorBoard does, by the numbers in them."""
    monitor, _ = models.watch(models.perceptron(12), *models.data(), log_dir=tmp_path)
    names = [*monitor.recording[0].names]
    assert sorted(names) != names
    (path,) = (tmp_path / "activations").iterdir()
    events = tf.compat.v1.train.summary_iterator(str(path))
    tags = {value.tag for event in events for value in event.summary.value}
    of_mean = [tag for tag in tags if tag.startswith("~activation_mean/")]
    assert [tag[len("~activation_mean/000_") :] for tag in sorted(of_mean)] == names
    numbers = [int(tag.split("/")[1][:3]) for tag in sorted(of_mean)]
    np.testing.assert_array_equal(numbers, np.arange(len(names)))
