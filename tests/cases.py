"""Which of many cases of one kind the default run has; `-m slow` runs the others."""

from collections.abc import Iterable

import pytest


def cases(names: Iterable[str], default: Iterable[str], smoke: Iterable[str] = ()) -> list:
    """Parameters of a test: all names, with their marks.

    Args:
        names: Of the cases.
        default: Those of the default run, with something in them that no other has. The
            rest is slow.
        smoke: Those that run with the oldest versions too.
    """
    names, default, smoke = [*names], {*default}, {*smoke}
    assert default | smoke <= {*names}, (default | smoke) - {*names}
    return [
        pytest.param(
            name,
            marks=[
                *([] if name in default else [pytest.mark.slow]),
                *([pytest.mark.smoke] if name in smoke else []),
            ],
        )
        for name in names
    ]


SLOW = (
    "test_distribution.py::test_in_fit_the_record_is_that_of_the_global_batch",
    "test_plugin.py::test_the_wheel_installed_in_a_fresh_environment_is_served",
    "test_plugin.py::test_the_tab_follows_a_training_that_runs",
    "test_plugin.py::test_a_link_opens_what_it_was_copied_from",
    "test_plugin.py::test_the_tab_draws_below_a_path_prefix",
    "test_tracing.py::test_no_trace_of_ours_is_warned_of",
    "test_patient.py::test_training_is_bit_identical[three steps per execution, unrolled]",
    "test_patient.py::test_training_is_bit_identical[wrapped layers]",
    "test_patient.py::test_every_training_is_bit_identical[network: padded tokens]",
    "test_patient.py::test_every_training_is_bit_identical[model: own step]",
    "test_monitor.py::test_with_another_model_the_monitor_starts_again",
    "test_monitor.py::test_the_growth_that_is_reported_is_that_of_the_law",
    "test_monitor.py::test_a_healthy_network_gets_no_warning[glorot tanh]",
    "test_monitor.py::test_a_healthy_network_gets_no_warning[orthogonal linear]",
    "test_monitor.py::test_a_function_can_receive_a_finding",
    "test_cli.py::test_the_critical_chain_obeys_the_law[{'jit_compile': True}",
    "test_cli.py::test_exploding_and_vanishing_chains_obey_the_law[True",
    "test_trainer_cases.py::test_every_step_is_measured_under_its_number[compile: xla]",
    "test_trainer_cases.py::test_every_step_is_measured_under_its_number[data: PyDataset]",
    "test_trainer_cases.py::test_every_step_is_measured_under_its_number[data: dataset of",
    "test_rescale.py::test_a_deep_network_with_tiny_kernels_learns_after_it_and_not_before",
    "test_taps.py::test_the_records_are_those_of_the_outputs[compile1]",
    "test_fixes.py::test_an_unhealthy_network_trains_after_the_printed_fix[a scaling",
    "test_fixes.py::test_an_unhealthy_network_trains_after_the_printed_fix[convolutions",
    "test_fixes.py::test_an_unhealthy_network_trains_after_the_printed_fix[relu, zeros]",
    "test_fixes.py::test_an_unhealthy_network_trains_after_the_printed_fix[input 0..255]",
    "test_fixes.py::test_an_unhealthy_network_trains_after_the_printed_fix[sigmoid]",
    "test_all_layers.py::test_every_layer_is_measured[attention]",
    "test_wrapper.py::test_the_record_of_a_fit_is_float64_numpy_over_all_batches[xla]",
    "test_wrapper.py::test_a_callback_logs_a_wrapped_layer_like_any_other[compile1]",
    "test_wrapper.py::test_quantization_passes_through",
    "test_wrapper.py::test_a_wrapped_layer_does_what_the_layer_does[dropout]",
    "test_wrapper.py::test_a_wrapped_layer_does_what_the_layer_does[lazily built]",
    "test_wrapper.py::test_a_wrapped_layer_does_what_the_layer_does[subclassed model]",
    "test_causes.py::test_a_trained_model_is_not_said_to_be_at_initialization[True]",
    "test_causes.py::test_normalized_layers_are_not_of_an_unknown_kind",
    "test_evaluation.py::test_a_mask_that_masks_nothing_changes_nothing",
    "test_evaluation.py::test_a_batch_of_nothing_but_padding_is_an_empty_record",
    "test_measure.py::test_saturated_elements_of_batches_add_up_and_the_fewest_dead_units_",
    "test_measure.py::test_records_of_batches_merge_into_the_record_of_all[xla]",
    "test_measure.py::test_special_tensors_are_right[many equal rows-xla]",
    "test_measure.py::test_special_tensors_are_right[an outlier-xla]",
    "test_measure.py::test_special_tensors_are_right[many units-xla]",
    "test_agreement.py::test_every_reader_says_the_same_of_a_run[vanishing]",
    "test_agreement.py::test_every_reader_says_the_same_of_a_run[one",
    "test_resuming.py::test_a_killed_run_continues_its_curves",
    "test_report.py::test_the_page_draws_in_a_browser_from_a_file[True]",
    "test_auditing.py::test_the_growth_of_healthy_draws_is_what_chance_leaves",
    "test_auditing.py::test_training_afterwards_is_as_without_an_audit[functional-3]",
    "test_backward.py::test_an_update_is_the_change_of_the_kernel_whatever_made_it[adam]",
    "test_backward.py::test_the_loss_scale_is_divided_out[with_dynamic_scale]",
    "test_backward_reports.py::test_gradients_that_begin_at_zero_are_healthy[branches of",
    "test_backward_reports.py::test_gradients_that_begin_at_zero_are_healthy[branches with",
    "test_backward_reports.py::test_the_same_networks_on_samples_that_differ_are_health",
    "test_backward_reports.py::test_a_rectified_output_is_found_on_the_seeds_that_do_no",
    "test_backward_reports.py::test_the_callback_says_what_an_audit_says[s",
    "test_backward_reports.py::test_saturated_sigmoids_and_targets_out_of_scale_are_two_f",
    "test_flight_recorder.py::test_the_step_that_makes_the_first_nan_is_found_beside_te"
    "rminate_on_nan[a",
    "test_flight_recorder.py::test_a_loss_of_nan_is_found_although_its_step_was_not_sam"
    "pled[a",
    "test_flight_recorder.py::test_the_log_shows_the_same_findings[0]",
    "test_flight_recorder.py::test_executions_of_several_steps_are_kept_as_such",
    "test_flight_recorder.py::test_a_divergence_is_told_from_a_bad_batch",
    "test_flight_recorder.py::test_the_schedule_gets_denser_after_a_first_sign",
    "test_actions.py::test_a_healthy_training_with_both_runs_to_its_end[True]",
    "test_activity_in_fit.py::test_a_layer_that_comes_back_is_healthy",
    "test_monitor.py::test_infinities_that_the_model_handles_are_not_a_finding",
    "test_actions.py::test_after_the_error_the_model_trains_as_before",
    "test_agreement.py::test_every_reader_says_the_same_of_a_run[dying]",
    "test_backward_reports.py::test_the_callback_says_what_an_audit_says[equal",
    "test_actions.py::test_findings_below_the_severity_only_warn",
    "test_monitor.py::test_a_healthy_network_gets_no_warning[lecun",
    "test_actions.py::test_other_callbacks_read_the_findings_of_the_same_batch[Fals",
    "test_actions.py::test_other_callbacks_read_the_findings_of_the_same_batch[True",
    "test_auditing.py::test_training_afterwards_is_as_without_an_audit[unbuilt",
    "test_actions.py::test_a_function_finds_the_step_in_the_log",
    "test_measure.py::test_special_tensors_are_right[relu-xla]",
    "test_backward.py::test_an_update_is_the_change_of_the_kernel_whatever_made_it[average",
    "test_backward.py::test_an_update_is_the_change_of_the_kernel_whatever_made_it[weight",
    "test_backward.py::test_an_update_is_the_change_of_the_kernel_whatever_made_it"
    "[accumulation",
    "test_log_budget.py::test_a_long_log_stays_within_its_budget_and_gets_ever_spar",
    "test_backward_reports.py::test_a_model_that_a_function_makes_can_be_rescaled_a",
    "test_actions.py::test_the_error_can_be_pickled",
    "test_causes.py::test_a_product_of_branches_is_no_residual_stream",
    "test_measure.py::test_a_variance_far_below_the_mean_square_is_right[False-1.0-",
    "test_evaluation.py::test_padded_time_steps_are_left_out[options0]",
    "test_monitor.py::test_growth_that_training_brings_is_not_reported",
    "test_measure.py::test_special_tensors_are_right[many",
    "test_backward_reports.py::test_the_same_with_a_small_number_inside_is_healthy",
    "test_backward_reports.py::test_the_callback_says_what_an_audit_says[two",
    "test_auditing.py::test_findings_of_most_draws_are_reported[bad2-5-False]",
    "test_backward_reports.py::test_the_callback_says_what_an_audit_says[no",
    "test_measure.py::test_special_tensors_are_right[an",
    "test_measure.py::test_special_tensors_are_right[a",
    "test_auditing.py::test_every_kind_of_model_can_be_cloned[functional]",
    "test_auditing.py::test_nothing_changes_with_several_seeds[functional]",
    "test_tab.py::test_the_first_screen_has_every_answer_and_a_figure[size1]",
    "test_tab.py::test_several_layers_are_drawn_and_put_away_again",
    "test_tab.py::test_an_error_is_gone_when_the_figure_is_drawn_again",
    "test_tab.py::test_the_cursor_is_at_the_step_of_the_slider_also_if_a_figure",
    "test_tab.py::test_a_filter_that_nothing_matches_says_so",
    "test_report.py::test_the_page_says_which_run_is_the_reference_and_why[ad",
    "test_report.py::test_the_page_says_which_run_is_the_reference_and_why[ae",
    "test_live.py::test_a_training_outside_of_a_notebook_needs_none",
    "test_kernel_histograms.py::test_histograms_of_kernels_and_their_gradients_are_those_of_numpy[options1]",
)
"""How the names of other slow tests begin. Each took 6 to 100 seconds of a run of 30
minutes on a busy machine, and something faster tests most of what it tests. `-m slow` runs
them."""


def is_slow(name: str) -> bool:
    """Whether a test is one of `SLOW`, by its node id."""
    return any(f"tests/{beginning}" in name for beginning in SLOW)


SMOKE = (
    "test_records_of_a_step_equal_float64[Model-options0]",
    "test_training_is_the_same_to_the_bit[residual-options0]",
    "test_the_graph_of_layers_is_that_of_the_model",
    "test_an_evaluation_is_one_snapshot",
    "test_an_audit_changes_nothing[True]",
    "test_a_network_that_loses_its_signal_is_found",
)
"""Of the tests in `backends/`, those that depend most on versions."""


def is_smoke(name: str) -> bool:
    """Whether a test is one of `SMOKE`, by its node id."""
    return "/backends/" in name and any(f"::{test}" in name for test in SMOKE)


ON_EACH_BACKEND = (
    "test_asserting.py",
    "test_backends.py",
    "test_cli.py",
    "test_diagnosing.py",
    "test_evaluation.py",
    "test_event_file.py",
    "test_flight_recorder.py",
    "test_kernel_histograms.py",
    "test_log_budget.py",
    "test_nonfinite_loss.py",
    "test_resuming.py",
    "test_without_tensorflow.py",
)
"""Files whose tests hold on every backend of Keras: what they import runs on each."""

NEED_TENSORFLOW = (
    # JAX reads another row of an embedding where an index is too large; no error says so.
    "test_cli.py::test_a_file_that_does_not_fit_the_model_is_refused_with_the_reason"
    "[tokens-large.npy",
)
"""Tests of these files that do not."""


def needs_tensorflow(name: str) -> bool:
    """Whether a test is one of `NEED_TENSORFLOW`, by its node id."""
    return any(f"tests/{beginning}" in name for beginning in NEED_TENSORFLOW)
